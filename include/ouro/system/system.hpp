// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The dynamical system 𝒜 : X × S × 𝒟 → S × 𝒟 × Y: five components, and the two steps they make together. Both are pure
// functions of model and state; with a tape they are differentiable.
#pragma once

#include <concepts>
#include <utility>

#include <ouro/concepts/actor.hpp>
#include <ouro/concepts/brain.hpp>
#include <ouro/concepts/hippocampus.hpp>
#include <ouro/concepts/hypothalamus.hpp>
#include <ouro/concepts/sensor.hpp>
#include <ouro/nn/context.hpp>
#include <ouro/nn/exchange.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/square.hpp>
#include <ouro/system/rhythm.hpp>
#include <ouro/system/state.hpp>

namespace ouro {

template <class B, class SensorType, class BrainType, class ActorType, class HypothalamusType, class HippocampusType>
struct system {
  static_assert(check_sensor<SensorType, B>() && check_brain<BrainType, B>() && check_actor<ActorType, B>() &&
                check_hypothalamus<HypothalamusType, B>() && check_hippocampus<HippocampusType, B>());
  static_assert(std::same_as<typename SensorType::input_type, typename ActorType::input_type>,
                "Sensor and Actor of a system have one `input_type`: the Actor is told what the Sensor perceived");
  using backend = B;
  using input_type = typename SensorType::input_type;
  using target_type = typename ActorType::target_type;

  SensorType sensor;
  BrainType brain;
  ActorType actor;
  HypothalamusType hypothalamus;
  HippocampusType hippocampus;
  ouro::rhythm rhythm;
  OURO_MODULE(system, sensor, brain, actor, hypothalamus, hippocampus, rhythm);
};

/// What a wake step leaves behind.
template <class B>
struct wake_result {
  ouro::state<B> state;
  impression<B> seen;
};

namespace detail {
template <class System, class B>
void advance(System const& model, state<B>& s) {
  require(s.lanes() > 0, errc::shape, "state", "it has no lanes");
  s.oscillator = model.rhythm.advance(s.oscillator, s.random);
  ++s.clock;
}
/// Errors (shape): what a component made has not the shape of what it takes the place of.
template <class B>
void require_next(char const* where, char const* what, tensor<B> const& next, tensor<B> const& now) {
  require(next.dims() == now.dims(), errc::shape, where, what, " must be of the shape ", now.dims(), " as before, got ",
          next.dims());
}
}  // namespace detail

/// One step awake: the state after it, and the impression the Actor acts on. A context keeps what was computed from the weights
/// alone: take a new one when they have changed. Whether it is time to sleep nobody asks: see live_on(). Errors (shape): a Brain
/// whose thought or next state is none; and those of the components.
template <class System, class B>
wake_result<B> wake(System const& model, context<B>& cx, state<B> s, typename System::input_type const& x) {
  detail::advance(model, s);
  s.hormone = model.hypothalamus(cx, s.working, s.oscillator, s.hormone);
  state_view<B> const now{s.mem, s.working, s.self};
  auto const disturbance = model.sensor(cx, x, now, s.hormone);
  auto r = model.brain(cx, disturbance, now, s.hormone);
  require(r.thought.rank() == 3 && disturbance.rank() == 3 && r.thought.dim(0) == disturbance.dim(0) &&
              r.thought.dim(1) == disturbance.dim(1),
          errc::shape, "wake", "a Brain's thought must have a row for each row of the disturbance (lanes,rows,width), ",
          disturbance.dims(), ", got ", r.thought.dims());
  detail::require_next("wake", "a Brain's working state", r.working, s.working);
  detail::require_next("wake", "a Brain's self", r.self, s.self);
  impression<B> seen{r.thought, {}, s.hormone, r.predicted_loss};
  if (s.thought) seen.before = slice(*s.thought, 1, s.thought->dim(1) - 1, 1);
  s.working = std::move(r.working);
  s.self = std::move(r.self);
  s.thought = std::move(r.thought);
  return {std::move(s), std::move(seen)};
}

/// One step asleep: a dream moves the state on, then Mem and State exchange what they hold. Errors (shape): a Hippocampus or a
/// Brain whose next state is none; and those of the components.
template <class System, class B>
state<B> sleep(System const& model, context<B>& cx, state<B> s) {
  detail::advance(model, s);
  auto const dream = model.hippocampus.inception(cx, s.mem, s.working, s.oscillator, s.random);
  cx.see("dream", dream);
  s.hormone = model.hypothalamus(cx, dream, s.oscillator, s.hormone);
  state_view<B> const now{s.mem, s.working, s.self};
  auto r = model.brain.dream(cx, dream, now, s.hormone);
  detail::require_next("sleep", "a Brain's self", r.self, s.self);
  auto e = model.hippocampus.consolidate(cx, s.mem, r.working, s.random);
  detail::require_next("sleep", "a Hippocampus' Mem", e.mem, s.mem);
  detail::require_next("sleep", "a Hippocampus' working state", e.working, s.working);
  s.self = std::move(r.self);
  s.thought = std::move(r.working);
  s.mem = std::move(e.mem);
  s.working = std::move(e.working);
  return s;
}

/// The steps asleep that are due, if any are, and the step awake after them.
template <class System, class B>
wake_result<B> live_on(System const& model, context<B>& cx, state<B> s, typename System::input_type const& x) {
  while (model.rhythm.asleep(s.clock)) s = sleep(model, cx, std::move(s));
  return wake(model, cx, std::move(s), x);
}

/// The same outside training.
template <class System, class B>
wake_result<B> wake(System const& model, state<B> s, typename System::input_type const& x) {
  context<B> cx;
  return wake(model, cx, std::move(s), x);
}
template <class System, class B>
state<B> sleep(System const& model, state<B> s) {
  context<B> cx;
  return sleep(model, cx, std::move(s));
}
template <class System, class B>
wake_result<B> live_on(System const& model, state<B> s, typename System::input_type const& x) {
  context<B> cx;
  return live_on(model, cx, std::move(s), x);
}

/// A step's loss and its parts. Nothing counts in the target: live is 0 and the tensors are absent.
template <class B>
struct step_loss {
  tensor<B> total;      // (1)
  tensor<B> task;       // (1) the Actor's
  tensor<B> predicted;  // (1) the Brain's guess, if it makes one
  std::int64_t live = 0;
};

/// L = (p/√2 − √2·c)² + ½p² = (p − c)² + c² for the Actor's loss c and the Brain's guess p of it; L = c without a guess.
/// dL/dc = 4c − 2p, which is negative for a guess above 2c: it would teach the Actor to do worse. A guarded context has 2c there,
/// as a guess that is right, and the same L.
template <class System, class B>
step_loss<B> loss(System const& model, context<B>& cx, impression<B> const& seen, typename System::input_type const& x,
                  typename System::target_type const& target) {
  auto const c = model.actor.loss(cx, seen, x, target);
  require(c.live >= 0 && (c.live == 0 || c.value.size() == 1), errc::shape, "loss",
          "an Actor's loss must be one number, of a count of targets, got ", c.value.dims(), " of ", c.live);
  if (c.live == 0) return {};
  auto const& p = seen.predicted_loss;
  if (p.empty()) return {c.value, c.value, {}, c.live};
  if (cx.guarded) return {square(p - c.value.detach()) + square(c.value), c.value, p, c.live};
  auto const root = 1.41421356237309504880;
  auto const total = square(scale(p, 1.0 / root) - scale(c.value, root)) + scale(square(p), 0.5);
  return {total, c.value, p, c.live};
}

}  // namespace ouro
