// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The layer every stack of the reference model is made of: a sequence mixer, optional cross-attention, and a hormonal
// feed-forward block, each with a residual.
#pragma once

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/nn/hormone_receptor.hpp>
#include <ouro/nn/mixers/attention.hpp>
#include <ouro/nn/mixers/layer_kinds.hpp>

namespace ouro {

/// Everything a layer carries from row to row while a sequence is generated.
template <Backend B, class Mixer>
struct layer_carry {
  typename Mixer::carry mixer;
  absorbed_rows<B> context;  ///< what cross-attention looks at; projected once
};

/// What a step's hormone says to the three receptors of a layer: (B,1,D) each.
template <class B>
struct layer_signals {
  tensor<B> norm2;
  tensor<B> linear1;
  tensor<B> linear2;
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
  hormone_layer(genesis<B>& g, mixer_place const& place, std::int64_t hormone, bool looks_across);

  /// About what a pass over x (N,T,D) keeps for its gradient: for each row two of width D, and sixteen of inner values.
  [[nodiscard]] std::int64_t kept_bytes(context<B> const& cx, tensor<B> const& x) const {
    return x.size() * (2 * size_of(x.type()) + 16 * size_of(cx.inner(x.type())));
  }

  /// x (N,T,D) → (N,T − skip,D); across: what each sequence looks at, (N,K,D), or groups (B,N/B+1,K,D) as windows() has
  /// them, or absent; signals for B lanes, N a multiple of B (the Actor runs the
  /// patches of a lane as N/B sequences of that lane); pass: what the mixers of one pass through a stack share.
  tensor<B> operator()(context<B>& cx, tensor<B> x, segments s, tensor<B> const& across, layer_signals<B> const& now,
                       mixer_stream<Mixer>& pass) const;
  /// What comes after the mixer, given what it said of x.
  tensor<B> after(context<B>& cx, tensor<B> x, tensor<B> const& mixed, tensor<B> const& across,
                  layer_signals<B> const& now) const;

  /// One row, with what the layer carries.
  tensor<B> step(context<B>& cx, tensor<B> x, carry& c, layer_signals<B> const& now, mixer_stream<Mixer>& pass) const;

