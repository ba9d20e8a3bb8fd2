// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of Sensor, on Gridman's and on the creature's ear.
#include <ouro_test/laws/sensor.hpp>

#include <mackey_glass/creature.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/sensor/byte_sensor.hpp>

#include "samples.hpp"

static_assert(ouro::Sensor<ouro::byte_sensor<ouro::reference>, ouro::reference>);

namespace {

template <class B>
void sensors(ouro::dtype type) {
  SECTION("byte_sensor") {
    ouro::genesis<B> g(ouro::seed{1}, type);
    ouro::byte_sensor<B> const sensor(g, 16, 2, 2, 5, 2);
    auto const life = ouro_test::random_life<B>(3, 3, 2, 16, 4, type);
    ouro_test::sensor_laws(sensor, bytes{}, life);
    ouro::context<B> cx;
    CHECK(ouro_test::unit_rows(sensor(cx, bytes{}.input(3, 7), ouro_test::seen_of(life), life.hormone)));
  }
  SECTION("ear") {
    auto const life = ouro_test::random_life<B>(3, 1, 1, 8, 1, type);
    ouro_test::sensor_laws(mackey_glass::born<B>(8, type).sensor, numbers{}, life);
  }
}

}  // namespace

TEST_CASE("Sensor: reference, f64") { sensors<ouro::reference>(ouro::dtype::f64); }
#if defined(OURO_HAS_CPU)
TEST_CASE("Sensor: cpu, f32") { sensors<ouro::cpu>(ouro::dtype::f32); }
#endif
