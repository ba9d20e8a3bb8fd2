// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of Actor, on Gridman's and on the creature's mouth.
#include <ouro_test/laws/actor.hpp>

#include <mackey_glass/creature.hpp>
#include <ouro/actor/byte_actor.hpp>
#include <ouro/backend/cpu.hpp>

#include "samples.hpp"

static_assert(ouro::Actor<ouro::byte_actor<ouro::reference>, ouro::reference>);

namespace {

template <class B>
void actors(ouro::dtype type) {
  ouro::impression<B> seen{ouro_test::noise<B>({3, 3, 16}, type), {}, ouro_test::noise<B>({3, 1, 4}, type), {}};
  SECTION("byte_actor") {
    ouro::genesis<B> g(ouro::seed{1}, type);
    ouro::byte_actor<B> actor(g, 16, 2, 1, 5, 2, false);
    for (std::int64_t tokens : {1, 2048}) {  // settled patch by patch, and at once
      INFO("tokens_at_once " << tokens);
      actor.tokens_at_once = tokens;
      ouro_test::actor_laws(actor, bytes{}, seen);
    }
    seen.before = ouro_test::noise<B>({3, 1, 16}, type);
    ouro_test::actor_laws(actor, bytes{}, seen);
  }
  SECTION("mouth") {
    seen.now = ouro_test::noise<B>({3, 1, 8}, type);
    ouro_test::actor_laws(mackey_glass::born<B>(8, type).actor, numbers{}, seen);
  }
}

}  // namespace

TEST_CASE("Actor: reference, f64") { actors<ouro::reference>(ouro::dtype::f64); }
#if defined(OURO_HAS_CPU)
TEST_CASE("Actor: cpu, f32") { actors<ouro::cpu>(ouro::dtype::f32); }
#endif
