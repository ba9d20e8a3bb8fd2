// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Speech: what is heard, how much is said, and what is refused while the life stays as it was.
#include <catch2/catch_test_macros.hpp>

#include <iterator>
#include <limits>

#include <ouro/backend/reference.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro_test/small_gridman.hpp>

using R = ouro::reference;
using network = ouro::gridman<R>;

TEST_CASE("a prompt that is not answered is heard to its end") {
  network const model(ouro_test::small_gridman(16), ouro::seed{5});
  auto heard = [&](std::string const& prompt) {
    auto life = model.newborn(ouro::seed{6});
    CHECK(ouro::speak(model, life, prompt, {.bytes = 0}).empty());
    return life.working.values<float>();
  };
  CHECK(heard("hello") == heard("hello"));
  CHECK(heard("hello") != heard("hellos"));
  CHECK(heard("hellos") != heard("hello?"));
}

TEST_CASE("who wants no more hears no more, and the life goes on as if no more had been asked for") {
  network model(ouro_test::small_gridman(16), ouro::seed{5});
  auto bias = std::vector<float>(258, 0.0F);
  for (auto const byte : {ouro::pad_byte, ouro::eos_byte}) bias[static_cast<std::size_t>(byte)] = -1e4F;
  model.actor.head.bias = ouro::tensor<R>::from(bias, {258});  // each byte is text
  ouro::speech_options const all{.bytes = 20, .temperature = 1};
  for (std::int64_t const wanted : {1, 7, 8, 9, 16, 19, 20}) {
    auto life = model.newborn(ouro::seed{6});
    auto twin = life;
    std::int64_t calls = 0;
    auto const said = ouro::speak(model, life, "hello", all, [&](std::string const&) { return ++calls < wanted; });
    CHECK(std::ssize(said) == wanted);
    CHECK(calls == wanted + 1);  // what is left of a character comes at the end
    auto const same = ouro::speak(model, twin, "hello", {.bytes = wanted, .temperature = 1}, [](std::string const&) {});
    CHECK(same == said);
    CHECK(twin.clock == life.clock);
    CHECK(twin.working.values<float>() == life.working.values<float>());
    CHECK(twin.random.counter == life.random.counter);
  }
}

TEST_CASE("bytes that are no text count, so that speech ends") {
  network model(ouro_test::small_gridman(16), ouro::seed{5});
  auto bias = std::vector<float>(258, 0.0F);
  for (int const byte : {ouro::pad_byte, ouro::eos_byte}) {
    auto likely = bias;
    likely[static_cast<std::size_t>(byte)] = 1e4F;
    model.actor.head.bias = ouro::tensor<R>::from(likely, {258});
    auto life = model.newborn(ouro::seed{6});
    CHECK(ouro::speak(model, life, "hello", {.bytes = 12, .stops_at_end = false}).empty());
  }
}

TEST_CASE("what is no number is not said") {
  for (double const bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    for (double const temperature : {0.0, 1.0}) {
      network model(ouro_test::small_gridman(16), ouro::seed{5});
      model.actor.head.bias = ouro::tensor<R>::full({258}, ouro::dtype::f32, bad);
      auto life = model.newborn(ouro::seed{6});
      try {
        ouro::speak(model, life, "hello", {.bytes = 4, .temperature = temperature});
        FAIL_CHECK("said");
      } catch (ouro::error const& e) {
        CHECK(e.code() == ouro::errc::numeric);
      }
      CHECK(life.clock == 0);
      ouro::context<R> cx;
      auto const x = ouro_test::any_patches(1, 3);
      CHECK_THROWS_AS(model.actor.act(cx, ouro::wake(model, life, x).seen, x), ouro::error);
    }
}

TEST_CASE("speech refuses options that say nothing, and a state that is not finite") {
  network model(ouro_test::small_gridman(16), ouro::seed{5});
  auto life = model.newborn(ouro::seed{6});
  auto said = [&](ouro::speech_options const& o) -> std::string {
    try {
      return ouro::speak(model, life, "hello", o);
    } catch (ouro::error const& e) {
      CHECK(life.clock == 0);
      return e.what();
    }
  };
  CHECK(said({.bytes = -1}) == "[speak] bytes must not be negative, got -1");
  CHECK(said({.temperature = -0.5}).find("temperature") != std::string::npos);
  CHECK(said({.temperature = std::numeric_limits<double>::quiet_NaN()}).find("temperature") != std::string::npos);
  CHECK(said({.top_k = -2}).find("top_k") != std::string::npos);
  R::fill(life.mem.write().slice(1, 0, 1), std::numeric_limits<double>::infinity());
  CHECK(said({.bytes = 4}).find("not finite") != std::string::npos);
  CHECK(life.clock == 0);
}

TEST_CASE("a voice is told every byte before it says the next, and only bytes that there are") {
  network const model(ouro_test::small_gridman(16), ouro::seed{5});
  auto const step = ouro::wake(model, model.newborn(ouro::seed{6}), ouro_test::any_patches(1, 3));
  auto seen = step.seen;
  seen.now = ouro::slice(seen.now, 1, 0, 1);
  ouro::context<R> cx;
  ouro::byte_actor<R>::voice voice(model.actor, cx, seen, {});
  static_cast<void>(voice.next());
  CHECK_THROWS_AS(voice.next(), ouro::error);
  CHECK_THROWS_AS(voice.tell({99999}), ouro::error);
  CHECK_THROWS_AS(voice.tell({-1}), ouro::error);
  voice.tell({97});
  CHECK(voice.next().dims() == ouro::shape{1, 258});
}
