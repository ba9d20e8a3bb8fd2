// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The reference model's Hippocampus: it dreams out of Mem and State, and lets the two exchange what they hold.
#pragma once

#include <ouro/nn/exchange.hpp>
#include <ouro/nn/layer_norm.hpp>
#include <ouro/nn/mixers/attention.hpp>
#include <ouro/nn/sequential.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/noise.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/unit.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

template <Backend B>
struct hippocampus {
  using backend = B;
  parameter<B> dream_anchors;  // (1,D,D)
  linear<B> osc_proj;
  layer_norm<B> dream_mem_norm;
  layer_norm<B> dream_state_norm;
  attention<B> dream_attention;
  layer_norm<B> dream_norm;
  layer_norm<B> mem_input_norm;
  layer_norm<B> state_input_norm;
  attention<B> mem_attn;
  single_linear<B> mem_gate;
  layer_norm<B> mem_update_norm;
  attention<B> state_attn;
  single_linear<B> state_gate;
  layer_norm<B> state_update_norm;
  double noise = 0.05;
  OURO_MODULE(hippocampus, dream_anchors, osc_proj, dream_mem_norm, dream_state_norm, dream_attention, dream_norm,
              mem_input_norm, state_input_norm, mem_attn, mem_gate, mem_update_norm, state_attn, state_gate,
              state_update_norm, noise);

  hippocampus() = default;
  /// Of width D; the noise is a standard deviation. Errors (config): heads that do not divide the width; a noise that is none.
  hippocampus(genesis<B>& g, std::int64_t width, std::int64_t heads, double noise_scale);

  /// Mem (B,M,D), State (B,R,D), oscillator (B,2) → a dream (B,D,D) of unit rows.
  tensor<B> inception(context<B>& cx, tensor<B> const& mem, tensor<B> const& working, tensor<B> const& oscillator,
                      random_stream& random) const;

  struct exchanged {
    tensor<B> mem;
    tensor<B> working;
  };
  /// Mem and State exchange what they hold; both come back as unit rows.
  exchanged consolidate(context<B>& cx, tensor<B> const& mem, tensor<B> const& working, random_stream& random) const;

 private:
  tensor<B> noisy(tensor<B> const& x, random_stream& random) const {
    return noise > 0 ? x + noise * normal<B>(x.dims(), x.type(), random.next()) : x;
  }
  /// (1 − z)·x + z·target with z = σ(gate([x, change])).
  static tensor<B> blend(context<B>& cx, single_linear<B> const& gate, tensor<B> const& x, tensor<B> const& change,
                         tensor<B> const& target) {
    auto const z = sigmoid(gate(cx, concat<B>({x, change}, 2)));
    return x + z * (target - x);
  }
};

template <Backend B>
hippocampus<B>::hippocampus(genesis<B>& g, std::int64_t width, std::int64_t heads, double noise_scale)
    : dream_anchors(g.normal({1, width, width}, 1.0)),
      osc_proj(g, 2, width),
      dream_mem_norm(g, width),
      dream_state_norm(g, width),
      dream_attention(g, width, heads),
      dream_norm(g, width),
      mem_input_norm(g, width),
      state_input_norm(g, width),
      mem_attn(g, width, heads, false),
      mem_gate{linear<B>(g, 2 * width, width)},
      mem_update_norm(g, width),
      state_attn(g, width, heads, false),
      state_gate{linear<B>(g, 2 * width, width)},
      state_update_norm(g, width),
      noise(noise_scale) {
  require(noise >= 0 && elementary::isfinite(noise), errc::config, "hippocampus", "noise must be 0 or more, got ",
          noise);
}

template <Backend B>
tensor<B> hippocampus<B>::inception(context<B>& cx, tensor<B> const& mem, tensor<B> const& working,
                                    tensor<B> const& oscillator, random_stream& random) const {
  std::int64_t const lanes = mem.dim(0);
  std::int64_t const width = mem.dim(2);
  auto const held = concat<B>({dream_mem_norm(cx, mem), dream_state_norm(cx, working)}, 1);
  auto const queries =
      expand(dream_anchors.value(), {lanes, width, width}) + reshape(osc_proj(cx, oscillator), {lanes, 1, width});
  auto dream = dream_attention.cross(cx, queries, dream_attention.project(cx, held));
  return unit(dream_norm(cx, noisy(dream, random)));
}

template <Backend B>
typename hippocampus<B>::exchanged hippocampus<B>::consolidate(context<B>& cx, tensor<B> const& mem,
                                                               tensor<B> const& working, random_stream& random) const {
  auto const m = mem_input_norm(cx, mem);
  auto const s = state_input_norm(cx, working);
  auto const dm = mem_attn.cross(cx, m, mem_attn.project(cx, s));
  auto const m2 = mem_update_norm(cx, blend(cx, mem_gate, m, dm, dm));
  auto const ds = state_attn.cross(cx, s, state_attn.project(cx, m2));
  auto const s2 = state_update_norm(cx, blend(cx, state_gate, s, ds, noisy(ds, random)));
  return {unit(m2), unit(s2)};
}

}  // namespace ouro
