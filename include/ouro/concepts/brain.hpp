// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Brain, g : S × T → S × T: moves the state on under a disturbance, and thinks.
//
// Purpose. The one component that changes the working state while a system is awake.
//
// Smallest model. thought = W x; working' = working + mean of the thought.
//
// Laws.
//   purity   the same arguments give the same result; mem is read, never changed
//   shapes   the next working state has the shape of the old one; awake, a thought has a row for each row of x
//   dream    asleep only the state moves on; thought and predicted loss may be absent
//
// What it is not. A Brain neither reads inputs nor writes outputs, and it does not sleep by itself.
#pragma once

#include <concepts>

#include <ouro/concepts/backend.hpp>

namespace ouro {

template <class B>
class tensor;
template <Backend B>
struct context;
template <class B>
struct state_view;
template <class B>
struct brain_result;

template <class T, class B>
concept Brain = requires(T const& brain, context<B>& cx, tensor<B> const& x, state_view<B> const& s) {
  { brain(cx, x, s, x) } -> std::same_as<brain_result<B>>;
  { brain.dream(cx, x, s, x) } -> std::same_as<brain_result<B>>;
};

/// One sentence per requirement, for a type that should model Brain.
template <class T, class B>
consteval bool check_brain() {
  static_assert(
      requires(T const& brain, context<B>& cx, tensor<B> const& x, state_view<B> const& s) {
        { brain(cx, x, s, x) } -> std::same_as<brain_result<B>>;
      },
      "a Brain is called as `brain_result operator()(context&, tensor x, state_view const&, tensor hormone) const`");
  static_assert(
      requires(T const& brain, context<B>& cx, tensor<B> const& x, state_view<B> const& s) {
        { brain.dream(cx, x, s, x) } -> std::same_as<brain_result<B>>;
      },
      "a Brain has `brain_result dream(context&, tensor dream, state_view const&, tensor hormone) const`");
  return true;
}

}  // namespace ouro
