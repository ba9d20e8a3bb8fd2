// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of Hypothalamus, on Gridman's and on the creature's calm.
#include <ouro_test/laws/hypothalamus.hpp>

#include <mackey_glass/creature.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/hypothalamus/hypothalamus.hpp>

static_assert(ouro::Hypothalamus<ouro::hypothalamus<ouro::reference>, ouro::reference>);

namespace {

template <class B>
void glands(ouro::dtype type) {
  auto const life = ouro_test::random_life<B>(3, 5, 2, 16, 4, type);
  SECTION("hypothalamus") {
    ouro::genesis<B> g(ouro::seed{1}, type);
    ouro::hypothalamus<B> const gland(g, 16);
    ouro_test::hypothalamus_laws(gland, life);
    ouro::context<B> cx;
    CHECK(ouro_test::unit_rows(gland(cx, life.working, life.oscillator, life.hormone)));
  }
  SECTION("calm") { ouro_test::hypothalamus_laws(mackey_glass::calm<B>{}, life); }
}

}  // namespace

TEST_CASE("Hypothalamus: reference, f64") { glands<ouro::reference>(ouro::dtype::f64); }
#if defined(OURO_HAS_CPU)
TEST_CASE("Hypothalamus: cpu, f32") { glands<ouro::cpu>(ouro::dtype::f32); }
#endif
