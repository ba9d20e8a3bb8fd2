// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Laws of the whole system: purity, lanes, rhythm, exact continuation, refusal of what is not finite.
#include <catch2/catch_test_macros.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/life/life.hpp>
#include <ouro/train/trainer.hpp>
#include <ouro_test/problem.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/small_gridman.hpp>

using R = ouro::reference;
using network = ouro::gridman<R>;
using ouro_test::any_patches;
using ouro_test::has;
using ouro_test::relative_error;

namespace {

ouro::gridman_config small() { return ouro_test::small_gridman(16); }

ouro::lesson<network> lesson(std::uint64_t draw, char live = 1) {
  return {any_patches(1, draw), {any_patches(1, draw + 1000), std::vector<char>(15, live)}};
}
bool same(ouro::state<R> const& a, ouro::state<R> const& b) {
  auto equal = [](auto const& x, auto const& y) { return x.template values<double>() == y.template values<double>(); };
  return equal(a.mem, b.mem) && equal(a.working, b.working) && equal(a.oscillator, b.oscillator) &&
         equal(a.hormone, b.hormone) && equal(a.self, b.self) && a.thought.has_value() == b.thought.has_value() &&
         (!a.thought || equal(*a.thought, *b.thought)) && a.clock == b.clock && a.random == b.random;
}
bool same(network const& a, network const& b) {
  auto const x = ouro::fields(a);
  auto const y = ouro::fields(b);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (x[i].value->values<double>() != y[i].value->values<double>()) return false;
  return true;
}

}  // namespace

TEST_CASE("an Actor with its weights in bf16 predicts nearly the same, and cannot learn") {
  network const model(small(), ouro::seed{5});
  network narrow = model;
  narrow.actor.store_weights(ouro::dtype::bf16);
  auto const step = ouro::wake(model, model.newborn(ouro::seed{6}), any_patches(1, 3));
  ouro::byte_target const target{any_patches(1, 4), std::vector<char>(15, 1)};
  auto predicted = [&](network const& by) {
    ouro::context<R> cx;
    return by.actor.predict(cx, step.seen, any_patches(1, 3), target);
  };
  double const error = relative_error(predicted(narrow), predicted(model));
  CHECK(error < 2e-2);
  CHECK(error > 0);
  auto said = [&](network const& by) {
    auto life = model.newborn(ouro::seed{6});
    return ouro::speak(by, life, "hello", {.bytes = 10, .temperature = 0});
  };
  CHECK(said(narrow).size() == said(model).size());
  for (auto type : {ouro::dtype::i32, ouro::dtype::f64}) CHECK_THROWS_AS(narrow.actor.store_weights(type), ouro::error);
  CHECK(model.actor.head.weight.type() == ouro::dtype::f32);
  ouro::trainer<network> trainer(narrow, {.learning_rate = 1e-3});
  auto life = model.newborn(ouro::seed{6});
  CHECK_THROWS_AS(trainer.update(life, {lesson(1)}), ouro::error);
}

TEST_CASE("what a context keeps of Mem is what another would compute, and Mem after sleep is another") {
  auto c = small();
  c.brain_layers = 2;
  network const model(c, ouro::seed{5}, ouro::dtype::f64);
  auto kept = model.newborn(ouro::seed{6}, 2);
  auto fresh = kept;
  ouro::context<R> one;
  for (std::uint64_t step = 0; step < 7; ++step) {
    auto go = [&](ouro::state<R>& s, auto context) {
      while (model.rhythm.asleep(s.clock)) s = ouro::sleep(model, context(), std::move(s));
      s = ouro::wake(model, context(), std::move(s), any_patches(2, step)).state;
    };
    go(kept, [&]() -> ouro::context<R>& { return one; });
    ouro::context<R> other;
    go(fresh, [&]() -> ouro::context<R>& { return other = ouro::context<R>{}; });
    CHECK(relative_error(kept.working, fresh.working) < 1e-13);
    CHECK(relative_error(*kept.thought, *fresh.thought) < 1e-13);
  }
  CHECK(one.number == 4);  // newborn, and after three sleeps
}

