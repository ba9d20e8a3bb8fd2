// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Sensor, Ψ : X × S → T: turns an input into a disturbance of the state.
//
// Purpose. Whatever a system perceives (bytes, images, samples) reaches its Brain as rows of width D.
//
// Smallest model. A linear map of the input; it may ignore state and hormone.
//
// Laws.
//   purity   the same context, input, state and hormone give the same disturbance; nothing is remembered inside
//   lanes    lane b of the disturbance depends on lane b of input, state and hormone only (outside training, where
//            batch statistics may couple lanes)
//
// What it is not. A Sensor does not change the state: that is the Brain's part.
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

template <class T, class B>
concept Sensor = requires(T const& sensor, context<B>& cx, typename T::input_type const& x, state_view<B> const& s,
                          tensor<B> const& hormone) {
  { sensor(cx, x, s, hormone) } -> std::same_as<tensor<B>>;
};

/// One sentence per requirement, for a type that should model Sensor.
template <class T, class B>
consteval bool check_sensor() {
  static_assert(
      requires { typename T::input_type; }, "a Sensor names what it perceives: a type `input_type`");
  if constexpr (requires { typename T::input_type; })
    static_assert(
        requires(T const& sensor, context<B>& cx, typename T::input_type const& x, state_view<B> const& s,
                 tensor<B> const& h) {
          { sensor(cx, x, s, h) } -> std::same_as<tensor<B>>;
        },
        "a Sensor is called as `tensor operator()(context&, input_type const&, state_view const&, tensor hormone) "
        "const` "
        "and returns the disturbance (B,S,D)");
  return true;
}

}  // namespace ouro
