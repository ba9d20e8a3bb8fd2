// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Lives of systems that are no Gridman: one that hears numbers, kept by what its program says it is, and one that reads and
// says bytes with a Brain of its own, kept by its configuration.
#include <catch2/catch_test_macros.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include <ouro/generate/speak.hpp>
#include <ouro_test/folder.hpp>
#include <ouro_test/problem.hpp>

#include "creature.hpp"

namespace {

namespace fs = std::filesystem;
using ouro_test::all_of;
using ouro_test::creature;
using ouro_test::creature_life;
using ouro_test::folder;
using ouro_test::has;
using ouro_test::learn;
using ouro_test::opened;
using ouro_test::problem;
using R = ouro::reference;

static_assert(!ouro::Configured<creature> && !ouro::Speaking<creature>);

/// A Brain of one row that thinks of a patch at a time, between the bytes of Gridman's Sensor and Actor.
struct talker_config {
  std::int64_t width = 8;
  std::int64_t patch = 5;
  std::int64_t wake = 3;
  double noise = 0;
  ouro::short_text<15> temper = "calm";
  bool awake = true;
  OURO_MODULE(talker_config, width, patch, wake, noise, temper, awake);
  void validate() const {
    ouro::require(width % 4 == 0, ouro::errc::config, "talker", "width must be a multiple of 4");
  }
};
struct talker : ouro::system<R, ouro::byte_sensor<R, ouro::attention<R>>, mackey_glass::cell<R>, ouro::byte_actor<R>,
                             mackey_glass::calm<R>, mackey_glass::dreamless<R>> {
  using config_type = talker_config;
  explicit talker(config_type const& c, ouro::seed s = {}, ouro::dtype type = ouro::dtype::f32)
      : talker(c, ouro::genesis<R>(s, type)) {}
  talker(config_type const& c, ouro::genesis<R> g)
      : system{{g, c.width, 2, 1, c.patch, 1},
               {{g, 2 * c.width, c.width}, {g, 2 * c.width, c.width}},
               {g, c.width, 2, 1, c.patch, 1, false},
               {},
               {},
               {c.wake, c.awake ? 0 : 1, c.noise}},
        config_(c),
        type_(g.type) {}
  [[nodiscard]] config_type const& config() const { return config_; }
  [[nodiscard]] ouro::dtype type() const { return type_; }
  [[nodiscard]] ouro::state<R> newborn(ouro::seed s) const {
    return ouro::newborn<R>({.width = config_.width}, s, 1, type_);
  }

 private:
  config_type config_;
  ouro::dtype type_;
};
using talker_life = ouro::basic_life<talker>;
static_assert(ouro::Configured<talker> && ouro::Speaking<talker>);
static_assert(ouro::Configured<ouro::gridman<R>> && ouro::Speaking<ouro::gridman<R>>);

}  // namespace

TEST_CASE("life: a creature of one's own goes on where it was, bit for bit") {
  folder const f;
  std::vector<double> uninterrupted;
  {
    auto whole = opened(f.at("whole"));
    CHECK(whole.state.lanes() == 2);
    learn(whole, 0, 4);
    uninterrupted = all_of(whole);
  }
  {
    auto part = opened(f.at("part"));
    learn(part, 0, 1);
  }
  {
    auto part = opened(f.at("part"));
    CHECK(part.progress.updates == 1);
    CHECK(part.state.clock == 2);
    CHECK(has(problem(ouro::errc::storage, [&] { opened(f.at("part")); }), "in use"));
    learn(part, 1, 4);
  }
  auto part = opened(f.at("part"));
  CHECK(all_of(part) == uninterrupted);
  part.state = mackey_glass::newborn<R>(2, 8);  // is not committed
  part.fork(f.at("twin"));
  auto twin = opened(f.at("twin"));
  CHECK(all_of(twin) == uninterrupted);
  CHECK(twin.generation() == 3);
  CHECK(has(problem(ouro::errc::storage, [&] { part.fork(f.at("twin")); }), "exists already"));
  CHECK(has(problem(ouro::errc::storage, [&] { part.fork(f.at("nowhere/twin")); }), "nowhere"));
  for (auto const* inside : {"part/twin", "part/../part/twin/"})
    CHECK(has(problem(ouro::errc::argument, [&] { part.fork(f.at(inside)); }), "is inside the life"));
  CHECK_FALSE(fs::exists(f.at("part/twin")));
  CHECK(part.generation() == 3);
  CHECK(part.path() == f.at("part"));
}