TEST_CASE("a configuration is refused by its first broken rule") {
  auto broken = [](auto change) {
    auto c = small();
    change(c);
    CHECK_THROWS_AS(network(c), ouro::error);
  };
  broken([](auto& c) { c.heads = 3; });
  broken([](auto& c) { c.width = 0; });
  broken([](auto& c) { c.patch = 3; });
  broken([](auto& c) { c.dropout = 1; });
  broken([](auto& c) { c.memory_rows = std::numeric_limits<std::int64_t>::max(); });
  broken([](auto& c) { c.width = 18; });
  CHECK(ouro::config_from_text<ouro::gridman_config>(ouro::to_text(small())) == small());
  auto wider = small();
  wider.width = 32;
  wider.parallel_write = true;
  CHECK(ouro::changed(small(), R"({"width": 32, "parallel_write": true})") == wider);
  for (auto const* wrong : {R"({"widht": 32})", R"({"width": 30})", R"({"width": "32"})", "[32]", ""})
    CHECK_THROWS_AS(ouro::changed(small(), wrong), ouro::error);
  CHECK_THROWS_AS(ouro::config_from_text<ouro::gridman_config>(R"({"width": 32})"), ouro::error);
  auto const preset = ouro::presets::small();
  CHECK(preset.patch == 64);
  CHECK(preset.anchors == 4);
  CHECK(preset.memory_rows == 1024);
}

TEST_CASE("steps are pure, and the rhythm alternates") {
  network const m(small(), ouro::seed{1});
  auto const born = m.newborn(ouro::seed{2});
  auto const a = ouro::wake(m, born, any_patches(1, 5)).state;
  auto const b = ouro::wake(m, born, any_patches(1, 5)).state;
  CHECK(same(a, b));
  CHECK_FALSE(same(a, born));
  CHECK(same(ouro::sleep(m, a), ouro::sleep(m, b)));
  CHECK_FALSE(m.rhythm.asleep(0));
  CHECK_FALSE(m.rhythm.asleep(1));
  CHECK(m.rhythm.asleep(2));
  CHECK_FALSE(m.rhythm.asleep(3));
  auto by_hand = born;
  auto lived = born;
  for (std::uint64_t step = 0; step < 5; ++step) {
    while (m.rhythm.asleep(by_hand.clock)) by_hand = ouro::sleep(m, by_hand);
    by_hand = ouro::wake(m, by_hand, any_patches(1, step)).state;
    lived = ouro::live_on(m, lived, any_patches(1, step)).state;
  }
  CHECK(same(lived, by_hand));
  CHECK(lived.clock == 7);
}

TEST_CASE("a state that is none has no next one") {
  network const m(small(), ouro::seed{1});
  auto const x = any_patches(1, 5);
  ouro::state<R> nobody;
  CHECK_THROWS_AS(ouro::wake(m, ouro::state<R>{}, x), ouro::error);
  CHECK_THROWS_AS(ouro::sleep(m, ouro::state<R>{}), ouro::error);
  CHECK_THROWS_AS(ouro::speak(m, nobody, "Who?", {}), ouro::error);
}

TEST_CASE("components are refused by sizes that they cannot have") {
  ouro::genesis<R> g(ouro::seed{1});
  auto refused = [](auto&& make) { CHECK_FALSE(ouro_test::problem(ouro::errc::config, make).empty()); };
  for (std::int64_t heads : {0, 3, -1}) refused([&] { ouro::attention<R>(g, 16, heads); });
  for (std::int64_t patch : {0, 1, 3}) refused([&] { ouro::compressor<R>(g, 16, patch); });
  for (double noise : {-1.0, std::nan("")}) refused([&] { ouro::hippocampus<R>(g, 16, 2, noise); });
}

namespace {
/// A Brain whose results are changed on their way.
struct odd_brain {
  using backend = R;
  ouro::state_brain<R> inner;
  void (*change)(ouro::brain_result<R>&) = [](ouro::brain_result<R>&) {};
  OURO_MODULE(odd_brain, inner);
  ouro::brain_result<R> operator()(ouro::context<R>& cx, ouro::tensor<R> const& x, ouro::state_view<R> const& s,
                                   ouro::tensor<R> const& hormone) const {
    auto r = inner(cx, x, s, hormone);
    change(r);
    return r;
  }
  ouro::brain_result<R> dream(ouro::context<R>& cx, ouro::tensor<R> const& x, ouro::state_view<R> const& s,
                              ouro::tensor<R> const& hormone) const {
    auto r = inner.dream(cx, x, s, hormone);
    change(r);
    return r;
  }
};
}  // namespace

