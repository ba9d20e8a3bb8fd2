// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The layer every stack of the reference model is made of: a sequence mixer, optional cross-attention, and a hormonal
// feed-forward block, each with a residual.
#pragma once

#include <optional>
#include <utility>

#include <ouro/nn/hormone_receptor.hpp>
#include <ouro/nn/mixers/attention.hpp>
#include <ouro/ops/gelu.hpp>

namespace ouro {

/// Everything a layer carries from row to row while a sequence is generated.
template <Backend B, class Mixer>
struct layer_carry {
  typename Mixer::carry mixer;
  attention_carry<B> context;  ///< keys and values of what cross-attention looks at; projected once
};

template <Backend B, class Mixer = attention<B>>
struct hormone_layer {
  using backend = B;
  using carry = layer_carry<B, Mixer>;
  layer_norm<B> norm1;
  Mixer attn;
  std::optional<layer_norm<B>> norm_cross;
  std::optional<attention<B>> cross_attn;
  hormone_receptor<B, layer_norm<B>> norm2;
  hormone_receptor<B, linear<B>> linear1;
  hormone_receptor<B, linear<B>> linear2;
  OURO_MODULE(hormone_layer, norm1, attn, norm_cross, cross_attn, norm2, linear1, linear2);

  hormone_layer() = default;
  hormone_layer(genesis<B>& g, std::int64_t width, std::int64_t heads, std::int64_t hormone, bool looks_across)
      : norm1(g, width), attn(g, width, heads) {
    if (looks_across) {
      norm_cross.emplace(g, width);
      cross_attn.emplace(g, width, heads);
    }
    norm2 = {g, layer_norm<B>(g, width), hormone, width, width};
    linear1 = {g, linear<B>(g, width, 4 * width), hormone, width, 4 * width};
    linear2 = {g, linear<B>(g, 4 * width, width), hormone, width, width};
  }

  /// x (N,T,D) → (N,T − skip,D); context (N,K,D) or absent; hormone (B,1,W) with N a multiple of B (the Actor runs the
  /// patches of a lane as N/B sequences of that lane).
  tensor<B> operator()(context<B>& cx, tensor<B> x, segments s, tensor<B> const& across, tensor<B> const& hormone) const {
    typename Mixer::carry c;
    auto const mixed = attn.forward(cx, norm1(cx, x), s, c);
    if (s.skip > 0) x = slice(x, 1, s.skip, x.dim(1) - s.skip);
    x = x + cx.drop(mixed);
    if (cross_attn)
      x = x + cx.drop(cross_attn->cross(cx, (*norm_cross)(cx, x), cross_attn->project(cx, across)));
    return x + feed_forward(cx, x, hormone);
  }

  /// One row, with what the layer carries.
  tensor<B> step(context<B>& cx, tensor<B> x, carry& c, tensor<B> const& hormone) const {
    x = x + cx.drop(attn.step(cx, norm1(cx, x), c.mixer));
    if (cross_attn) x = x + cx.drop(cross_attn->cross(cx, (*norm_cross)(cx, x), c.context));
    return x + feed_forward(cx, x, hormone);
  }

 private:
  tensor<B> feed_forward(context<B>& cx, tensor<B> const& x, tensor<B> const& hormone) const {
    auto const rows = reshape(x, {hormone.dim(0), x.size() / (hormone.dim(0) * x.dim(2)), x.dim(2)});
    auto const inner = cx.drop(gelu(linear1(cx, norm2(cx, rows, hormone), hormone)));
    return reshape(linear2(cx, inner, hormone), x.dims());
  }
};

}  // namespace ouro
