// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The reference model's Hypothalamus: a slow hormone made of what the rows say on average and of the time of day.
#pragma once

#include <ouro/nn/exchange.hpp>
#include <ouro/nn/layer_norm.hpp>
#include <ouro/nn/linear.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/silu.hpp>
#include <ouro/ops/tanh.hpp>
#include <ouro/ops/unit.hpp>

namespace ouro {

/// Linear, LN, SiLU, Linear, tanh, Linear, LN, tanh: members are named by their place in that sequence.
template <Backend B>
struct hormone_gland {
  using backend = B;
  linear<B> _0;
  layer_norm<B> _1;
  linear<B> _3;
  linear<B> _5;
  layer_norm<B> _6;
  OURO_MODULE(hormone_gland, _0, _1, _3, _5, _6);

  tensor<B> operator()(context<B>& cx, tensor<B> const& u) const {
    return tanh(_6(cx, _5(cx, tanh(_3(cx, silu(_1(cx, _0(cx, u))))))));
  }
};

/// δ = unit(network([LN(mean of the rows), oscillator])); hormone ← unit(LN(0.9·hormone + 0.1·δ)).
template <Backend B>
struct hypothalamus {
  using backend = B;
  layer_norm<B> context_norm;
  hormone_gland<B> network;
  layer_norm<B> buffer_norm;
  OURO_MODULE(hypothalamus, context_norm, network, buffer_norm);

  hypothalamus() = default;
  /// Of width D, with a hormone of D/4.
  hypothalamus(genesis<B>& g, std::int64_t width);

  /// rows (B,R,D), oscillator (B,2), hormone (B,1,D/4) → (B,1,D/4).
  tensor<B> operator()(context<B>& cx, tensor<B> const& rows, tensor<B> const& oscillator,
                       tensor<B> const& hormone) const;
};

template <Backend B>
hypothalamus<B>::hypothalamus(genesis<B>& g, std::int64_t width)
    : context_norm(g, width),
      network{linear<B>(g, width + 2, width + 2), layer_norm<B>(g, width + 2), linear<B>(g, width + 2, width / 4),
              linear<B>(g, width / 4, width / 4), layer_norm<B>(g, width / 4)},
      buffer_norm(g, width / 4) {}

template <Backend B>
tensor<B> hypothalamus<B>::operator()(context<B>& cx, tensor<B> const& rows, tensor<B> const& oscillator,
                                      tensor<B> const& hormone) const {
  auto const u = concat<B>({context_norm(cx, mean(rows, 1)), reshape(oscillator, {oscillator.dim(0), 1, 2})}, 2);
  return unit(buffer_norm(cx, 0.9 * hormone + 0.1 * unit(network(cx, u))));
}

}  // namespace ouro
