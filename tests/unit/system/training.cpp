// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The trainer: its settings, what it may be given, and which parameters take part.
#include <catch2/catch_test_macros.hpp>

#include <limits>
#include <optional>

#include <ouro/backend/reference.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/train/trainer.hpp>
#include <ouro_test/small_gridman.hpp>

using R = ouro::reference;
using network = ouro::gridman<R>;

namespace {
ouro::lesson<network> lesson(std::uint64_t draw) {
  return {ouro_test::any_patches(1, draw), {ouro_test::any_patches(1, draw + 1000), std::vector<char>(15, 1)}};
}
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
  refused({.weight_decay = nan});
  refused({.clip = -1});
  refused({.warmup = -1});
  refused({.total = -1});
  CHECK(ouro::adamw{.warmup = 1000, .total = 300}.rate(300) == 0);
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