TEST_CASE("life: a creature is opened as what it is, and kept as that") {
  folder const f;
  auto const path = f.at("small");
  std::vector<double> before;
  {
    auto l = opened(path);
    learn(l, 0, 1);
    before = all_of(l);
    l.state = mackey_glass::newborn<R>(2, 12);
    CHECK(has(problem(ouro::errc::argument, [&] { l.commit(); }),
              "state.mem: expected F32 (2,1,8), stored F32 (2,1,12)"));
    l.model = mackey_glass::born<R>(12);
    CHECK(has(problem(ouro::errc::argument, [&] { l.commit(); }), "not of the network that this life began with"));
    CHECK(l.generation() == 2);
  }
  CHECK(has(problem(ouro::errc::storage, [&] { opened(path, 12); }),
            "brain.candidate.weight: expected (12,24), stored (8,16)"));
  CHECK(has(problem(ouro::errc::storage,
                    [&] {
                      creature_life::open(path, mackey_glass::born<R>(8),
                                          ouro::newborn<R>({.width = 8, .state_rows = 2, .hormone = 1}, {}));
                    }),
            "state.working: expected F32 (2,2,8), stored F32 (2,1,8)"));
  CHECK(has(problem(ouro::errc::config, [&] { ouro::life<R>::open(path); }), "without a configuration"));
  CHECK(has(problem(ouro::errc::config, [&] { talker_life::open(path); }), "without a configuration"));
  CHECK(has(problem(ouro::errc::config, [&] { talker_life::open(path, talker({}), talker({}).newborn({})); }),
            "another configuration than this network: none"));
  // A rhythm is the program's, not the life's.
  auto sleeper = mackey_glass::born<R>(8);
  sleeper.rhythm.sleep = 1;
  CHECK(creature_life::open(path, sleeper, mackey_glass::newborn<R>(1, 8)).model.rhythm.sleep == 1);
  auto l = opened(path);
  CHECK(all_of(l) == before);
  CHECK(l.passed_over().empty());

  ouro::state<R> headless;
  CHECK(
      has(problem(ouro::errc::argument, [&] { creature_life::create(f.at("x"), mackey_glass::born<R>(8), headless); }),
          "must have its mem"));
  auto ill = mackey_glass::newborn<R>(1, 8);
  ill.self = ouro::tensor<R>::full({1, 1, 8}, ouro::dtype::f32, INFINITY);
  CHECK(has(problem(ouro::errc::numeric, [&] { creature_life::create(f.at("x"), mackey_glass::born<R>(8), ill); }),
            "state.self is not finite"));
  CHECK_FALSE(fs::exists(f.at("x")));
}

TEST_CASE("life: a creature with a configuration is opened by its path, and speaks") {
  folder const f;
  auto const path = f.at("talker");
  talker_config config;
  config.patch = 6, config.temper = "hasty", config.noise = 0.125;
  ouro::speech_options const options{.bytes = 9, .temperature = 1, .stops_at_end = false};
  std::string said;
  std::vector<double> before;
  {
    auto l = talker_life::open_or_create(path, config, ouro::seed{1}, ouro::seed{2});
    auto t = l.resume({.learning_rate = 0.01, .warmup = 0});
    ouro::patches const bytes{1, 1, 6, {72, 101, 108, 108, 111, 33}};
    REQUIRE_FALSE(t.update(l.state, {{bytes, {bytes, std::vector<char>(6, 1)}}}).refused);
    l.commit(t);
    before = all_of(l);
    said = ouro::speak(l.model, l.state, "Who are you?", options);
    CHECK_FALSE(said.empty());
    CHECK(l.state.clock == 1 + 2 + 2);  // the update, the prompt, nine bytes
    l.model.rhythm.wake = 7;
    CHECK(has(problem(ouro::errc::argument, [&] { l.commit(); }), "rhythm"));
  }
  CHECK(has(
      problem(ouro::errc::config, [&] { talker_life::open(path, talker({}), talker({}).newborn({})); }),
      R"(another configuration than this network: {"width":8,"patch":6,"wake":3,"noise":0.125,"temper":"hasty","awake":true})"));
  CHECK_FALSE(problem(ouro::errc::storage, [&] { ouro::life<R>::open(path); }).empty());
  config.width = 6;
  CHECK_FALSE(
      problem(ouro::errc::config, [&] { ouro::config_from_text<talker_config>(ouro::to_text(config)); }).empty());
  CHECK_FALSE(problem(ouro::errc::storage, [&] { ouro::config_from_text<talker_config>(R"({"width":8})"); }).empty());
  CHECK(has(problem(ouro::errc::config, [&] { talker_life::open_or_create(path, {}, ouro::seed{3}, ouro::seed{4}); }),
            "another configuration"));
  auto l = talker_life::open(path);
  CHECK(l.model.config().temper.view() == "hasty");
  CHECK(all_of(l) == before);
  CHECK(ouro::speak(l.model, l.state, "Who are you?", options) == said);
}