 private:
  /// x + the gated feed-forward block of x.
  tensor<B> feed_forward(context<B>& cx, tensor<B> const& x, layer_signals<B> const& now) const {
    std::int64_t const lanes = now.norm2.dim(0);
    auto const rows = reshape(x, {lanes, x.size() / (lanes * x.dim(2)), x.dim(2)});
    auto const normal = norm2(cx, rows, now.norm2, {.result = cx.inner(x.type())});
    auto const inner = linear1.and_fold(cx, normal, now.linear1, {.gelu = true, .drops = true});
    return reshape(linear2(cx, inner.y, now.linear2, {.residual = rows, .folded = inner.folded}), x.dims());
  }
};

template <Backend B, class Mixer>
hormone_layer<B, Mixer>::hormone_layer(genesis<B>& g, mixer_place const& place, std::int64_t hormone, bool looks_across)
    : norm1(g, place.width),
      attn(g, place),
      norm_cross(looks_across ? std::optional(layer_norm<B>(g, place.width)) : std::nullopt),
      cross_attn(looks_across ? std::optional(attention<B>(g, place.width, place.heads)) : std::nullopt),
      norm2(g, layer_norm<B>(g, place.width), hormone, place.width, place.width),
      linear1(g, linear<B>(g, place.width, 4 * place.width), hormone, place.width, 4 * place.width),
      linear2(g, linear<B>(g, 4 * place.width, place.width), hormone, place.width, place.width) {}

template <Backend B, class Mixer>
tensor<B> hormone_layer<B, Mixer>::operator()(context<B>& cx, tensor<B> x, segments s, tensor<B> const& across,
                                              layer_signals<B> const& now, mixer_stream<Mixer>& pass) const {
  typename Mixer::carry c;
  auto const inner = cx.inner(x.type());
  auto const mixed = mix(attn, cx, norm1(cx, x, takes_narrow(attn) ? inner : x.type()), s, c, pass);
  if (s.skip > 0) x = slice(x, 1, s.skip, x.dim(1) - s.skip);
  require(mixed.dims() == x.dims(), errc::shape, "hormone_layer", "the mixer must answer rows from ", s.skip,
          " on (segments::skip), ", x.dims(), ", and gave ", mixed.dims());
  return after(cx, x, mixed, across, now);
}

template <Backend B, class Mixer>
tensor<B> hormone_layer<B, Mixer>::after(context<B>& cx, tensor<B> x, tensor<B> const& mixed, tensor<B> const& across,
                                         layer_signals<B> const& now) const {
  auto const inner = cx.inner(x.type());
  x = cx.add_dropped(x, mixed);
  if (cross_attn) {
    auto const seen = cross_attn->project(cx, copied(across, inner));
    auto const normal = (*norm_cross)(cx, x, inner);
    // In bf16 attention is one pass, and rows that have absorbed the projections would be as many as those that look.
    x = cx.add_dropped(x, inner == dtype::bf16 ? cross_attn->cross(cx, normal, seen)
                                               : cross_attn->cross(cx, normal, cross_attn->absorb(cx, seen)));
  }
  return feed_forward(cx, x, now);
}

template <Backend B, class Mixer>
tensor<B> hormone_layer<B, Mixer>::step(context<B>& cx, tensor<B> x, carry& c, layer_signals<B> const& now,
                                        mixer_stream<Mixer>& pass) const {
  x = cx.add_dropped(x, mix_step(attn, cx, norm1(cx, x), c.mixer, pass));
  if (cross_attn) x = cx.add_dropped(x, cross_attn->cross(cx, (*norm_cross)(cx, x), c.context));
  return feed_forward(cx, x, now);
}

/// What a step's hormone says to all receptors of a stack.
template <class B>
struct stack_signals {
  std::vector<layer_signals<B>> layers;
  std::vector<tensor<B>> outputs;  ///< to the receptors behind the layers: (B,1,D) each
};

/// Asks the networks of all layers, and those of the receptors behind them, at once: hormone (B,1,W).
template <Backend B, class Mixer>
stack_signals<B> hear(std::vector<hormone_layer<B, Mixer>> const& layers,
                      std::vector<hormone_network<B> const*> const& outputs, tensor<B> const& hormone) {
  std::vector<hormone_network_inputs<B>> networks;
  for (auto const& l : layers)
    for (auto const* n : {&l.norm2.hormone_network, &l.linear1.hormone_network, &l.linear2.hormone_network})
      networks.push_back(n->parameters());
  for (auto const* n : outputs) networks.push_back(n->parameters());
  auto const says = hormone_networks(networks, hormone);
  stack_signals<B> heard;
  auto next = says.begin();
  for (std::size_t i = 0; i < layers.size(); ++i, next += 3) heard.layers.push_back({next[0], next[1], next[2]});
  heard.outputs.assign(next, says.end());
  return heard;
}

/// The layers of a stack. `kinds` names their mixers ("rwkv7*3 attention") where they can differ. Errors (config): another
/// number of them.
template <Backend B, class Mixer>
std::vector<hormone_layer<B, Mixer>> layer_stack(genesis<B>& g, std::int64_t width, std::int64_t heads,
                                                 std::int64_t count, bool looks_across, std::string_view kinds,
                                                 row_policy policy) {
  auto const names = layer_kinds(kinds, count);
  std::vector<hormone_layer<B, Mixer>> layers(names.size());
  for (std::size_t i = 0; i < names.size(); ++i)
    layers[i] = {g, {width, heads, static_cast<std::int64_t>(i), count, names[i], policy}, width / 4, looks_across};
  return layers;
}

}  // namespace ouro
