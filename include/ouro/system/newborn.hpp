// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The state that a life begins with.
#pragma once

#include <cstdint>
#include <vector>

#include <ouro/nn/genesis.hpp>
#include <ouro/system/state.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// The extents of a state; a mind of one row has the defaults.
struct state_sizes {
  std::int64_t width = 0;        ///< D
  std::int64_t state_rows = 1;   ///< R
  std::int64_t memory_rows = 1;  ///< M
  std::int64_t hormone = 0;      ///< its width; 0: D / 4
};

/// Mem, State, hormone and self 0, no thought, the oscillator anywhere on its circle; its random numbers go on from those of
/// `g`. Errors (argument): no lane.
template <class B>
state<B> newborn(state_sizes const& sizes, genesis<B> g, std::int64_t lanes = 1) {
  require(lanes >= 1, errc::argument, "newborn", "lanes must be at least 1, got ", lanes);
  state<B> n;
  auto const draw = g.random.next();
  std::vector<double> phase;
  for (std::int64_t b = 0; b < lanes; ++b) {
    double const angle = 6.283185307179586476925 * draw.uniform(static_cast<std::uint64_t>(b));
    phase.push_back(elementary::cos(angle));
    phase.push_back(elementary::sin(angle));
  }
  n.oscillator = tensor<B>::from(phase, {lanes, 2}, g.type);
  n.mem = g.zeros({lanes, sizes.memory_rows, sizes.width});
  n.working = g.zeros({lanes, sizes.state_rows, sizes.width});
  n.hormone = g.zeros({lanes, 1, sizes.hormone > 0 ? sizes.hormone : sizes.width / 4});
  n.self = g.zeros({lanes, 1, sizes.width});
  n.random = g.random;
  return n;
}
template <class B>
state<B> newborn(state_sizes const& sizes, seed s, std::int64_t lanes = 1, dtype type = dtype::f32) {
  return newborn<B>(sizes, genesis<B>(s, type), lanes);
}

}  // namespace ouro
