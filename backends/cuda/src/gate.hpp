// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate on the device (contract: ouro/concepts/hormone_gate.hpp): a block for each row. A thread keeps to its
// columns i of width D in every pass, with all their repetitions j.
#pragma once

#include "functions.hpp"
#include "row_blocks.hpp"

namespace ouro::cuda_kernels {

/// Functions of the gate; the rough ones, for what is stored in bf16 anyway, are good to 0.05 %.
template <bool Rough, class T>
struct gate_functions {
  static __device__ T tanh(T x) { return std::tanh(x); }
  static __device__ T gelu(T x) { return cuda_kernels::gelu(x); }
  static __device__ T gelu_slope(T x) { return cuda_kernels::gelu_slope(x); }
};
template <>
struct gate_functions<true, float> {
  static __device__ float tanh(float x) {
#if defined(__CUDACC__)
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return std::tanh(x);
#endif
  }
  static __device__ float gelu(float x) { return (x > 0 ? x : 0) - std::abs(x) * tail(x, bell(x)); }
  static __device__ float gelu_slope(float x) {
    float const height = bell(x);
    float const beyond = tail(x, height);
    return (x > 0 ? 1 - beyond : beyond) + x * 0.39894228F * height;
  }

 private:
  /// exp(-x²/2)
  static __device__ float bell(float x) { return power_of_two(x * x * -0.72134752F); }
  /// How much of the normal distribution lies beyond |x|: erfc(|x|/√2)/2, by 7.1.26 of Abramowitz and Stegun's Handbook of
  /// Mathematical Functions, erfc z = (a₁t + ... + a₅t⁵) exp(-z²) ± 1.5e-7 with t = 1/(1 + 0.3275911 z).
  static __device__ float tail(float x, float height) {
    float const t = inverse(1 + std::abs(x) * (0.3275911F * 0.70710678F));
    float const sum =
        0.5F * 0.254829592F +
        t * (0.5F * -0.284496736F + t * (0.5F * 1.421413741F + t * (0.5F * -1.453152027F + t * (0.5F * 1.061405429F))));
    return t * sum * height;
  }
  static __device__ float inverse(float x) {
#if defined(__CUDACC__)
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return 1 / x;
#endif
  }
};

template <class T>
struct gate_operands {
  reals<T> x, f, residual;
  T const *h, *scale, *bias, *query_weight, *query_bias, *gate, *proj_weight, *proj_bias;
  index rows, lane_rows;
  int width, folds, spread;
  bool gelu;
  std::uint32_t threshold;
  T factor;
  random_draw draw;
  T epsilon;

  explicit gate_operands(hormone_gate_operands const& in)
      : x(in.x),
        f(in.f),
        residual(in.residual),
        h(dense_or_none<T>(in.h)),
        scale(dense_or_none<T>(in.scale)),
        bias(dense_or_none<T>(in.bias)),
        query_weight(dense_or_none<T>(in.query_weight)),
        query_bias(dense_or_none<T>(in.query_bias)),
        gate(dense_or_none<T>(in.gate)),
        proj_weight(dense_or_none<T>(in.proj_weight)),
        proj_bias(dense_or_none<T>(in.proj_bias)),
        rows(in.x.dims[0]),
        lane_rows(in.x.dims[0] / in.h.dims[0]),
        width(static_cast<int>(in.gate.dims[1])),
        folds(static_cast<int>(in.x.dims[1] / in.gate.dims[1])),
        spread(static_cast<int>(in.gate.dims[0])),
        gelu(in.gelu),
        threshold(dropout_mask(in.dropout).threshold),
        factor(static_cast<T>(dropout_mask(in.dropout).factor)),
        draw(in.draw),
        epsilon(static_cast<T>(in.epsilon)) {}

