// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of Actor, on Gridman's and on the creature's mouth.
#include <ouro_test/laws/actor.hpp>

#include <mackey_glass/creature.hpp>
#include <ouro/actor/byte_actor.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/backend/profiled.hpp>

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

TEST_CASE("Actor: nothing is computed behind the last byte of a patch that counts") {
  using P = ouro::profiled<ouro::reference>;
  ouro::genesis<P> g(ouro::seed{1}, ouro::dtype::f64);
  ouro::byte_actor<P> const actor(g, 16, 2, 1, 5, 2, false);
  ouro::impression<P> const seen{ouro_test::noise<P>({2, 6, 16}), {}, ouro_test::noise<P>({2, 1, 4}), {}};
  auto text = [](std::uint64_t draw) {
    ouro::patches p{2, 6, 5, {}};
    for (std::uint64_t i = 0; i < 60; ++i)
      p.bytes.push_back(static_cast<std::int32_t>(ouro::random_draw{draw, 1}.word(i) % 256));
    return p;
  };
  auto const x = text(3);
  // Of the six patches the last byte that counts: in lane 0, and in lane 1.
  auto target = [&](std::vector<std::int64_t> const& first, std::vector<std::int64_t> const& second) {
    ouro::byte_target t{text(4), std::vector<char>(60)};
    for (std::size_t s = 0; s < 6; ++s)
      for (std::size_t i = 0; i < 5; ++i) {
        t.live[5 * s + i] = static_cast<std::int64_t>(i) < first[s] && i != 1;
        t.live[30 + 5 * s + i] = static_cast<std::int64_t>(i) < second[s];
      }
    return t;
  };
  auto operations = [&](ouro::byte_target const& t) {
    ouro::context<P> cx;
    P::profile().clear();
    auto const loss = actor.loss(cx, seen, x, t);
    double const work = P::profile()["matmul"].operations;
    // The mean over what counts of the whole.
    std::vector<std::int32_t> labels;
    for (std::size_t i = 0; i < 60; ++i) labels.push_back(t.live[i] != 0 ? t.next.bytes[i] : -1);
    auto const all = ouro::reshape(actor.predict(cx, seen, x, t), {60, 258});
    auto const nll = ouro::sum(ouro::cross_entropy(all, ouro::tensor<P>::from(labels, {60}))).item();
    CHECK(std::abs(loss.value.item() / (nll / static_cast<double>(loss.live)) - 1) < 1e-12);
    return work;
  };
  double const whole = operations(target({5, 5, 5, 5, 5, 5}, {5, 5, 5, 5, 5, 5}));
  double const short_ones = operations(target({2, 2, 3, 0, 1, 5}, {0, 2, 3, 0, 4, 2}));  // 2, 2, 3, none, 4, 5
  CHECK(short_ones < 0.8 * whole);
  CHECK(short_ones > 0.3 * whole);
}

TEST_CASE("Actor: reference, f64") { actors<ouro::reference>(ouro::dtype::f64); }
#if defined(OURO_HAS_CPU)
TEST_CASE("Actor: cpu, f32") { actors<ouro::cpu>(ouro::dtype::f32); }
#endif
