// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Hippocampus: dreams, and lets State (short-term) and Mem (long-term) exchange what they hold.
//
// Purpose. What a system does with its memory while it sleeps.
//
// Smallest model. The dream is the working state; consolidation exchanges nothing.
//
// Laws.
//   purity   noise comes from the given random stream only, which moves on as it is drawn from
//   shapes   consolidation returns Mem and State in the shapes they had
//
// What it is not. It does not decide when to sleep (the rhythm does) and does not read inputs.
#pragma once

#include <concepts>

#include <ouro/concepts/backend.hpp>

namespace ouro {

template <class B>
class tensor;
template <Backend B>
struct context;

template <class T, class B>
concept Hippocampus = requires(T const& h, context<B>& cx, tensor<B> const& x, random_stream& random) {
  { h.inception(cx, x, x, x, random) } -> std::same_as<tensor<B>>;
  { h.consolidate(cx, x, x, random).mem } -> std::convertible_to<tensor<B>>;
  { h.consolidate(cx, x, x, random).working } -> std::convertible_to<tensor<B>>;
};

/// One sentence per requirement, for a type that should model Hippocampus.
template <class T, class B>
consteval bool check_hippocampus() {
  static_assert(
      requires(T const& h, context<B>& cx, tensor<B> const& x, random_stream& random) {
        { h.inception(cx, x, x, x, random) } -> std::same_as<tensor<B>>;
      },
      "a Hippocampus has `tensor inception(context&, tensor mem, tensor working, tensor oscillator, random_stream&) "
      "const`: "
      "the dream (B,L,D)");
  static_assert(
      requires(T const& h, context<B>& cx, tensor<B> const& x, random_stream& random) {
        { h.consolidate(cx, x, x, random).mem } -> std::convertible_to<tensor<B>>;
        { h.consolidate(cx, x, x, random).working } -> std::convertible_to<tensor<B>>;
      },
      "a Hippocampus has `consolidate(context&, tensor mem, tensor working, random_stream&) const` returning "
      "`{mem, working}` in their shapes");
  return true;
}

}  // namespace ouro
