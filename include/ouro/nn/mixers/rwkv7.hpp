// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The time mixing of RWKV-7 as a SequenceMixer (Peng et al., "RWKV-7 Goose with expressive dynamic state evolution",
// 2025): a matrix state per head that is read, partly erased and written by every row. Plain causal over all rows, unless
// the row_policy of its place says otherwise.
#pragma once

#include <utility>

#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/nn/layer_norm.hpp>
#include <ouro/nn/mixers/row_runs.hpp>
#include <ouro/nn/orthogonal.hpp>
#include <ouro/nn/projection.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/mix_rows.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/rwkv7_scan.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/tanh.hpp>
#include <ouro/ops/unit.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// Widths of the low-rank maps of an RWKV-7 layer: decay, in-context learning rate, value residual, gate.
struct rwkv7_ranks {
  std::int64_t w = 32;
  std::int64_t a = 32;
  std::int64_t v = 32;
  std::int64_t g = 32;

  /// f(m) = max(32, 32 · round(m √D / 32)) with m = 2.5, 2.5, 1.7 and 5.
  static rwkv7_ranks of(std::int64_t width) {
    auto rank = [root = elementary::sqrt(static_cast<double>(width))](double m) {
      return elementary::max<std::int64_t>(32, 32 * static_cast<std::int64_t>(elementary::nearbyint(m * root / 32.0)));
    };
    return {rank(2.5), rank(2.5), rank(1.7), rank(5.0)};
  }
};

/// The row before the next one, and the state of every head.
template <Backend B>
struct rwkv7_carry {
  tensor<B> shift;  // (B,1,D)
  tensor<B> state;  // (B,H,N,N), value by key
};

/// What the RWKV-7 layers of one pass share: the values of the first of them, which the others mix into their own.
template <Backend B>
struct rwkv7_stream {
  tensor<B> v_first;              // (B,T,D)
  tensor<B> v_first_from_behind;  // (B,M+R,D), of the second pass over a two-way prefix
};

template <Backend B>
struct rwkv7 {
  using backend = B;
  static constexpr std::string_view name = "rwkv7";
  using carry = rwkv7_carry<B>;
  using stream = rwkv7_stream<B>;
  // How much of the row before goes into each of the six inputs: (1,1,D).
  parameter<B> x_r, x_w, x_k, x_v, x_a, x_g;
  parameter<B> w0, w1, w2;  // decay: (1,1,D), (D,rank), (rank,D)
  parameter<B> a0, a1, a2;  // in-context learning rate
  parameter<B> v0, v1, v2;  // value residual; unused in the first layer of a pass
  parameter<B> g1, g2;      // gate
  parameter<B> k_k, k_a;    // (1,1,D)
  parameter<B> r_k;         // (H,N)
  projection<B> receptance;
  projection<B> key;
  projection<B> value;
  projection<B> output;
  layer_norm<B> ln_x;  // by heads
  row_policy policy;
  OURO_MODULE(rwkv7, x_r, x_w, x_k, x_v, x_a, x_g, w0, w1, w2, a0, a1, a2, v0, v1, v2, g1, g2, k_k, k_a, r_k,
              receptance, key, value, output, ln_x, policy);

  rwkv7() = default;
  rwkv7(genesis<B>& g, mixer_place const& place) : rwkv7(g, place, rwkv7_ranks::of(place.width)) {}
  /// Starts as RWKV-7 does: memory horizons from a row to thousands, slower in channels of higher number and in later
  /// layers; the output projection is zero, so that a new layer changes nothing. Weight decay is for the square
  /// matrices only, and w0 learns twice as fast. Errors (config): heads that do not divide the width.
  rwkv7(genesis<B>& g, mixer_place const& place, rwkv7_ranks const& rank);

  [[nodiscard]] static bool takes_narrow() { return true; }

  /// The SequenceMixer form: x (B,T,D) → (B,T − skip,D), with T ≥ 1, and a row before Write rows that are parallel.
  tensor<B> forward(context<B>& cx, tensor<B> const& x, segments s, carry& c, stream& pass) const {
    auto const y = one_way(cx, x, s, c, pass.v_first);
    if (!policy.two_way_prefix) return y;
    return with_prefix_from_behind(y, x, s, [&](tensor<B> const& turned, segments t) {
      carry own;
      return one_way(cx, turned, t, own, pass.v_first_from_behind);
    });
  }
  tensor<B> forward(context<B>& cx, tensor<B> const& x, segments s, carry& c) const {
    stream alone;
    return forward(cx, x, s, c, alone);
  }
  tensor<B> step(context<B>& cx, tensor<B> const& x, carry& c, stream& pass) const {
    return forward(cx, x, {0, 0, x.dim(1), 0, 0}, c, pass);
  }
  tensor<B> step(context<B>& cx, tensor<B> const& x, carry& c) const {
    stream alone;
    return step(cx, x, c, alone);
  }

 private:
  tensor<B> one_way(context<B>& cx, tensor<B> const& x, segments s, carry& c, tensor<B>& v_first) const;
};

}  // namespace ouro

#include <ouro/nn/mixers/rwkv7_inl.hpp>
