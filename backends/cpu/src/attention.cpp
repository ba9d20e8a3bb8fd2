// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention in f32: blocks of query rows against the keys they see. Scores live in a block's scratch only.
#include <algorithm>
#include <cmath>
#include <vector>

#include <ouro/backend/cpu.hpp>

#include "kernels.hpp"
#include "matmul.hpp"
#include "signals.hpp"
#include "threads.hpp"

namespace ouro {
namespace {

cpu_kernels::table const& kernels() { return cpu_kernels::best(); }

constexpr std::int64_t block = 64;

/// One lane and head: pointers to its columns, and row strides.
struct head {
  float const *q, *k, *v;
  std::int64_t ldq, ldk, ldv, width, queries, keys, flat;
};

head head_of(const_view const& q, const_view const& k, const_view const& v, attention_rule const& rule, std::int64_t job) {
  std::int64_t const n = job / rule.heads;
  std::int64_t const width = q.dims[2] / rule.heads;
  std::int64_t const column = job % rule.heads * width;
  // A single row may have any stride; products want one that is at least a row.
  auto row = [](const_view const& x) { return std::max(x.steps[1], x.dims[2]); };
  return {q.as<float>() + n * q.steps[0] + column, k.as<float>() + n * k.steps[0] + column,
          v.as<float>() + n * v.steps[0] + column, row(q), row(k), row(v), width, q.dims[1], k.dims[1],
          job * q.dims[1]};
}

void product(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, float const* a,
             std::int64_t lda, float const* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  if (m * n * k > 32768) return cpu_products::gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  // Small: a call would cost more than the work.
  for (std::int64_t i = 0; i < m; ++i) {
    float* row = c + i * ldc;
    if (tb) {
      for (std::int64_t j = 0; j < n; ++j) {
        float const value = alpha * kernels().dot(a + i * lda, b + j * ldb, k);
        row[j] = beta == 0.0F ? value : row[j] + value;
      }
    } else {
      if (beta == 0.0F) std::fill(row, row + n, 0.0F);
      for (std::int64_t l = 0; l < k; ++l)
        kernels().scale(row, b + l * ldb, alpha * (ta ? a[l * lda + i] : a[i * lda + l]), n, true);
    }
  }
}

/// Multiplies a row of weights by its dropout mask.
void drop_row(float* p, std::int64_t n, attention_rule const& rule, std::int64_t keys, std::int64_t row) {
  kernels().dropout(p, p, static_cast<float>(1.0 / (1.0 - rule.dropout)), static_cast<std::uint32_t>(rule.dropout * 0x1p32),
                    rule.draw.key, rule.draw.site, static_cast<std::uint64_t>(row * ((keys + 3) / 4 * 4)), n, false);
}

std::int64_t grain(const_view const& q, const_view const& k) {
  return 200000 / (q.dims[1] * k.dims[1] * q.dims[2] + 1) + 1;
}

}  // namespace

void cpu::attention(view y, view lse, const_view q, const_view k, const_view v, attention_rule const& rule) {
  if (q.type != dtype::f32 || q.size() == 0) return reference::attention(y, lse, q, k, v, rule);
  std::int64_t const jobs = q.dims[0] * rule.heads;
  cpu_threading::parallel(jobs, grain(q, k), [&](std::int64_t first, std::int64_t last) {
    cpu_threading::signals_blocked const quiet;  // once for all products of the part
    std::vector<float> scratch(static_cast<std::size_t>(block * k.dims[1]));
    for (std::int64_t job = first; job < last; ++job) {
      head const h = head_of(q, k, v, rule, job);
      float* out = y.as<float>() + job / rule.heads * y.steps[0] + job % rule.heads * h.width;
      for (std::int64_t i0 = 0; i0 < h.queries; i0 += block) {
        std::int64_t const m = std::min(block, h.queries - i0);
        std::int64_t seen = 0;
        for (std::int64_t i = 0; i < m; ++i) seen = std::max(seen, rule.sees.count(i0 + i, h.keys));
        float* p = scratch.data();
        product(false, true, m, seen, h.width, static_cast<float>(rule.scale), h.q + i0 * h.ldq, h.ldq, h.k, h.ldk, 0.0F,
                p, seen);
        for (std::int64_t i = 0; i < m; ++i) {
          float* row = p + i * seen;
          std::int64_t const n = rule.sees.count(i0 + i, h.keys);
          float const top = kernels().maximum(row, n);
          float const sum = kernels().exp_shifted(row, 1.0F, top, n);
          lse.as<float>()[h.flat + i0 + i] = top + std::log(sum);
          kernels().scale(row, row, 1.0F / sum, n, false);
          std::fill(row + n, row + seen, 0.0F);
          if (rule.dropout > 0) drop_row(row, n, rule, h.keys, h.flat + i0 + i);
        }
        product(false, false, m, h.width, seen, 1.0F, p, seen, h.v, h.ldv, 0.0F, out + i0 * y.dims[2], y.dims[2]);
      }
    }
  });
}

void cpu::attention_gradient(destination dq, destination dk, destination dv, const_view q, const_view k, const_view v,
                             const_view y, const_view lse, const_view dy, attention_rule const& rule) {
  bool const dense = (!dq.wanted() || dq.out.contiguous()) && (!dk.wanted() || dk.out.contiguous()) &&
                     (!dv.wanted() || dv.out.contiguous());
  if (q.type != dtype::f32 || q.size() == 0 || !dense)
    return reference::attention_gradient(dq, dk, dv, q, k, v, y, lse, dy, rule);
  for (auto const& d : {dk, dv})
    if (d.wanted() && !d.accumulate) fill(d.out, 0.0);
  std::int64_t const jobs = q.dims[0] * rule.heads;
  std::int64_t const wide = q.dims[2];
  cpu_threading::parallel(jobs, grain(q, k), [&](std::int64_t first, std::int64_t last) {
    cpu_threading::signals_blocked const quiet;  // once for all products of the part
    auto const size = static_cast<std::size_t>(block * k.dims[1]);
    std::vector<float> weights(size);
    std::vector<float> dropped(rule.dropout > 0 ? size : 0);
    std::vector<float> slopes(size);
    for (std::int64_t job = first; job < last; ++job) {
      head const h = head_of(q, k, v, rule, job);
      std::int64_t const lane = job / rule.heads;
      std::int64_t const column = job % rule.heads * h.width;
      std::int64_t const query_start = lane * h.queries * wide + column;
      std::int64_t const key_start = lane * h.keys * wide + column;
      float const* out = y.as<float>() + query_start;
      float const* up = dy.as<float>() + query_start;
      for (std::int64_t i0 = 0; i0 < h.queries; i0 += block) {
        std::int64_t const m = std::min(block, h.queries - i0);
        std::int64_t seen = 0;
        for (std::int64_t i = 0; i < m; ++i) seen = std::max(seen, rule.sees.count(i0 + i, h.keys));
        float* p = weights.data();
        float* ds = slopes.data();
        auto const scale = static_cast<float>(rule.scale);
        product(false, true, m, seen, h.width, scale, h.q + i0 * h.ldq, h.ldq, h.k, h.ldk, 0.0F, p, seen);
        product(false, true, m, seen, h.width, 1.0F, up + i0 * wide, wide, h.v, h.ldv, 0.0F, ds, seen);
        for (std::int64_t i = 0; i < m; ++i) {
          std::int64_t const n = rule.sees.count(i0 + i, h.keys);
          float* row = p + i * seen;
          float* slope = ds + i * seen;
          static_cast<void>(kernels().exp_shifted(row, 1.0F, lse.as<float>()[h.flat + i0 + i], n));
          std::fill(row + n, row + seen, 0.0F);
          if (rule.dropout > 0) {
            std::copy(row, row + seen, dropped.data() + i * seen);
            drop_row(dropped.data() + i * seen, n, rule, h.keys, h.flat + i0 + i);
            drop_row(slope, n, rule, h.keys, h.flat + i0 + i);
          }
          float const dot = kernels().dot(out + (i0 + i) * wide, up + (i0 + i) * wide, h.width);
          kernels().combine_scalar(static_cast<int>(binary::subtract), slope, slope, dot, n, false);
          kernels().combine(static_cast<int>(binary::multiply), slope, slope, row, n, false);
          std::fill(slope + n, slope + seen, 0.0F);
        }
        if (dv.wanted())
          product(true, false, seen, h.width, m, 1.0F, rule.dropout > 0 ? dropped.data() : p, seen, up + i0 * wide, wide,
                  1.0F, dv.out.as<float>() + key_start, wide);
        if (dq.wanted())
          product(false, false, m, h.width, seen, scale, ds, seen, h.k, h.ldk, dq.accumulate ? 1.0F : 0.0F,
                  dq.out.as<float>() + query_start + i0 * wide, wide);
        if (dk.wanted())
          product(true, false, seen, h.width, m, scale, ds, seen, h.q + i0 * h.ldq, h.ldq, 1.0F,
                  dk.out.as<float>() + key_start, wide);
      }
    }
  });
}

}  // namespace ouro