TEST_CASE("what a Brain makes of a state is one of its shape, or is refused by its name") {
  network const model(small(), ouro::seed{1});
  using odd = ouro::system<R, decltype(network::sensor), odd_brain, decltype(network::actor),
                           decltype(network::hypothalamus), decltype(network::hippocampus)>;
  odd strange{model.sensor, {model.brain}, model.actor, model.hypothalamus, model.hippocampus, model.rhythm};
  auto const x = any_patches(1, 5);
  auto const awake = ouro::wake(model, model.newborn(ouro::seed{2}), x).state;
  auto said = [&](auto&& change, bool asleep) -> std::string {
    strange.brain.change = change;
    try {
      if (asleep) static_cast<void>(ouro::sleep(strange, awake));
      else static_cast<void>(ouro::wake(strange, awake, x));
    } catch (ouro::error const& e) {
      return e.what();
    }
    return "accepted";
  };
  using result = ouro::brain_result<R>;
  CHECK(said([](result&) {}, false) == "accepted");
  CHECK(said([](result&) {}, true) == "accepted");
  CHECK(has(said([](result& r) { r.thought = ouro::mean(r.thought, 1); }, false), "[wake] a Brain's thought"));
  CHECK(has(said([](result& r) { r.thought = {}; }, false), "[wake] a Brain's thought"));
  CHECK(has(said(
                [](result& r) {
                  r.working = ouro::concat<R>({r.working, r.working}, 1);
                },
                false),
            "[wake] a Brain's working state must be of the shape"));
  for (bool asleep : {false, true})
    CHECK(has(said([](result& r) { r.self = {}; }, asleep), "a Brain's self must be of the shape"));
}

TEST_CASE("lanes are independent lives") {
  auto c = small();
  c.oscillator_noise = c.sleep_noise = 0;
  network const m(c, ouro::seed{1}, ouro::dtype::f64);
  auto const x = any_patches(3, 9);
  auto both = m.newborn(ouro::seed{2}, 3);
  both.mem = ouro_test::noise<R>(both.mem.dims());
  both.working = ouro_test::noise<R>(both.working.dims());
  auto lived = ouro::sleep(m, ouro::wake(m, both, x).state);
  for (std::int64_t lane = 0; lane < 3; ++lane) {
    auto pick = [&](auto const& t) { return ouro::slice(t, 0, lane, 1).copy(); };
    auto one = both;
    one.mem = pick(both.mem), one.working = pick(both.working), one.oscillator = pick(both.oscillator);
    one.hormone = pick(both.hormone), one.self = pick(both.self);
    ouro::patches own{1, 3, 5, {x.bytes.begin() + lane * 15, x.bytes.begin() + (lane + 1) * 15}};
    auto const alone = ouro::sleep(m, ouro::wake(m, one, own).state);
    CHECK(relative_error(pick(lived.mem), alone.mem) < 1e-12);
    CHECK(relative_error(pick(lived.working), alone.working) < 1e-12);
    CHECK(relative_error(pick(*lived.thought), *alone.thought) < 1e-12);
  }
}

TEST_CASE("the gradient through sleep and wake is right") {
  auto c = small();
  c.wake = c.bptt = 1;
  network m(c, ouro::seed{1}, ouro::dtype::f64);
  auto const life = m.newborn(ouro::seed{2});
  auto const l = lesson(3);
  auto loss_of = [&] {
    ouro::context<R> cx{.training = true, .dropout = 0.2};
    auto s = life;
    ouro::tensor<R> total;
    for (int i = 0; i < 2; ++i) {
      while (m.rhythm.asleep(s.clock)) s = ouro::sleep(m, cx, std::move(s));
      auto r = ouro::wake(m, cx, std::move(s), l.input);
      s = std::move(r.state);
      auto const step = ouro::loss(m, cx, r.seen, l.input, l.target).total;
      total = total.empty() ? step : total + step;
    }
    return total;
  };
  for (auto const* path :
       {"hippocampus.mem_gate.0.bias", "hypothalamus.network.3.bias", "brain.core.layers.0.norm1.bias",
        "actor.pos_embedding", "sensor.compressor.resonator.0.bias", "brain.core.self_encoder.norm.weight"}) {
    ouro::tensor<R>* p = nullptr;
    for (auto const& f : ouro::fields(m))
      if (f.path == path) p = f.value;
    REQUIRE(p != nullptr);
    std::vector<double> analytic;
    {
      ouro::tape<R> t;
      ouro::watch(t, ouro::fields(m));
      t.backward(loss_of());
      analytic = t.gradient(*p).values<double>();
    }
    auto const values = p->values<double>();
    auto const dims = p->dims();
    double worst = 0;
    double size = 0;
    for (double g : analytic) size = std::max(size, std::abs(g));
    for (std::size_t i = 0; i < values.size(); i += 1 + values.size() / 5) {
      auto at = [&](double h) {
        auto moved = values;
        moved[i] += h;
        *p = ouro::tensor<R>::from(moved, dims);
        return loss_of().item();
      };
      double const wide = (at(2e-4) - at(-2e-4)) / 4e-4;
      double const narrow = (at(1e-4) - at(-1e-4)) / 2e-4;
      worst = std::max(worst, std::abs((4 * narrow - wide) / 3 - analytic[i]));
    }
    *p = ouro::tensor<R>::from(values, dims);
    INFO(path);
    CHECK(worst < 1e-6 * size);
  }
}

