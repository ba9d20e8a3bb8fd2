// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of Hippocampus, on Gridman's (with and without noise) and on the creature's.
#include <ouro_test/laws/hippocampus.hpp>

#include <mackey_glass/creature.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/hippocampus/hippocampus.hpp>

static_assert(ouro::Hippocampus<ouro::hippocampus<ouro::reference>, ouro::reference>);

namespace {

template <class B>
void hippocampi(ouro::dtype type) {
  auto const life = ouro_test::random_life<B>(3, 5, 2, 16, 4, type);
  SECTION("hippocampus") {
    for (double noise : {0.0, 0.05}) {
      INFO("noise " << noise);
      ouro::genesis<B> g(ouro::seed{1}, type);
      ouro::hippocampus<B> const h(g, 16, 2, noise);
      ouro_test::hippocampus_laws(h, life);
      ouro::context<B> cx;
      ouro::random_stream random;
      auto const e = h.consolidate(cx, life.mem, life.working, random);
      CHECK(ouro_test::unit_rows(h.inception(cx, life.mem, life.working, life.oscillator, random)));
      CHECK(ouro_test::unit_rows(e.mem));
      CHECK(ouro_test::unit_rows(e.working));
    }
  }
  SECTION("dreamless") { ouro_test::hippocampus_laws(mackey_glass::dreamless<B>{}, life); }
}

}  // namespace

TEST_CASE("Hippocampus: reference, f64") { hippocampi<ouro::reference>(ouro::dtype::f64); }
#if defined(OURO_HAS_CPU)
TEST_CASE("Hippocampus: cpu, f32") { hippocampi<ouro::cpu>(ouro::dtype::f32); }
#endif
