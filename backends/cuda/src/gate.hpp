// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate on the device (contract: ouro/concepts/hormone_gate.hpp): a warp for each row. A lane keeps to its
// columns i of width D in every pass, with all their repetitions j, so that a row needs no barrier.
#pragma once

#include "functions.hpp"
#include "rows.hpp"

namespace ouro::cuda_kernels {

template <class T>
struct gate_operands {
  T const *x, *h, *f, *scale, *bias, *query_weight, *query_bias, *gate, *proj_weight, *proj_bias, *residual;
  index rows, lane_rows, width, folds, spread;
  bool gelu;
  std::uint32_t threshold;
  T factor;
  random_draw draw;
  T epsilon;

  explicit gate_operands(hormone_gate_operands const& in)
      : x(dense_or_none<T>(in.x)),
        h(dense_or_none<T>(in.h)),
        f(dense_or_none<T>(in.f)),
        scale(dense_or_none<T>(in.scale)),
        bias(dense_or_none<T>(in.bias)),
        query_weight(dense_or_none<T>(in.query_weight)),
        query_bias(dense_or_none<T>(in.query_bias)),
        gate(dense_or_none<T>(in.gate)),
        proj_weight(dense_or_none<T>(in.proj_weight)),
        proj_bias(dense_or_none<T>(in.proj_bias)),
        residual(dense_or_none<T>(in.residual)),
        rows(in.x.dims[0]),
        lane_rows(in.x.dims[0] / in.h.dims[0]),
        width(in.gate.dims[1]),
        folds(in.x.dims[1] / in.gate.dims[1]),
        spread(in.gate.dims[0]),
        gelu(in.gelu),
        threshold(dropout_mask(in.dropout).threshold),
        factor(static_cast<T>(dropout_mask(in.dropout).factor)),
        draw(in.draw),
        epsilon(static_cast<T>(in.epsilon)) {}

  /// The columns of a result.
  [[nodiscard]] __device__ __host__ index wide() const { return width * spread; }
  /// Σ_j x_j + h in column i of row r.
  [[nodiscard]] __device__ T folded(index r, index i) const {
    T sum = h[r / lane_rows * width + i];
    for (index j = 0; j < folds; ++j) sum += x[(r * folds + j) * width + i];
    return sum;
  }
  /// What the dropout multiplies element i of the result by.
  [[nodiscard]] __device__ T keep(index i) const {
    if (threshold == 0) return T(1);
    return draw.half(static_cast<std::uint64_t>(i)) >= threshold ? factor : T(0);
  }
};

/// f(column, factor of the dropout) for every column of this lane, in order; element number `first` is column 0. Eight
/// elements share a Philox block: the lanes compute those of 256 columns, one each, and hand each other the words.
template <class T, class F>
__device__ void for_columns(gate_operands<T> const& g, index first, int lane, F const& f) {
  if (g.threshold == 0 || g.width % 8 != 0) {
    for (index i = lane; i < g.width; i += warp_size) f(i, g.keep(first + i));
    return;
  }
  constexpr index run = 8 * warp_size;
  for (index from = 0; from < g.width; from += run) {
    index const mine = from + lane % 8 * warp_size + lane / 8 * 8;
    auto const words = philox::words(g.draw.key, g.draw.site, static_cast<std::uint64_t>(first + mine) / 8);
    for (int step = 0; step < 8 && from + step * warp_size < g.width; ++step) {
      philox::block block{};
      OURO_UNROLL
      for (std::size_t w = 0; w < 4; ++w) block[w] = __shfl_sync(everybody, words[w], lane / 8 * 8 + step);
      index const i = from + step * warp_size + lane;
      bool const kept = philox::half(block, static_cast<std::uint64_t>(lane % 8)) >= g.threshold;
      if (i < g.width) f(i, kept ? g.factor : T(0));
    }
  }
}

/// Columns of the statistics.
enum : int { query_mean, query_rstd, proj_mean, proj_rstd, norm_mean, norm_rstd };

}  // namespace ouro::cuda_kernels
