// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The clock of a life: a noisy oscillator that says where in the cycle of wake and sleep it is.
#pragma once

#include <cstdint>
#include <vector>

#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/noise.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/square.hpp>
#include <ouro/ops/square_root.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// A cycle is `wake` steps awake, then `sleep` steps asleep.
struct rhythm {
  std::int64_t wake = 4;
  std::int64_t sleep = 2;
  double noise = 0.15;
  static constexpr std::int64_t most = 1 << 20;

  /// Errors (config): a cycle without a step awake, or no number of steps at all; noise that is negative or not finite.
  void validate() const {
    require(wake >= 1 && wake <= most && sleep >= 0 && sleep <= most && noise >= 0 && elementary::isfinite(noise),
            errc::config, "rhythm", "needs 1..2^20 steps awake, 0..2^20 asleep and noise from 0 on, got ", wake, ", ",
            sleep, " and ", noise);
  }
  /// Errors: as validate().
  [[nodiscard]] bool asleep(std::int64_t clock) const {
    validate();
    return clock % (wake + sleep) >= wake;
  }
  friend bool operator==(rhythm const&, rhythm const&) = default;

  /// (x, y) ← v / (‖v‖ + 1e-6), v = (x, y)·[[cos ω, −sin ω], [sin ω, cos ω]] + noise, ω = 2π / cycle: (B,2). Computed in
  /// f64, where the oscillator is: a device is not waited for.
  template <class B>
  tensor<B> advance(tensor<B> const& oscillator, random_stream& random) const {
    validate();
    double const omega = 6.283185307179586476925 / static_cast<double>(wake + sleep);
    double const c = elementary::cos(omega);
    double const s = elementary::sin(omega);
    auto v = matmul(oscillator.copy(dtype::f64), tensor<B>::from(std::vector<double>{c, -s, s, c}, {2, 2}));
    if (noise > 0) v = v + noise * normal<B>(v.dims(), dtype::f64, random.next());
    auto const length = square_root(sum(square(v), 1)) + tensor<B>::full({1}, dtype::f64, 1e-6);
    return divide(v, length).copy(oscillator.type());
  }
};

}  // namespace ouro