TEST_CASE("nothing to learn changes no weight, and moves the state on") {
  network m(small(), ouro::seed{1});
  auto const before = m;
  auto s = m.newborn(ouro::seed{2});
  ouro::trainer<network> t(m, {.learning_rate = 0.1, .warmup = 0});
  auto const r = t.update(s, {lesson(1, 0), lesson(2, 0)});
  CHECK_FALSE(r.refused);
  CHECK(r.loss == 0);
  CHECK(r.live == 0);
  CHECK(s.clock == 2);
  auto const a = ouro::fields(m);
  auto const b = ouro::fields(before);
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].kind == ouro::field_kind::parameter) CHECK(a[i].value->values<float>() == b[i].value->values<float>());
}

TEST_CASE("what is not finite is refused, and everything is as before") {
  network m(small(), ouro::seed{1});
  auto s = m.newborn(ouro::seed{2});
  ouro::trainer<network> t(m, {.learning_rate = 0.01, .warmup = 0});
  static_cast<void>(t.update(s, {lesson(1), lesson(2)}));
  auto const network_before = m;
  auto const good = s;
  auto poisoned = s;
  R::fill(poisoned.mem.write().slice(1, 0, 1), std::numeric_limits<double>::quiet_NaN());
  CHECK(t.update(poisoned, {lesson(3), lesson(4)}).refused);
  CHECK(same(m, network_before));
  CHECK(poisoned.clock == good.clock);
  CHECK(t.updates() == 1);
  CHECK_FALSE(t.update(s, {lesson(3), lesson(4)}).refused);
}

TEST_CASE("a copied model is another model") {
  network m(small(), ouro::seed{1});
  network const twin = m;
  auto s = m.newborn(ouro::seed{2});
  ouro::trainer<network> t(m, {.learning_rate = 0.01, .warmup = 0});
  static_cast<void>(t.update(s, {lesson(1), lesson(2)}));
  CHECK_FALSE(same(m, twin));
  CHECK(same(network(small(), ouro::seed{1}), twin));
}

