// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The trainer: its settings, what it may be given, and which parameters take part.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <mackey_glass/creature.hpp>

#include <ouro/backend/reference.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/train/trainer.hpp>
#include <ouro_test/problem.hpp>
#include <ouro_test/small_gridman.hpp>

using R = ouro::reference;
using network = ouro::gridman<R>;

namespace {
ouro::lesson<network> lesson(std::uint64_t draw) {
  return {ouro_test::any_patches(1, draw), {ouro_test::any_patches(1, draw + 1000), std::vector<char>(15, 1)}};
}

/// A system of nothing but a loss.
struct judged {
  using input_type = int;
  using target_type = int;
  struct {
    ouro::tensor<R> value;
    ouro::actor_loss<R> loss(ouro::context<R>&, ouro::impression<R> const&, int, int) const { return {value, 1}; }
  } actor;
};

/// A mouth whose loss is 0, at a point where it has no derivative.
struct numb : mackey_glass::mouth<R> {
  ouro::actor_loss<R> loss(ouro::context<R>& cx, ouro::impression<R> const& seen, std::vector<float> const& x,
                           std::vector<float> const&) const {
    return {ouro::square_root(ouro::scale(ouro::mean(ouro::square(predict(cx, seen, x))), 0)), 1};
  }
};
}  // namespace

TEST_CASE("settings that no update could use are refused before anything moves") {
  network m(ouro_test::small_gridman(16), ouro::seed{1});
  auto s = m.newborn(ouro::seed{2});
  auto refused = [&](ouro::adamw const& rule) {
    ouro::trainer<network> t(m, rule);
    CHECK_THROWS_AS(t.update(s, {lesson(1)}), ouro::error);
    CHECK(s.clock == 0);
  };
  double const nan = std::numeric_limits<double>::quiet_NaN();
  refused({.learning_rate = nan});
  refused({.learning_rate = -1e-3});
  refused({.beta1 = 1});
  refused({.beta2 = -0.1});
  refused({.epsilon = 0});
  refused({.learning_rate = 1e30});
  refused({.weight_decay = nan});
  refused({.weight_decay = 1e300});
  refused({.clip = -1});
  refused({.warmup = -1});
  refused({.total = -1});
  CHECK(ouro::adamw{.warmup = 1000, .total = 300}.rate(300) == 0);
}

TEST_CASE("a guess of more than twice the loss raises it, unless it is guarded against") {
  for (bool guarded : {false, true})
    for (double guess : {0.5, 1.0, 2.0, 5.0}) {
      INFO(guess << (guarded ? ", guarded" : ""));
      auto p = ouro::tensor<R>::from(std::vector<double>{guess}, {1}, ouro::dtype::f64);
      judged model{{ouro::tensor<R>::from(std::vector<double>{1.0}, {1}, ouro::dtype::f64)}};
      ouro::tape<R> tape;
      tape.watch(p);
      tape.watch(model.actor.value);
      ouro::context<R> cx{.training = true, .guarded = guarded};
      auto const l = ouro::loss(model, cx, ouro::impression<R>{{}, {}, {}, p}, 0, 0);
      tape.backward(l.total);
      using Catch::Matchers::WithinAbs;
      CHECK_THAT(l.total.item(), WithinAbs((guess - 1) * (guess - 1) + 1, 1e-12));
      CHECK_THAT(tape.gradient(p).item(), WithinAbs(2 * guess - 2, 1e-12));
      CHECK_THAT(tape.gradient(model.actor.value).item(), WithinAbs(guarded ? 2 : 4 - 2 * guess, 1e-12));
    }
}

TEST_CASE("moments are those of the model") {
  network m(ouro_test::small_gridman(16), ouro::seed{1});
  network other(ouro_test::small_gridman(8), ouro::seed{1});
  auto s = m.newborn(ouro::seed{2});
  auto o = other.newborn(ouro::seed{2});
  ouro::trainer<network> t(m, {.warmup = 0});
  ouro::trainer<network> u(other, {.warmup = 0});
  static_cast<void>(u.update(o, {lesson(1)}));
  t.memory() = u.memory();
  CHECK_THROWS_AS(t.update(s, {lesson(1)}), ouro::error);
  t.memory().resize(1);
  CHECK_THROWS_AS(t.update(s, {lesson(1)}), ouro::error);
  t.memory().clear();
  CHECK_FALSE(t.update(s, {lesson(1)}).refused);
}

