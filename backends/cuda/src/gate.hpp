// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate on the device (contract: ouro/concepts/hormone_gate.hpp): a block for each row. A thread keeps to its
// columns i of width D in every pass, with all their repetitions j.
#pragma once

#include "functions.hpp"
#include "row_blocks.hpp"

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
  [[nodiscard]] __device__ index lane_of(index r) const {
    if (lane_rows == rows) return 0;
    return static_cast<std::uint32_t>(r) / static_cast<std::uint32_t>(lane_rows);  // 64 bits take four times as long
  }
  /// Σ_j x_j + h in chunk k of row r.
  template <class Own>
  [[nodiscard]] __device__ quad<T> folded(index r, index lane, Own const& own, int k) const {
    quad<T> sum = own.load(h, lane * width, k);
    for (index j = 0; j < folds; ++j) {
      quad<T> const part = own.load(x, (r * folds + j) * width, k);
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) sum[v] += part[v];
    }
    return sum;
  }
  /// What the dropout multiplies four elements of the result by. Eight elements share a Philox block; with Whole, `first` is
  /// a multiple of four.
  template <bool Whole>
  [[nodiscard]] __device__ quad<T> kept(index first) const {
    quad<T> keep{{T(1), T(1), T(1), T(1)}};
    if (threshold == 0) return keep;
    auto const at = static_cast<std::uint64_t>(first);
    if constexpr (Whole) {
      auto const words = philox::words(draw.key, draw.site, at / 8);
      std::uint32_t const pair[2] = {at % 8 == 0 ? words[0] : words[2], at % 8 == 0 ? words[1] : words[3]};
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v)
        keep[v] = ((pair[v / 2] >> (16 * (v % 2))) & 0xFFFFU) >= threshold ? factor : T(0);
    } else {
      for (int v = 0; v < own_width; ++v)
        keep[v] = draw.half(at + static_cast<std::uint64_t>(v)) >= threshold ? factor : T(0);
    }
    return keep;
  }
};

/// f.operator()<T, Chunks, E, Whole>() for the kernel that a call needs: registers hold rows of up to 1024 columns, f32, and
/// four repetitions; what is larger or lies unaligned is read and added up in memory.
/// Errors: a dtype that is not real, and rows too wide for both.
template <class F>
void with_gate_form(char const* name, hormone_gate_operands const& in, bool whole, F const& f) {
  index const width = in.gate.dims[1];
  index const spread = in.gate.dims[0];
  require(width <= most_chunks * own_width * most_row_threads, errc::shape, name, "rows of ", width,
          " columns are too wide");
  with_real(in.x.type, name, [&]<class T>(std::type_identity<T>) {
    if constexpr (std::is_same_v<T, float>)
      if (whole && width <= own_width * most_row_threads) {
        if (spread == 1) return f.template operator()<T, 1, 1, true>();
        if (spread == 2) return f.template operator()<T, 1, 2, true>();
        if (spread == 3) return f.template operator()<T, 1, 3, true>();
        if (spread == 4) return f.template operator()<T, 1, 4, true>();
      }
    f.template operator()<T, most_chunks, 0, false>();
  });
}

/// Whether rows of all operands that are there can be read four numbers at a time.
inline bool reads_whole(hormone_gate_operands const& in) {
  if (in.gate.dims[1] % own_width != 0) return false;
  for (auto const* v : {&in.x, &in.h, &in.f, &in.scale, &in.bias, &in.query_weight, &in.query_bias, &in.gate,
                        &in.proj_weight, &in.proj_bias, &in.residual})
    if (!v->empty() && !aligned(v->data)) return false;
  return true;
}

/// Columns of the statistics.
enum : int { query_mean, query_rstd, proj_mean, proj_rstd, norm_mean, norm_rstd };

}  // namespace ouro::cuda_kernels
