// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life that goes on and on: 600 steps, 100 under the address sanitizer, or as many as OURO_LONG_LIFE says.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include <ouro/backend/reference.hpp>
#if defined(OURO_HAS_CPU)
#include <ouro/backend/cpu_gridman.hpp>
#endif
#include <ouro/generate/speak.hpp>
#include <ouro/life/life.hpp>
#include <ouro_test/dice.hpp>
#include <ouro_test/folder.hpp>
#include <ouro_test/small_gridman.hpp>

namespace {
#if defined(OURO_HAS_CPU)
using backends = std::tuple<ouro::reference, ouro::cpu>;
#else
using backends = std::tuple<ouro::reference>;
#endif
}  // namespace

TEMPLATE_LIST_TEST_CASE("life: a long one keeps its norms, and neither its memory nor its folder grows", "", backends) {
  using B = TestType;
  using life = ouro::life<B>;
  using Catch::Matchers::WithinRel;
#if defined(__SANITIZE_ADDRESS__)
  constexpr std::int64_t usual = 100;
#else
  constexpr std::int64_t usual = 600;
#endif
  auto const steps = static_cast<std::int64_t>(ouro_test::how_many("OURO_LONG_LIFE", usual));
  REQUIRE(steps >= 100);
  ouro_test::folder const f;
  auto const config = ouro_test::small_gridman(8);
  std::optional<life> l = life::create(f.at("life"), config, ouro::seed{1}, ouro::seed{2});
  std::size_t most_files = 0;
  std::size_t most_memory = 0;  // in the first half, where it was looked at
  std::size_t memory = 0;
  std::uint64_t draw = 0;
  for (std::int64_t next = steps / 20; l->state.clock < steps;) {
    static_cast<void>(ouro::speak(l->model, l->state, "hello", {.bytes = 20, .temperature = 1}));
    {  // a lesson now and then, awake or asleep, and what is learned is kept
      auto t = l->resume({.learning_rate = 1e-3, .warmup = 0});
      REQUIRE_FALSE(t.update(l->state, {ouro_test::any_lesson(draw++)}).refused);
      l->commit(t);
    }
    if (l->state.clock < next) continue;
    next += steps / 20;
    l.reset();
    l.emplace(life::open(f.at("life")));
    auto const& s = l->state;
    // Every row of Mem, State and the hormone is a unit, as is each pair of the oscillator; self is what a layer norm leaves.
    INFO("step " << s.clock);
    auto const norm = [](ouro::tensor<B> const& x) { return static_cast<double>(ouro::norm_of<B>({x})); };
    CHECK_THAT(norm(s.mem), WithinRel(std::sqrt(static_cast<double>(config.memory_rows)), 1e-3));
    CHECK_THAT(norm(s.working), WithinRel(std::sqrt(static_cast<double>(config.state_rows)), 1e-3));
    CHECK_THAT(norm(s.hormone), WithinRel(1.0, 1e-3));
    CHECK_THAT(norm(s.oscillator), WithinRel(1.0, 1e-3));
    CHECK((norm(s.self) > 0.1 && norm(s.self) < 10 * std::sqrt(8.0)));
    most_files = std::max(most_files, ouro::entries_of(f.at("life")).size());
    memory = ::mallinfo2().uordblks;
    if (s.clock < steps / 2) most_memory = std::max(most_memory, memory);
  }
  CHECK(most_files <= 2 + 3 + 6);              // LOCK, CURRENT, snapshots, and weights twice
  CHECK(memory <= most_memory + (1U << 20U));  // 0 under sanitizers, which have heaps of their own
}