TEST_CASE("whatever is not finite, no update makes weights of it") {
  network learned(ouro_test::small_gridman(8), ouro::seed{1});
  auto life = learned.newborn(ouro::seed{2});
  ouro::trainer<network> before(learned, {.learning_rate = 0.01, .warmup = 0});
  REQUIRE_FALSE(before.update(life, {lesson(1), lesson(2)}).refused);
  auto const good = ouro_test::all_of(learned, life, before);
  // f(another model, state and moments) makes something not finite: the update is refused or an error, and changes nothing.
  auto refused = [&](auto const& f) {
    auto model = learned;
    auto s = life;
    ouro::trainer<network> t(model, {.learning_rate = 0.01, .warmup = 0});
    t.memory() = before.memory();
    t.updates() = 1;
    f(model, s, t.memory());
    auto const now = ouro_test::all_of(model, s, t);
    bool come = false;
    std::string reason;
    try {
      auto const report = t.update(s, {lesson(3), lesson(4)});
      come = report.refused;
      reason = report.reason;
    } catch (ouro::error const& e) {
      come = true;
      reason = e.what();
      CHECK(e.code() == ouro::errc::numeric);
    }
    INFO(reason);
    if (come) CHECK_FALSE(reason.empty());
    if (come) CHECK(std::memcmp(now.data(), ouro_test::all_of(model, s, t).data(), now.size() * sizeof(double)) == 0);
    return come;
  };
  CHECK_FALSE(refused([](auto&, auto&, auto&) {}));
  auto spoil = [](ouro::tensor<R>& x) { R::fill(x.write(), std::numeric_limits<double>::quiet_NaN()); };
  std::size_t unread = 0;
  auto const count = ouro::fields(learned).size();
  for (std::size_t i = 0; i < count; i += 3) {
    std::string path;
    bool const come = refused([&](network& model, auto&, auto&) {
      auto const list = ouro::fields(model);
      path = list[i].path;
      spoil(*list[i].value);
    });
    // What an update does not read, as statistics, a newborn's anchors and what the Sensor would make of State, spoils no other.
    bool const read = !ouro_test::has(path, "running_") && !ouro_test::has(path, "sos") &&
                      !ouro_test::has(path, "sensor.context_mixer.state_output_norm") &&
                      path != "sensor.context_mixer.write_slot_emb";
    INFO(path);
    CHECK(come == read);
    unread += come ? 0 : 1;
  }
  CHECK(unread > 0);
  for (std::size_t i = 0; i < before.memory().size(); i += 5) {
    if (before.memory()[i].first.empty()) continue;
    CHECK(refused([&](auto&, auto&, auto& moments) { spoil(moments[i].first); }));
    CHECK(refused([&](auto&, auto&, auto& moments) { spoil(moments[i].second); }));
  }
  using state = ouro::state<R>;
  for (auto part : {&state::mem, &state::working, &state::oscillator, &state::hormone, &state::self})
    CHECK(refused([&](auto&, state& s, auto&) { spoil(s.*part); }));
  CHECK_FALSE(refused([&](auto&, state& s, auto&) { spoil(*s.thought); }));  // which the sleep that comes next replaces
  CHECK(ouro_test::all_of(learned, life, before) == good);
}

TEST_CASE("gradients whose squares no moment could hold are not for an update") {
  network m(ouro_test::small_gridman(16), ouro::seed{1});
  auto const list = ouro::fields(m);
  std::vector<ouro::moments<R>> moments;
  std::vector<ouro::tensor<R>> gradients;
  for (auto const& f : list)
    if (f.kind == ouro::field_kind::parameter) gradients.push_back(ouro::tensor<R>::zeros(f.value->dims()));
  auto keeps = [&](double clip, double norm) {
    return ouro::parameter_update<R>(list, moments, gradients, {.clip = clip}, 1e-3).keeps_finite(norm);
  };
  CHECK(keeps(0, 1e18));
  CHECK_FALSE(keeps(0, 1e20));
  CHECK(keeps(1, 1e20));
}

