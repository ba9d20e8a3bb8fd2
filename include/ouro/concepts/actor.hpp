// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Actor, μ : T → Y: projects a thought to an output, and says how far it is from a target.
//
// Purpose. It alone knows what outputs and targets are, so that the same system can say bytes, classes or samples.
//
// Smallest model. A linear map of the thought with the mean squared error.
//
// Laws.
//   purity   the same arguments give the same loss and output; nothing of the state changes
//   ignored  a target that counts nowhere gives `live` 0, an absent value and no gradient; never 0/0
//   mean     the value is a mean over what counts: repeating the same lanes leaves it as it is
//
// What it is not. An Actor does not sample from a state of its own; randomness comes in with the caller.
#pragma once

#include <concepts>

#include <ouro/concepts/backend.hpp>

namespace ouro {

template <class B>
class tensor;
template <Backend B>
struct context;
template <class B>
struct impression;
template <class B>
struct actor_loss;

template <class T, class B>
concept Actor = requires(T const& actor, context<B>& cx, impression<B> const& seen, typename T::input_type const& x,
                         typename T::target_type const& target) {
  typename T::output_type;
  { actor.loss(cx, seen, x, target) } -> std::same_as<actor_loss<B>>;
  { actor.act(cx, seen, x) } -> std::same_as<typename T::output_type>;
};

/// One sentence per requirement, for a type that should model Actor.
template <class T, class B>
consteval bool check_actor() {
  constexpr bool named = requires {
    typename T::input_type;
    typename T::target_type;
    typename T::output_type;
  };
  static_assert(named,
                "an Actor names its types: `input_type` (what the Sensor perceived), `target_type`, `output_type`");
  if constexpr (named) {
    static_assert(
        requires(T const& actor, context<B>& cx, impression<B> const& seen, typename T::input_type const& x,
                 typename T::target_type const& t) {
          { actor.loss(cx, seen, x, t) } -> std::same_as<actor_loss<B>>;
        },
        "an Actor has `actor_loss loss(context&, impression const&, input_type const&, target_type const&) const`");
    static_assert(
        requires(T const& actor, context<B>& cx, impression<B> const& seen, typename T::input_type const& x) {
          { actor.act(cx, seen, x) } -> std::same_as<typename T::output_type>;
        },
        "an Actor has `output_type act(context&, impression const&, input_type const&) const`");
  }
  return true;
}

}  // namespace ouro
