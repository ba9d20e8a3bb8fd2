// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// How the hormone reaches a layer: a gate on the output of the function it wraps.
#pragma once

#include <ouro/nn/layer_norm.hpp>
#include <ouro/nn/linear.hpp>
#include <ouro/ops/hormone_gate.hpp>
#include <ouro/ops/hormone_networks.hpp>

namespace ouro {

/// Hormone (B,1,W) → (B,1,D): linear, SiLU, linear, layer norm. Members are named by their place in that sequence.
template <Backend B>
struct hormone_network {
  using backend = B;
  linear<B> _0;
  linear<B> _2;
  layer_norm<B> _3;
  OURO_MODULE(hormone_network, _0, _2, _3);

  hormone_network() = default;
  hormone_network(genesis<B>& g, std::int64_t hormone, std::int64_t width)
      : _0(g, hormone, hormone), _2(g, hormone, width), _3(g, width) {}

  /// For hormone_networks(), which asks all that hear one hormone at once.
  [[nodiscard]] hormone_network_inputs<B> parameters() const {
    return {_0.weight.value(), _0.bias.value(), _2.weight.value(), _2.bias.value(), _3.weight.value(), _3.bias.value()};
  }
};

/// What surrounds a receptor in its layer: the sum of the parts of its input, if it is known already; GELU, dropout while training,
/// a residual.
template <class B>
struct gate_options {
  bool gelu = false;
  bool drops = false;
  tensor<B> residual = {};
  tensor<B> folded = {};
  std::optional<dtype> result = {};  ///< the type of y, if it is not that of the residual, f or x
};

/// y = f(x) ⊙ tanh(LN(q ⊙ gate_j, j < e)) with q = LN(Σ_{j<c} x[.., jD:(j+1)D] + network(hormone)), for a wrapped f of
/// input width cD and output width eD: x (B,T,cD), signal = network(hormone) (B,1,D) → (B,T,eD).
template <Backend B, class Backbone>
struct hormone_receptor {
  using backend = B;
  Backbone backbone;
  ouro::hormone_network<B> hormone_network;
  layer_norm<B> query_norm;
  parameter<B> proj_gate;  // (e, D)
  layer_norm<B> proj_norm;
  OURO_MODULE(hormone_receptor, backbone, hormone_network, query_norm, proj_gate, proj_norm);

  hormone_receptor() = default;
  hormone_receptor(genesis<B>& g, Backbone f, std::int64_t hormone, std::int64_t width, std::int64_t out);

  /// signal: what the hormone says here, the same for every row, so that it is asked once for a step.
  tensor<B> operator()(context<B>& cx, tensor<B> const& x, tensor<B> const& signal,
                       gate_options<B> const& o = {}) const {
    return hormone_gate(inputs(cx, x, signal, o));
  }
  /// And the sum of y's parts, which a receptor that reads y asks.
  hormone_gate_result<B> and_fold(context<B>& cx, tensor<B> const& x, tensor<B> const& signal,
                                  gate_options<B> const& o = {}) const {
    return hormone_gate_and_fold(inputs(cx, x, signal, o));
  }

 private:
  hormone_gate_inputs<B> inputs(context<B>& cx, tensor<B> const& x, tensor<B> const& signal,
                                gate_options<B> const& o) const;
};

template <Backend B, class Backbone>
hormone_receptor<B, Backbone>::hormone_receptor(genesis<B>& g, Backbone f, std::int64_t hormone, std::int64_t width,
                                                std::int64_t out)
    : backbone(std::move(f)),
      hormone_network(g, hormone, width),
      query_norm(g, width),
      proj_gate(g.normal({out / width, width}, 1.0)),
      proj_norm(g, out) {}

template <Backend B, class Backbone>
hormone_gate_inputs<B> hormone_receptor<B, Backbone>::inputs(context<B>& cx, tensor<B> const& x,
                                                             tensor<B> const& signal, gate_options<B> const& o) const {
  hormone_gate_inputs<B> in{o.folded.empty() ? folded(x, proj_gate.dim(1)) : o.folded,
                            signal,
                            {},
                            {},
                            {},
                            query_norm.weight,
                            query_norm.bias,
                            proj_gate,
                            proj_norm.weight,
                            proj_norm.bias,
                            o.residual,
                            o.gelu,
                            o.drops ? cx.rate() : 0.0,
                            {},
                            o.result};
  if (in.dropout > 0) in.draw = cx.masks.next();
  if constexpr (std::is_same_v<Backbone, layer_norm<B>>) {
    in.scale = backbone.weight;
    in.bias = backbone.bias;
  } else if constexpr (std::is_same_v<Backbone, linear<B>>) {
    in.f = linear_map(x, cx.stored(backbone.weight, x.type()), tensor<B>{});
    in.bias = backbone.bias;
  } else {
    in.f = backbone(cx, x);
  }
  return in;
}

}  // namespace ouro
