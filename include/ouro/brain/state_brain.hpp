// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The reference model's Brain: a StateTransformer that moves the state on, and a guess of the loss to come.
#pragma once

#include <ouro/nn/exchange.hpp>
#include <ouro/nn/state_transformer.hpp>

namespace ouro {

/// Linear(D→D/2), GELU, Linear(D/2→D/4), GELU, Linear(D/4→1): members are named by their place.
template <Backend B>
struct loss_network {
  using backend = B;
  linear<B> _0;
  linear<B> _2;
  linear<B> _4;
  OURO_MODULE(loss_network, _0, _2, _4);
  tensor<B> operator()(context<B>& cx, tensor<B> const& x) const { return _4(cx, gelu(_2(cx, gelu(_0(cx, x))))); }
};

template <Backend B, class Mixer = attention<B>>
struct state_brain {
  using backend = B;
  state_transformer<B, Mixer> core;
  loss_network<B> prob_proj;
  OURO_MODULE(state_brain, core, prob_proj);

  state_brain() = default;
  /// Of width D, for State's rows; `kinds` and `policy` are of a Mixer that has them. Errors (config): heads that do not divide the width.
  state_brain(genesis<B>& g, std::int64_t width, std::int64_t heads, std::int64_t layers, std::int64_t state_rows,
              std::string_view kinds = {}, row_policy policy = {})
      : core(g, width, heads, layers, state_rows, true, kinds, policy),
        prob_proj{linear<B>(g, width, width / 2), linear<B>(g, width / 2, width / 4), linear<B>(g, width / 4, 1)} {}

  /// x (B,L,D) → thought, the next working state and self, and the predicted loss (mean over rows and lanes).
  brain_result<B> operator()(context<B>& cx, tensor<B> const& x, state_view<B> const& s,
                             tensor<B> const& hormone) const {
    auto const r = core(cx, x, s.mem, s.working, s.self, hormone, wanted::both);
    cx.see("brain_features", r.features);
    cx.see("brain_state", r.state);
    return {r.features, r.state, r.self, reshape(mean(prob_proj(cx, r.state)), {1})};
  }
  /// The same asleep: only the state moves on.
  brain_result<B> dream(context<B>& cx, tensor<B> const& x, state_view<B> const& s, tensor<B> const& hormone) const {
    auto const r = core(cx, x, s.mem, s.working, s.self, hormone, wanted::state);
    return {{}, r.state, r.self, {}};
  }
};

}  // namespace ouro
