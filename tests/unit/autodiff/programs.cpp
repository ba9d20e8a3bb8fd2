// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Programs drawn at random: their gradients against differences, and those of every backend against the reference's.
#include <algorithm>
#include <cmath>
#include <string>

#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/random_program.hpp>

using R = ouro::reference;

namespace {

/// The leaves of program `key`: the first is watched, and most of the others.
template <class B>
struct leaves {
  std::vector<ouro::tensor<B>> values;
  std::vector<bool> watched;

  leaves(std::uint64_t key, ouro::dtype type) {
    ouro_test::dice d(~key);
    for (auto const& dims : ouro_test::random_program<R>::leaf_shapes()) {
      auto const x = ouro::scale(ouro::normal<R>(dims, ouro::dtype::f32, {d.key(), 6}), 0.6);
      values.push_back(ouro::tensor<B>::from(x.values<double>(), dims, type));
      watched.push_back(watched.empty() || !d.chance(20));
    }
  }
};

/// The gradient of each leaf, empty where it has none.
template <class B>
std::vector<std::vector<double>> gradients_of(std::uint64_t key, ouro::dtype type) {
  leaves<B> const in(key, type);
  ouro::tape<B> t;
  for (std::size_t i = 0; i < in.values.size(); ++i)
    if (in.watched[i]) t.watch(in.values[i]);
  ouro_test::random_program<B> program(key, in.values);
  t.backward(program.run(&t));
  std::vector<std::vector<double>> all;
  for (std::size_t i = 0; i < in.values.size(); ++i) {
    auto const g = in.watched[i] ? t.gradient(in.values[i]) : ouro::tensor<B>();
    all.push_back(g ? g.template values<double>() : std::vector<double>{});
  }
  return all;
}

template <class B>
double value_of(std::uint64_t key, std::vector<ouro::tensor<B>> const& values) {
  return ouro_test::random_program<B>(key, values).run(nullptr).item();
}

/// The program's slope along `direction` from leaf i, by differences of the step that fits best what is expected.
double slope_error(std::uint64_t key, leaves<R> const& in, std::size_t i, std::vector<double> const& direction,
                   double expected) {
  auto const values = in.values[i].values<double>();
  auto at = [&](double h) {
    auto moved = values;
    for (std::size_t j = 0; j < moved.size(); ++j) moved[j] += h * direction[j];
    auto list = in.values;
    list[i] = ouro::tensor<R>::from(moved, in.values[i].dims());
    return value_of<R>(key, list);
  };
  double best = INFINITY;
  for (double h : {1e-2, 1e-3, 1e-4, 1e-5, 1e-6}) {
    double const wide = (at(h) - at(-h)) / (2 * h);
    double const narrow = (at(h / 2) - at(-h / 2)) / h;
    best = std::min(best, std::abs((4 * narrow - wide) / 3 - expected));
  }
  return best;
}

}  // namespace

TEST_CASE("random programs: gradients are those that differences give") {
  for (std::uint64_t key = 0; key < ouro_test::how_many("OURO_PROGRAMS", 300); ++key) {
    INFO("program " << key);
    leaves<R> const in(key, ouro::dtype::f64);
    auto const gradients = gradients_of<R>(key, ouro::dtype::f64);
    ouro_test::dice d(key + 1000000);
    for (std::size_t i = 0; i < in.values.size(); ++i) {
      auto const& g = gradients[i];
      if (!in.watched[i]) continue;
      auto const u = ouro::normal<R>(in.values[i].dims(), ouro::dtype::f64, {d.key(), 7}).values<double>();
      double expected = 0;
      for (std::size_t j = 0; j < g.size(); ++j) expected += g[j] * u[j];
      INFO("leaf " << i << ", slope " << expected);
      CHECK(slope_error(key, in, i, u, expected) < 1e-6 * std::max(1.0, std::abs(expected)));
    }
  }
}

TEMPLATE_LIST_TEST_CASE("random programs: backends agree with the reference", "", ouro_test::accelerated) {
  using B = typename TestType::backend;
  TestType::need();
  bool constexpr exact = TestType::exact;
  for (std::uint64_t key = 0; key < ouro_test::how_many("OURO_PROGRAMS", 100); ++key) {
    INFO("program " << key << " on " << TestType::name());
    auto const value = value_of<B>(key, leaves<B>(key, TestType::type).values);
    auto const right = value_of<R>(key, leaves<R>(key, ouro::dtype::f64).values);
    CHECK(ouro_test::relative_error({value}, {right}, 1.0) < (exact ? 1e-10 : 1e-4));
    auto const want = gradients_of<R>(key, ouro::dtype::f64);
    auto const got = gradients_of<B>(key, TestType::type);
    for (std::size_t i = 0; i < want.size(); ++i) {
      INFO("leaf " << i);
      CHECK(ouro_test::relative_error(got[i], want[i], 1.0) < (exact ? 1e-9 : 1e-3));
    }
  }
}
