// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of SequenceMixer, on attention, on that of examples/own_mixer and on the smallest mixer, which also takes attention's place in a Gridman.
#include <ouro_test/laws/sequence_mixer.hpp>

#include <ouro/backend/cpu.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/train/trainer.hpp>
#include <ouro_test/mean_mixer.hpp>
#include <own_mixer/moving_average.hpp>

#include "samples.hpp"

using R = ouro::reference;
static_assert(ouro::SequenceMixer<ouro::attention<R>, ouro::context<R>, ouro::tensor<R>>);

namespace {

template <class B>
void mixers(ouro::dtype type) {
  ouro::genesis<B> g(ouro::seed{1}, type);
  SECTION("attention") { ouro_test::sequence_mixer_laws<B>(ouro::attention<B>(g, 8, 2), 8, type); }
  SECTION("moving_average") {
    moving_average<B> const m(g, {8, 2});
    ouro_test::sequence_mixer_laws<B>(m, 8, type, ouro_test::looks::back);
  }
  SECTION("mean_mixer") { ouro_test::sequence_mixer_laws<B>(ouro_test::mean_mixer<B>(g, 8, 2), 8, type); }
}

}  // namespace

TEST_CASE("SequenceMixer: reference, f64") { mixers<R>(ouro::dtype::f64); }
#if defined(OURO_HAS_CPU)
TEST_CASE("SequenceMixer: cpu, f32") { mixers<ouro::cpu>(ouro::dtype::f32); }
#endif

TEST_CASE("a Gridman learns with another mixer in attention's place") {
  using network = ouro::gridman<R, ouro_test::mean_mixer>;
  ouro::gridman_config c;
  c.width = 16, c.heads = 2, c.brain_layers = 1, c.patch = 5, c.chunk = 3, c.state_rows = 2, c.memory_rows = 3;
  network m(c, ouro::seed{1});
  auto const before = m;
  auto s = m.newborn(ouro::seed{2});
  ouro::trainer<network> trainer(m, {.learning_rate = 1e-3, .warmup = 0});
  auto const r = trainer.update(s, {{bytes{}.input(1, 1), bytes{}.target(1, 2)}});
  CHECK_FALSE(r.refused);
  CHECK(r.live > 0);
  auto moved = [&](auto const& now, auto const& then) { return !ouro_test::same_bits<R>(now.weight, then.weight); };
  CHECK(moved(m.sensor.context_mixer.layers[0].attn, before.sensor.context_mixer.layers[0].attn));
  CHECK(moved(m.brain.core.layers[0].attn, before.brain.core.layers[0].attn));
}
