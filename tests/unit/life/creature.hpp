// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The life of a creature that hears numbers: two lanes, and some kilobytes.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <string>
#include <vector>

#include <mackey_glass/creature.hpp>

#include <ouro/life/life.hpp>
#include <ouro_test/small_gridman.hpp>

namespace ouro_test {

using creature = mackey_glass::creature<ouro::reference>;
using creature_life = ouro::basic_life<creature>;

inline creature_life opened(std::string const& path, std::int64_t width = 8) {
  return creature_life::open_or_create(path, mackey_glass::born<ouro::reference>(width),
                                       mackey_glass::newborn<ouro::reference>(2, width));
}
/// Updates `from` to `to`, each of two steps, and keeps them.
inline void learn(creature_life& l, int from, int to) {
  auto t = l.resume({.learning_rate = 0.01, .warmup = 0});
  for (int u = from; u < to; ++u) {
    auto const x = [&](int k) {
      return std::vector<float>{std::sin(static_cast<float>(k)), std::cos(static_cast<float>(k))};
    };
    REQUIRE_FALSE(t.update(l.state, {{x(2 * u), x(2 * u + 6)}, {x(2 * u + 1), x(2 * u + 7)}}).refused);
  }
  l.commit(t);
}
/// Everything that a life keeps but its progress in the text.
template <class Life>
std::vector<double> all_of(Life const& l) {
  auto model = l.model;
  ouro::trainer<typename Life::model_type> t(model, {});
  t.memory() = l.memory;
  t.updates() = l.progress.updates;
  return all_of(l.model, l.state, t);
}

}  // namespace ouro_test
