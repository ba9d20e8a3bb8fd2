// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of Brain, on Gridman's and on the creature's cell.
#include <ouro_test/laws/brain.hpp>

#include <mackey_glass/creature.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/brain/state_brain.hpp>

static_assert(ouro::Brain<ouro::state_brain<ouro::reference>, ouro::reference>);

namespace {

template <class B>
void brains(ouro::dtype type) {
  SECTION("state_brain") {
    ouro::genesis<B> g(ouro::seed{1}, type);
    ouro::state_brain<B> const brain(g, 16, 2, 2, 2);
    auto const life = ouro_test::random_life<B>(3, 3, 2, 16, 4, type);
    ouro_test::brain_laws(brain, life, 4);
    ouro::context<B> cx;
    auto const r = brain(cx, ouro_test::noise<B>({3, 4, 16}, type), ouro_test::seen_of(life), life.hormone);
    CHECK(ouro_test::unit_rows(r.thought));
    CHECK(ouro_test::unit_rows(r.working));
  }
  SECTION("cell") {
    auto const life = ouro_test::random_life<B>(3, 1, 1, 8, 1, type);
    ouro_test::brain_laws(mackey_glass::born<B>(8, type).brain, life, 1);
  }
}

}  // namespace

TEST_CASE("Brain: reference, f64") { brains<ouro::reference>(ouro::dtype::f64); }
#if defined(OURO_HAS_CPU)
TEST_CASE("Brain: cpu, f32") { brains<ouro::cpu>(ouro::dtype::f32); }
#endif
