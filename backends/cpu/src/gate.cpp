// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate in f32: blocks of rows, each within a lane, shared by the threads; sums over rows are added up block
// by block, so that the result does not depend on the number of threads.
#include <algorithm>
#include <vector>

#include <ouro/backend/cpu.hpp>

#include "dropper.hpp"
#include "kernels.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace ouro {
namespace {

cpu_kernels::table const& kernels() { return cpu_kernels::best(); }

/// Pointers for the kernel, and what it wants precomputed.
struct prepared {
  cpu_kernels::gate_rows rows{};
  std::vector<float> sums;

  explicit prepared(hormone_gate_operands const& in) {
    auto at = [](const_view const& v) { return v.empty() ? nullptr : v.as<float>(); };
    std::int64_t const width = in.gate.dims[1];
    std::int64_t const spread = in.gate.dims[0];
    sums.assign(static_cast<std::size_t>(2 * width), 0.0F);
    for (std::int64_t j = 0; j < spread; ++j)
      for (std::int64_t i = 0; i < width; ++i) {
        float const g = in.gate.as<float>()[j * width + i];
        sums[static_cast<std::size_t>(i)] += g;
        sums[static_cast<std::size_t>(width + i)] += g * g;
      }
    rows = {at(in.x),
            at(in.h),
            at(in.f),
            at(in.scale),
            at(in.bias),
            at(in.query_weight),
            at(in.query_bias),
            at(in.gate),
            sums.data(),
            sums.data() + width,
            at(in.proj_weight),
            at(in.proj_bias),
            at(in.residual),
            cpu_kernels::dropper(in.dropout, in.draw),
            static_cast<float>(in.epsilon),
            in.gelu,
            width,
            spread,
            in.x.dims[0] / in.h.dims[0]};
  }
};

}  // namespace

void cpu::hormone_gate(hormone_gate_results const& to, hormone_gate_operands const& in) {
  prepared const p(in);
  std::int64_t const rows = in.x.dims[0];
  std::int64_t const wide = p.rows.width * p.rows.spread;
  float* const sums = to.folded.empty() ? nullptr : to.folded.as<float>();
  cpu_threading::parallel(rows, 8192 / wide + 1, [&](std::int64_t from, std::int64_t end) {
    scratch room(p.rows.width);
    kernels().gate(p.rows, to.y.as<float>(), sums, to.statistics.as<float>(), room.data(), from, end - from);
  });
}

void cpu::hormone_gate_gradient(hormone_gate_gradients const& to, hormone_gate_operands const& in,
                                const_view statistics, const_view dy, const_view dfolded) {
  prepared const p(in);
  std::int64_t const d = p.rows.width;
  std::int64_t const n = d * p.rows.spread;
  std::int64_t const lanes = in.h.dims[0];
  std::int64_t const lane_rows = p.rows.lane_rows;
  std::int64_t const block = std::max<std::int64_t>(64, (lane_rows + 15) / 16);
  std::int64_t const blocks = (lane_rows + block - 1) / block;

  struct part {
    destination const& to;
    std::int64_t size;
  };
  part const parts[] = {{to.h, d},          {to.scale, d}, {to.bias, n},        {to.query_weight, d},
                        {to.query_bias, d}, {to.gate, n},  {to.proj_weight, n}, {to.proj_bias, n}};
  std::int64_t stride = 0;
  for (auto const& q : parts) stride += q.size;
  scratch sums(lanes * blocks * stride);
  cpu_threading::parallel(lanes * blocks, 8192 / (n * block) + 1, [&](std::int64_t first, std::int64_t last) {
    scratch room(5 * d + 4 * n);
    for (std::int64_t k = first; k < last; ++k) {
      std::int64_t const from = k / blocks * lane_rows + k % blocks * block;
      std::int64_t const rows = std::min(block, lane_rows - k % blocks * block);
      float* at = sums.data() + k * stride;
      std::fill(at, at + stride, 0.0F);
      float* places[8];
      for (int i = 0; i < 8; ++i) {
        places[i] = at;
        at += parts[i].size;
      }
      cpu_kernels::gate_slopes const slopes{to.x.wanted() ? to.x.out.as<float>() : nullptr,
                                            to.x.accumulate,
                                            to.f.wanted() ? to.f.out.as<float>() : nullptr,
                                            to.f.accumulate,
                                            places[0],
                                            places[1],
                                            places[2],
                                            places[3],
                                            places[4],
                                            places[5],
                                            places[6],
                                            places[7]};
      kernels().gate_gradient(p.rows, slopes, statistics.as<float>(), dy.as<float>(),
                              dfolded.empty() ? nullptr : dfolded.as<float>(), room.data(), from, rows);
    }
  });
  std::int64_t offset = 0;
  for (auto const& q : parts) {
    if (q.to.wanted()) {
      bool const by_lane = &q.to == &to.h;
      for (std::int64_t k = 0; k < lanes * blocks; ++k) {
        bool const fresh = by_lane ? k % blocks == 0 : k == 0;
        kernels().scale(q.to.out.as<float>() + (by_lane ? k / blocks * d : 0), sums.data() + k * stride + offset, 1.0F,
                        q.size, q.to.accumulate || !fresh);
      }
    }
    offset += q.size;
  }
}

}  // namespace ouro
