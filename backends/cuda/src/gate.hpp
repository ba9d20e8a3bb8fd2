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
  /// Whether the dropout keeps an element of the result.
  [[nodiscard]] __device__ bool keeps(index i) const {
    return threshold == 0 || draw.half(static_cast<std::uint64_t>(i)) >= threshold;
  }
};

/// Which elements of a row the dropout keeps. Eight elements share a Philox block, and so do the quads of two lanes: of two
/// quads each lane computes the block of one and hands its neighbour the other half.
template <class T, int E, class Own>
class kept_columns {
 public:
  __device__ kept_columns(gate_operands<T> const& g, Own const& own, index row) {
    if (g.threshold == 0) return;
    bits_ = 0;
    bool const upper = threadIdx.x % 2 == 1;
    auto block_of = [&](int m) {
      index const first = row + m / Own::count * g.width + own.first(m % Own::count);
      return static_cast<std::uint64_t>(first) / 8;
    };
    auto take = [&](int m, std::uint32_t a, std::uint32_t b) {
      std::uint32_t const halves[own_width] = {a & 0xFFFFU, a >> 16U, b & 0xFFFFU, b >> 16U};
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v)
        if (halves[v] >= g.threshold) bits_ |= 1U << (own_width * m + v);
    };
    constexpr int quads = E * Own::count;
    bool const paired = g.width % 8 == 0;
    OURO_UNROLL
    for (int m = 0; m < quads; m += 2) {
      bool const two = paired && m + 1 < quads;
      auto const words = philox::words(g.draw.key, g.draw.site, block_of(two && upper ? m + 1 : m));
      if (two) {
        std::uint32_t const a = __shfl_xor_sync(everybody, upper ? words[0] : words[2], 1);
        std::uint32_t const b = __shfl_xor_sync(everybody, upper ? words[1] : words[3], 1);
        take(m, upper ? a : words[0], upper ? b : words[1]);
        take(m + 1, upper ? words[2] : a, upper ? words[3] : b);
      } else {
        auto alone = [&](int i, philox::block const& w) {
          bool const high = (row + i / Own::count * g.width + own.first(i % Own::count)) % 8 != 0;
          take(i, high ? w[2] : w[0], high ? w[3] : w[1]);
        };
        alone(m, words);
        if (m + 1 < quads) alone(m + 1, philox::words(g.draw.key, g.draw.site, block_of(m + 1)));
      }
    }
  }
  __device__ bool operator()(int j, int k, int v) const {
    return (bits_ >> (own_width * (j * Own::count + k) + v) & 1U) != 0;
  }

 private:
  std::uint32_t bits_ = everybody;
};
template <class T, class Own>
class kept_columns<T, 0, Own> {
 public:
  __device__ kept_columns(gate_operands<T> const& g, Own const& own, index row) : g_(g), own_(own), row_(row) {}
  __device__ bool operator()(int j, int k, int v) const { return g_.keeps(row_ + j * g_.width + own_.first(k) + v); }

 private:
  gate_operands<T> const& g_;
  Own const& own_;
  index row_;
};

/// f.operator()<T, Chunks, E, Whole>() for the kernel that a call needs: registers hold rows of up to 1536 columns, f32, and
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
        if (spread == 1 && width <= own_width * warp_size) return f.template operator()<T, 1, 1, true>();
        if (spread == 1) return f.template operator()<T, 2, 1, true>();
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