TEST_CASE("a life goes on exactly where it was") {
  auto const folder = std::filesystem::temp_directory_path() / ("ouro-life-" + std::to_string(::getpid()));
  std::filesystem::remove_all(folder);
  auto train = [](ouro::life<R>& l, std::uint64_t from, std::uint64_t to) {
    ouro::trainer<network> t(l.model, {.learning_rate = 0.01, .warmup = 2}, 0.1);
    t.memory() = l.memory;
    t.updates() = l.progress.updates;
    for (auto u = from; u < to; ++u) static_cast<void>(t.update(l.state, {lesson(2 * u), lesson(2 * u + 1)}));
    l.memory = t.memory();
    l.progress.updates = t.updates();
    l.commit();
  };
  std::filesystem::create_directory(folder);
  auto const a = (folder / "a").string();
  auto const b = (folder / "b").string();
  {
    auto whole = ouro::life<R>::create(a, small(), ouro::seed{1}, ouro::seed{2});
    train(whole, 0, 6);
    CHECK_THROWS_AS(ouro::life<R>::open(a), ouro::error);  // in use
    CHECK_THROWS_AS(ouro::life<R>::create(a, small(), ouro::seed{1}, ouro::seed{2}), ouro::error);
  }
  static_cast<void>(ouro::life<R>::create(b, small(), ouro::seed{1}, ouro::seed{2}));
  for (std::uint64_t u = 0; u < 6; ++u) {
    auto part = ouro::life<R>::open(b);
    train(part, u, u + 1);
  }
  {
    auto x = ouro::life<R>::open(a);
    auto y = ouro::life<R>::open(b);
    CHECK(same(x.model, y.model));
    CHECK(same(x.state, y.state));
    for (std::size_t i = 0; i < x.memory.size(); ++i) {
      CHECK(x.memory[i].steps == y.memory[i].steps);
      if (x.memory[i].first) CHECK(x.memory[i].second.values<float>() == y.memory[i].second.values<float>());
    }
    // The same seed says the same bytes, and speaking moves the life on.
    auto s = x.state;
    auto const said = ouro::speak(x.model, s, "hello there", {.bytes = 12});
    CHECK(ouro::speak(y.model, y.state, "hello there", {.bytes = 12}) == said);
    CHECK(same(s, y.state));
    CHECK(s.clock > x.state.clock);
  }
  // Every flipped byte of the newest snapshot is noticed, and the generation before it lives.
  auto const newest = b + "/snapshot-7-" + ouro::read_file(b + "/CURRENT").substr(2, 16) + ".safetensors";
  REQUIRE(std::filesystem::exists(newest));
  auto const good = ouro::read_file(newest);
  for (std::size_t i = 0; i < good.size(); i += 997) {
    auto bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    std::ofstream(newest, std::ios::binary) << bad;
    CHECK(ouro::life<R>::open(b).generation() == 6);
  }
  ouro::write_file_durably(newest, good);
  CHECK(ouro::life<R>::open(b).generation() == 7);
  // So is one that was written whole and is not a life; who goes on with the generation before has the folder alone.
  {
    auto const current = ouro::read_file(b + "/CURRENT");
    ouro::safetensors_reader const in("newest", good);
    ouro::safetensors_writer out;
    for (auto const& [key, value] : in.metadata()) out.set(key, value);
    auto const bad = out.str();
    std::ofstream(newest, std::ios::binary) << bad;
    std::ofstream(b + "/CURRENT", std::ios::binary)
        << "7 " << ouro::detail::hash_of(bad) << current.substr(current.find('\n'));
    auto const held = ouro::life<R>::open(b);
    CHECK(held.generation() == 6);
    CHECK_THROWS_AS(ouro::life<R>::open(b), ouro::error);
    std::ofstream(newest, std::ios::binary) << good;
    std::ofstream(b + "/CURRENT", std::ios::binary) << current;
  }
  CHECK(ouro::life<R>::open(b).generation() == 7);
  // Another architecture is refused with every difference.
  {
    ouro::safetensors_writer w;
    ouro::store_module(w, network(small()));
    auto c = small();
    c.width = 32;
    network other(c);
    try {
      ouro::load_module(ouro::safetensors_reader("w", w.str()), other);
      FAIL("accepted");
    } catch (ouro::error const& e) {
      CHECK(std::string(e.what()).find("actor.head.weight: expected (258,32), stored (258,16)") != std::string::npos);
    }
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("what is computed again is the same") {
  // With dropout and noise, through wake and sleep: masks and statistics are those of the first run. Gradients are added
  // up in another order, so the last bits may differ.
  auto learned = [](std::int64_t room) {
    network m(small(), ouro::seed{1}, ouro::dtype::f64);
    auto life = m.newborn(ouro::seed{2});
    ouro::trainer<network> t(m, {.learning_rate = 1e-2, .warmup = 0}, 0.3, room);
    for (std::uint64_t u = 0; u < 3; ++u) CHECK_FALSE(t.update(life, {lesson(2 * u), lesson(2 * u + 1)}).refused);
    return std::pair(std::move(m), life);
  };
  auto const all = learned(ouro::context<R>::no_bound);
  for (std::int64_t room : {0, 20000}) {
    auto const again = learned(room);
    auto const x = ouro::fields(all.first);
    auto const y = ouro::fields(again.first);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(relative_error(*y[i].value, *x[i].value) < 1e-7);
    CHECK(relative_error(again.second.mem, all.second.mem) < 1e-7);
    CHECK(again.second.random == all.second.random);
  }
}
