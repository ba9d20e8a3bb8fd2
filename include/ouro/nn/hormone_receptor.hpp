// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// How the hormone reaches a layer: a gate on the output of the function it wraps.
#pragma once

#include <ouro/nn/layer_norm.hpp>
#include <ouro/nn/linear.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/silu.hpp>
#include <ouro/ops/tanh.hpp>

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

  tensor<B> operator()(context<B>& cx, tensor<B> const& hormone) const { return _3(cx, _2(cx, silu(_0(cx, hormone)))); }
};

/// y = f(x) ⊙ tanh(LN(q ⊙ gate_j, j < e)) with q = LN(Σ_{j<c} x[.., jD:(j+1)D] + network(hormone)), for a wrapped f of
/// input width cD and output width eD: x (B,T,cD), hormone (B,1,W) → (B,T,eD).
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
  hormone_receptor(genesis<B>& g, Backbone f, std::int64_t hormone, std::int64_t width, std::int64_t out)
      : backbone(std::move(f)),
        hormone_network(g, hormone, width),
        query_norm(g, width),
        proj_gate(g.normal({out / width, width}, 1.0)),
        proj_norm(g, out) {}

  tensor<B> operator()(context<B>& cx, tensor<B> const& x, tensor<B> const& hormone) const {
    std::int64_t const width = proj_gate.dim(1);
    std::int64_t const lanes = x.dim(0);
    std::int64_t const rows = x.dim(1);
    auto const folded = x.dim(2) == width  // (B,T,D)
                            ? x
                            : reshape(sum(reshape(x, {lanes, rows, x.dim(2) / width, width}), 2), {lanes, rows, width});
    auto const query = query_norm(cx, folded + hormone_network(cx, hormone));
    auto const spread = reshape(query, {lanes, rows, 1, width}) * proj_gate.value();                // (B,T,e,D)
    auto const gate = tanh(proj_norm(cx, reshape(spread, {lanes, rows, proj_gate.size()})));        // (B,T,eD)
    return backbone(cx, x) * gate;
  }
};

}  // namespace ouro
