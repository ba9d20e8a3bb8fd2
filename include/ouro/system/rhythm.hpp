// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The clock of a life: a noisy oscillator that says where in the cycle of wake and sleep it is.
#pragma once

#include <cstdint>
#include <vector>

#include <ouro/tensor/elementary.hpp>
#include <ouro/tensor/normal.hpp>
#include <ouro/tensor/tensor.hpp>

namespace ouro {

/// A cycle is `wake` steps awake, then `sleep` steps asleep.
struct rhythm {
  std::int64_t wake = 4;
  std::int64_t sleep = 2;
  double noise = 0.15;

  [[nodiscard]] constexpr bool asleep(std::int64_t clock) const { return clock % (wake + sleep) >= wake; }

  /// (x, y) ← unit((x, y)·[[cos ω, −sin ω], [sin ω, cos ω]] + noise), ω = 2π / cycle: (B,2). Computed in f64.
  template <class B>
  tensor<B> advance(tensor<B> const& oscillator, random_stream& random) const {
    double const omega = 6.283185307179586476925 / static_cast<double>(wake + sleep);
    auto v = oscillator.template values<double>();
    random_draw const draw = noise > 0 ? random.next() : random_draw{};
    for (std::size_t i = 0; i < v.size(); i += 2) {
      double x = v[i] * elementary::cos(omega) + v[i + 1] * elementary::sin(omega);
      double y = -v[i] * elementary::sin(omega) + v[i + 1] * elementary::cos(omega);
      if (noise > 0) {
        x += noise * standard_normal(draw, i);
        y += noise * standard_normal(draw, i + 1);
      }
      double const length = elementary::sqrt(x * x + y * y) + 1e-6;
      v[i] = x / length;
      v[i + 1] = y / length;
    }
    return tensor<B>::from(v, oscillator.dims(), oscillator.type());
  }
};

}  // namespace ouro