TEST_CASE("an update that is refused says where the first value is that is not finite") {
  auto reason = [](std::int64_t steps_before, auto&& poison) {
    network m(ouro_test::small_gridman(16), ouro::seed{1});
    auto s = m.newborn(ouro::seed{2});
    ouro::trainer<network> t(m, {.warmup = 0});
    for (std::int64_t i = 0; i < steps_before; ++i)
      CHECK(t.update(s, {lesson(static_cast<std::uint64_t>(i))}).reason.empty());
    poison(m, s);
    auto const r = t.update(s, {lesson(8), lesson(9)});
    CHECK(r.refused);
    return r.reason;
  };
  auto all = [](char const* path, double value) {
    return [path, value](network& m, ouro::state<R>&) {
      for (auto const& f : ouro::fields(m))
        if (f.path == path) R::fill(f.value->write(), value);
    };
  };
  double const nan = std::numeric_limits<double>::quiet_NaN();
  auto state = [nan](ouro::tensor<R> ouro::state<R>::*part) {
    return [nan, part](network&, ouro::state<R>& s) { R::fill((s.*part).write().slice(1, 0, 1), nan); };
  };
  CHECK(reason(0, all("brain.core.layers.0.attn.in_proj_weight", nan)) == "brain.core.layers.0.attn.in_proj_weight");
  CHECK(reason(1, state(&ouro::state<R>::mem)) == "state.mem");
  CHECK(reason(1, state(&ouro::state<R>::oscillator)) == "state.oscillator");
  auto const of_layer = "brain.core.layers.0.attn.out_proj.weight";
  CHECK(reason(0, all(of_layer, 3e38)) == "lesson 1, awake: layer 1 after sensor");
  CHECK(reason(2, all(of_layer, 3e38)) == "lesson 1, asleep before it: layer 1 after dream");
  CHECK(reason(1, all("actor.head.weight", 3e38)) == "lesson 1: the Actor's loss");

  using namespace mackey_glass;
  using creature = ouro::system<R, ear<R>, cell<R>, numb, calm<R>, dreamless<R>>;
  auto parts = born<R>(8);
  creature m{parts.sensor, parts.brain, {parts.actor}, {}, {}, parts.rhythm};
  auto s = newborn<R>(1, 8);
  CHECK(ouro::trainer<creature>(m, {.warmup = 0}).update(s, {{{0.5F}, {}}}).reason ==
        "the gradient of sensor.project.weight");
}

TEST_CASE("dropout is that of the configuration, unless another is said") {
  auto c = ouro_test::small_gridman(16);
  auto loss = [&](double own, std::optional<double> said) {
    c.dropout = own;
    network m(c, ouro::seed{1});
    auto s = m.newborn(ouro::seed{2});
    return ouro::trainer<network>(m, {.warmup = 0}, said).update(s, {lesson(1)}).loss;
  };
  CHECK(loss(0, {}) == loss(0.5, 0.0));
  CHECK(loss(0.5, {}) == loss(0, 0.5));
  CHECK(loss(0, {}) != loss(0.5, {}));
}

TEST_CASE("the anchor before a newborn's first patch takes part although that patch does not count") {
  network m(ouro_test::small_gridman(16), ouro::seed{1});
  auto gradient = [&](std::int64_t ignored) {
    auto l = lesson(1);
    for (std::int64_t i = 0; i < ignored; ++i) l.target.live[static_cast<std::size_t>(i)] = 0;
    ouro::tape<R> t;
    ouro::watch(t, ouro::fields(m));
    ouro::context<R> cx;
    cx.training = true;
    auto const step = ouro::wake(m, cx, m.newborn(ouro::seed{2}), l.input);
    t.backward(m.actor.loss(cx, step.seen, l.input, l.target).value);
    return t.gradient(m.actor.decompressor.sos_anchor);
  };
  CHECK(ouro::norm_of<R>({gradient(0)}) > 0);
  auto const idle = gradient(m.config().patch + 2);
  REQUIRE(idle);
  CHECK(ouro::norm_of<R>({idle}) == 0);
}

namespace {
struct pair {
  using backend = R;
  ouro::parameter<R> a, b;
  OURO_MODULE(pair, a, b);
};
struct nothing {
  using backend = R;
  OURO_MODULE(nothing);
};
}  // namespace

TEST_CASE("parameters that began as one tensor, and a model and its copy, learn apart") {
  auto const zero = ouro::tensor<R>::zeros({1});
  pair two{zero, zero};
  pair const teacher = two;
  ouro::adamw const rule{.learning_rate = 0.1, .weight_decay = 0, .clip = 0, .warmup = 0};
  std::vector<ouro::moments<R>> moments;
  for (int update = 0; update < 2; ++update) {
    auto const list = ouro::fields(two);
    ouro::gradient_list<R> g;
    {
      ouro::tape<R> t;
      ouro::watch(t, list);
      ouro::watch(t, list);
      t.backward(ouro::sum(3.0 * two.a.value() + teacher.a.value() - 5.0 * two.b.value()));
      CHECK(t.gradient(two.a).item() == 3);
      CHECK(t.gradient(two.b).item() == -5);
      g = ouro::gradients_of(t, list);
    }
    ouro::update_parameters(list, moments, g, rule, rule.rate(0));
  }
  CHECK(std::abs(two.a.item() + 0.2) < 1e-6);
  CHECK(std::abs(two.b.item() - 0.2) < 1e-6);
  CHECK(teacher.a.item() == 0);
}

