// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention in f32: each thread takes whole lanes and heads.
#include <algorithm>

#include <ouro/backend/cpu.hpp>

#include "dropper.hpp"
#include "kernels.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace ouro {
namespace {

cpu_kernels::table const& kernels() { return cpu_kernels::best(); }

/// One lane and head: pointers to its columns, and row strides.
cpu_kernels::attention_head head_of(const_view const& q, const_view const& k, const_view const& v,
                                    attention_rule const& rule, std::int64_t job, bool rounds) {
  std::int64_t const lane = job / rule.heads;
  std::int64_t const width = q.dims[2] / rule.heads;
  std::int64_t const column = job % rule.heads * width;
  auto at = [&](const_view const& x) { return x.as<float>() + lane * x.steps[0] + column; };
  return {at(q),
          at(k),
          at(v),
          q.steps[1],
          k.steps[1],
          v.steps[1],
          width,
          q.dims[1],
          k.dims[1],
          rule.sees.prefix,
          rule.sees.causal,
          rule.sees.first,
          static_cast<float>(rule.scale),
          cpu_kernels::dropper(rule.dropout, rule.draw),
          job * q.dims[1],
          rounds};
}

std::int64_t grain(const_view const& q, const_view const& k) {
  return 200000 / (q.dims[1] * k.dims[1] * q.dims[2] + 1) + 1;
}

}  // namespace

void cpu::attention(view y, view lse, const_view q, const_view k, const_view v, attention_rule const& rule) {
  if (q.type != dtype::f32 || q.size() == 0) return reference::attention(y, lse, q, k, v, rule);
  std::int64_t const jobs = q.dims[0] * rule.heads;
  bool const rounds = cpu_products() == product_precision::bf16;
  cpu_threading::parallel(jobs, grain(q, k), [&](std::int64_t first, std::int64_t last) {
    scratch room(kernels().attention_scratch(k.dims[1], q.dims[2] / rule.heads, false, rounds));
    for (std::int64_t job = first; job < last; ++job) {
      auto const h = head_of(q, k, v, rule, job, rounds);
      float* out = y.as<float>() + job / rule.heads * y.steps[0] + job % rule.heads * h.width;
      kernels().attention(h, out, y.steps[1], lse.as<float>() + h.flat, room.data());
    }
  });
}

void cpu::attention_gradient(destination dq, destination dk, destination dv, const_view q, const_view k, const_view v,
                             const_view y, const_view lse, const_view dy, attention_rule const& rule) {
  if (q.type != dtype::f32 || q.size() == 0)
    return reference::attention_gradient(dq, dk, dv, q, k, v, y, lse, dy, rule);
  for (auto const& d : {dk, dv})
    if (d.wanted() && !d.accumulate) fill(d.out, 0.0);
  std::int64_t const jobs = q.dims[0] * rule.heads;
  std::int64_t const wide = q.dims[2];
  bool const rounds = cpu_products() == product_precision::bf16;
  cpu_threading::parallel(jobs, grain(q, k), [&](std::int64_t first, std::int64_t last) {
    scratch room(kernels().attention_scratch(k.dims[1], wide / rule.heads, true, rounds));
    for (std::int64_t job = first; job < last; ++job) {
      auto const h = head_of(q, k, v, rule, job, rounds);
      std::int64_t const lane = job / rule.heads;
      std::int64_t const column = job % rule.heads * h.width;
      std::int64_t const start = lane * h.queries * wide + column;
      auto at = [&](destination const& d) {
        return d.wanted() ? d.out.as<float>() + lane * d.out.steps[0] + column : nullptr;
      };
      auto row = [](destination const& d) { return d.wanted() ? d.out.steps[1] : 0; };
      kernels().attention_gradient(h, {at(dq), dq.accumulate, at(dk), at(dv), row(dq), row(dk), row(dv)},
                                   lse.as<float>() + h.flat, dy.as<float>() + start, wide, room.data());
    }
  });
}

}  // namespace ouro
