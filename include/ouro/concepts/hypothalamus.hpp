// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Hypothalamus: turns the state into a hormone that steers every layer.
//
// Purpose. A slow, low-dimensional signal about the whole state and the time of day.
//
// Smallest model. The hormone of the step before, unchanged.
//
// Laws.
//   purity  the new hormone depends on the rows, the oscillator and the old hormone only
//   shape   the new hormone has the shape of the old one, (B,1,W)
//
// What it is not. It does not know whether the system is awake: it is given State rows awake and a dream asleep.
#pragma once

#include <concepts>

#include <ouro/concepts/backend.hpp>

namespace ouro {

template <class B>
class tensor;
template <Backend B>
struct context;

template <class T, class B>
concept Hypothalamus = requires(T const& gland, context<B>& cx, tensor<B> const& x) {
  { gland(cx, x, x, x) } -> std::same_as<tensor<B>>;
};

/// One sentence per requirement, for a type that should model Hypothalamus.
template <class T, class B>
consteval bool check_hypothalamus() {
  static_assert(
      Hypothalamus<T, B>,
      "a Hypothalamus is called as `tensor operator()(context&, tensor rows, tensor oscillator, tensor hormone) "
      "const`: (B,R,D), (B,2), (B,1,W) -> (B,1,W)");
  return true;
}

}  // namespace ouro