TEST_CASE("a copy of a model speaks in one thread while the model learns in another") {
  network model(ouro_test::small_gridman(16), ouro::seed{1});
  auto const served = model;
  auto alone = served.newborn(ouro::seed{3});
  auto const expected = ouro::speak(served, alone, "hello", {.bytes = 24});
  std::string said;
  std::thread speaker([&] {
    auto life = served.newborn(ouro::seed{3});
    said = ouro::speak(served, life, "hello", {.bytes = 24});
  });
  auto state = model.newborn(ouro::seed{2});
  ouro::trainer<network> t(model, {.learning_rate = 0.01, .warmup = 0});
  for (std::uint64_t u = 0; u < 4; ++u) CHECK_FALSE(t.update(state, {lesson(u)}).refused);
  speaker.join();
  CHECK(said == expected);
}

TEST_CASE("a module may have no members, and new values keep what the optimiser is told") {
  nothing none;
  CHECK(ouro::fields(none).empty());
  pair two{ouro::tensor<R>::zeros({1}), {}};
  two.a.decay = 0, two.a.learning_rate = 0.5;
  two.a = two.a.value() + 1.0;
  CHECK(two.a.item() == 1);
  CHECK(two.a.decay == 0);
  CHECK(two.a.learning_rate == 0.5);
}

TEST_CASE("gradients that are no numbers, and settings of no use, do not move a parameter") {
  pair two{ouro::tensor<R>::zeros({1}), ouro::tensor<R>::zeros({1})};
  std::vector<ouro::moments<R>> moments;
  auto const nan = ouro::tensor<R>::full({1}, ouro::dtype::f32, std::nan(""));
  CHECK_THROWS_AS(ouro::update_parameters(ouro::fields(two), moments, {{nan, nan}, std::nan("")}, {}, 0.1),
                  ouro::error);
  CHECK_THROWS_AS(ouro::update_parameters(ouro::fields(two), moments, {{two.a, two.b}, 0}, {.beta1 = 2}, 0.1),
                  ouro::error);
  auto const one = ouro::tensor<R>::full({1}, ouro::dtype::f32, 1);
  auto refused = [&](std::vector<ouro::tensor<R>> const& gradients, double rate) {
    moments.clear();
    CHECK_THROWS_AS(ouro::update_parameters(ouro::fields(two), moments, {gradients, 1}, {}, rate), ouro::error);
  };
  refused({one, one}, std::nan(""));
  refused({one}, 0.1);
  refused({one, one, one}, 0.1);
  refused({one, ouro::tensor<R>::full({2}, ouro::dtype::f32, 1)}, 0.1);
  CHECK(two.a.item() == 0);
  CHECK(two.b.item() == 0);
}

TEST_CASE("a rhythm has steps awake, and a finite number of others") {
  network m(ouro_test::small_gridman(16), ouro::seed{1});
  auto s = m.newborn(ouro::seed{2});
  ouro::trainer<network> t(m, {.warmup = 0});
  for (ouro::rhythm const& broken :
       {ouro::rhythm{0, 0, 0}, ouro::rhythm{0, 1, 0}, ouro::rhythm{-1, 1, 0}, ouro::rhythm{-1, 3, 0},
        ouro::rhythm{1, 1, std::numeric_limits<double>::infinity()}}) {
    m.rhythm = broken;
    CHECK_THROWS_AS(t.update(s, {lesson(1)}), ouro::error);
    CHECK(s.clock == 0);
  }
}

TEST_CASE("a state of another network is refused by its rows") {
  network m(ouro_test::small_gridman(16), ouro::seed{1});
  auto config = ouro_test::small_gridman(16);
  config.state_rows += 1;
  auto s = network(config, ouro::seed{1}).newborn(ouro::seed{2});
  ouro::trainer<network> t(m, {.warmup = 0});
  try {
    t.update(s, {lesson(1)});
    FAIL_CHECK("accepted");
  } catch (ouro::error const& e) {
    CHECK(std::string(e.what()).find("of another network?") != std::string::npos);
  }
}

TEST_CASE("a parameter that is made of a view can be learned") {
  network m(ouro_test::small_gridman(16), ouro::seed{1});
  auto const before = m.actor.head.weight.value().values<float>();
  m.actor.head.weight = ouro::reshape(m.actor.head.weight.value().copy(), m.actor.head.weight.dims());
  auto s = m.newborn(ouro::seed{2});
  CHECK_FALSE(ouro::trainer<network>(m, {.warmup = 0}).update(s, {lesson(1)}).refused);
  CHECK(m.actor.head.weight.value().values<float>() != before);
}

TEST_CASE("a target says of every byte whether it counts") {
  network m(ouro_test::small_gridman(16), ouro::seed{1});
  auto s = m.newborn(ouro::seed{2});
  ouro::trainer<network> t(m, {.warmup = 0});
  auto l = lesson(1);
  l.target.live.pop_back();
  CHECK_THROWS_AS(t.update(s, {l}), ouro::error);
}