  /// The columns of a result.
  [[nodiscard]] __device__ __host__ int wide() const { return width * spread; }
  /// Where the parts of x in row r begin, which a sum is taken of.
  [[nodiscard]] __device__ index parts(index r) const { return r * (folds * width); }
  /// Σ_j x_j + h in chunk k of row r, from its first part.
  template <class Own>
  [[nodiscard]] __device__ quad<T> folded(quad<T> sum, index r, index lane, Own const& own, int k) const {
    auto add = [&sum](quad<T> const& part) {
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) sum[v] += part[v];
    };
    add(own.load(h + lane * width, 0, k));
    constexpr int in_flight = 3;
    for (int j = 1; j < folds; j += in_flight) {
      quad<T> part[in_flight];
      OURO_UNROLL
      for (int i = 0; i < in_flight; ++i)
        if (j + i < folds) part[i] = own.fetch(x, parts(r) + (j + i) * width, k);
      OURO_UNROLL
      for (int i = 0; i < in_flight; ++i) {
        if (j + i >= folds) break;
        own.widen(x, part[i]);
        add(part[i]);
      }
    }
    return sum;
  }
  /// What is as wide as the result, from element `row` on: the projection's weight and bias, and the bias of f.
  struct wide_parameters {
    quad<T> weight, shift, bias;
  };
  template <class Own>
  [[nodiscard]] __device__ wide_parameters parameters(Own const& own, int row, int k) const {
    return {own.load(proj_weight, row, k), own.load(proj_bias, row, k), own.load(bias, row, k)};
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
      index const first = row + (m / Own::count * g.width + own.first(m % Own::count));
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

/// The lane of a row from which `step` rows are gone ahead at a time, without a division for each.
class lane_of_row {
 public:
  __device__ lane_of_row(index row, index step, index lane_rows)
      : lane_rows_(static_cast<std::uint32_t>(lane_rows)),
        lane_(static_cast<std::uint32_t>(row) / lane_rows_),
        row_(static_cast<std::uint32_t>(row) % lane_rows_),
        lanes_(static_cast<std::uint32_t>(step) / lane_rows_),
        rows_(static_cast<std::uint32_t>(step) % lane_rows_) {}
  [[nodiscard]] __device__ index lane() const { return lane_; }
  __device__ void go_ahead() {
    lane_ += lanes_;
    row_ += rows_;
    if (row_ < lane_rows_) return;
    row_ -= lane_rows_;
    ++lane_;
  }

 private:
  std::uint32_t lane_rows_;
  std::uint32_t lane_;
  std::uint32_t row_;  // of the lane
  std::uint32_t lanes_;
  std::uint32_t rows_;
};

/// f.operator()<T, Chunks, E, Whole, Rough>() for rows that registers hold. The more chunks a thread has, the less it costs
/// what is said of the whole row; but no thread should be without its last.
template <int MostChunks, bool Rough, class F>
void with_held_form(index width, index spread, F const& f) {
  constexpr index chunk = own_width * warp_size;
  if constexpr (MostChunks >= 3)
    if (spread == 1 && width % (3 * chunk) == 0) return f.template operator()<float, 3, 1, true, Rough>();
  if (spread == 1 && width % (2 * chunk) == 0) f.template operator()<float, 2, 1, true, Rough>();
  else if (spread == 1) f.template operator()<float, 1, 1, true, Rough>();
  else if (spread == 2) f.template operator()<float, 1, 2, true, Rough>();
  else if (spread == 3) f.template operator()<float, 1, 3, true, Rough>();
  else f.template operator()<float, 1, 4, true, Rough>();
}
/// f.operator()<T, Chunks, E, Whole, Rough>() for the kernel that a call needs: registers hold rows of up to 1536 columns,
/// f32, and four repetitions; what is larger or lies unaligned is read and added up in memory. Rough ones are for values
/// behind the gate in bf16.
/// Errors: a dtype that is not real, and rows too wide for both.
template <int MostChunks, class F>
void with_gate_form(char const* name, hormone_gate_operands const& in, bool whole, dtype behind, F const& f) {
  index const width = in.gate.dims[1];
  index const spread = in.gate.dims[0];
  require(width <= most_chunks * own_width * most_row_threads, errc::shape, name, "rows of ", width,
          " columns are too wide");
  with_real(in.gate.type, name, [&]<class T>(std::type_identity<T>) {
    if constexpr (std::is_same_v<T, float>)
      if (whole && width <= own_width * most_row_threads && spread <= 4) {
        bool const rough = (in.f.empty() ? behind : in.f.type) == dtype::bf16;
        return rough ? with_held_form<MostChunks, true>(width, spread, f)
                     : with_held_form<MostChunks, false>(width, spread, f);
      }
    f.template operator()<T, most_chunks, 0, false, false>();
  });
}

/// Whether rows of all operands that are there can be read four numbers at a time.
inline bool reads_whole(hormone_gate_operands const& in) {
  if (in.gate.dims[1] % own_width != 0) return false;
  for (auto const* v : {&in.x, &in.h, &in.f, &in.scale, &in.bias, &in.query_weight, &in.query_bias, &in.gate,
                        &in.proj_weight, &in.proj_bias, &in.residual})
    if (!aligned(*v)) return false;
  return true;
}

/// Columns of the statistics.
enum : int { query_mean, query_rstd, proj_mean, proj_rstd, norm_mean, norm_rstd };

}  // namespace ouro::cuda_kernels
