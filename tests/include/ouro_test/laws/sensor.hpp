// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of a Sensor (ouro/concepts/sensor.hpp).
#pragma once

#include <ouro/concepts/sensor.hpp>
#include <ouro_test/laws/lives.hpp>

namespace ouro_test {

/// `life` has three lanes or more of any content. `samples` knows the input type: `input(lanes, draw)` makes one,
/// `lanes(x, which)` picks lanes of it.
template <class B, class T, class Samples>
void sensor_laws(T const& sensor, Samples const& samples, ouro::state<B> const& life) {
  static_assert(ouro::Sensor<T, B>);
  auto perceive = [&](ouro::context<B>& cx, auto const& x, ouro::state<B> const& s) {
    return sensor(cx, x, seen_of(s), s.hormone);
  };
  auto const x = samples.input(life.lanes(), 1);

  check_pure(
      tensors(life), [&](auto& cx) { return perceive(cx, x, life); },
      [&](auto& cx) { return perceive(cx, samples.input(life.lanes(), 2), another(life)); });

  ouro::context<B> cx;
  auto const y = perceive(cx, x, life);
  REQUIRE(y.rank() == 3);  // (B,S,D)
  CHECK(y.dim(0) == life.lanes());
  CHECK(y.dim(2) == life.working.dim(2));

  // Lanes: each alone gives the same as among all, so none is exchanged for or mixed with another.
  for (std::int64_t b = 0; b < life.lanes(); ++b)
    CHECK(relative_error(perceive(cx, samples.lanes(x, {b}), lanes_of(life, {b})), lanes_of(y, {b})) <
          reordered(y.type()));
  CHECK(relative_error(lanes_of(y, {0}), lanes_of(y, {2})) > 1e-2);  // or exchanging them would show nothing
}

}  // namespace ouro_test
