// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Cross-attention in both its forms: keys that are projected, and keys that have absorbed the projections of others.
#include <catch2/catch_test_macros.hpp>

#include <array>

#include <ouro/autodiff/tape.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/nn/mixers/attention.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/square.hpp>
#include <ouro/train/adamw.hpp>
#include <ouro_test/random.hpp>

using ouro_test::noise;
using R = ouro::reference;
using T = ouro::tensor<R>;

namespace {

/// What `look(cx, from, to)` says, and the gradients of the sum of its squares towards from, to and the fields of a.
template <class F>
std::vector<T> answer(ouro::attention<R>& a, T const& x, T const& seen, F const& look) {
  ouro::context<R> cx;
  ouro::tape<R> tape;
  auto const list = ouro::fields(a);
  ouro::watch(tape, list);
  T const from = x.copy();
  T const to = seen.copy();
  tape.watch(from);
  tape.watch(to);
  auto const y = look(cx, from, to);
  tape.backward(ouro::sum(ouro::square(y)));
  std::vector<T> all{y.detach(), tape.gradient(from), tape.gradient(to)};
  for (auto const& f : list) all.push_back(tape.gradient(*f.value));
  return all;
}

void check_same(std::vector<T> const& found, std::vector<T> const& expected, double least) {
  REQUIRE(found.size() == 7);
  REQUIRE(expected.size() == 7);
  CHECK(ouro_test::relative_error(found[0], expected[0]) < 1e-13);
  for (std::size_t i = 1; i < found.size(); ++i) CHECK(ouro_test::relative_error(found[i], expected[i], least) < 1e-12);
}

}  // namespace

TEST_CASE("attention: rows that absorbed the projections answer as the others do, with the same gradients") {
  for (auto const& [heads, lanes, rows, keys] :
       {std::array<std::int64_t, 4>{1, 1, 1, 1}, {2, 3, 5, 2}, {4, 2, 3, 1}, {3, 1, 7, 4}}) {
    std::int64_t const width = 12;
    ouro::genesis<R> g(ouro::seed{3}, ouro::dtype::f64);
    ouro::attention<R> a(g, width, heads);
    for (auto const& f : ouro::fields(a)) *f.value = *f.value + ouro::scale(noise<R>(f.value->dims()), 0.2);
    auto const x = noise<R>({lanes, rows, width});
    auto const seen = noise<R>({lanes, keys, width});

    auto const absorbed = [&](auto& cx, T const& from, T const& to) {
      return a.cross(cx, from, a.absorb(cx, a.project(cx, to)));
    };
    auto const projected = [&](auto& cx, T const& from, T const& to) { return a.cross(cx, from, a.project(cx, to)); };
    check_same(answer(a, x, seen, absorbed), answer(a, x, seen, projected), 1.0);  // with one key some vanish
  }
}

TEST_CASE("attention: groups that are projected once answer as their windows do, with the same gradients") {
  std::int64_t const lanes = 2, count = 3, keys = 2, width = 6;
  ouro::genesis<R> g(ouro::seed{4}, ouro::dtype::f64);
  ouro::attention<R> a(g, width, 2);
  auto const x = noise<R>({lanes * count, 5, width});
  auto const groups = noise<R>({lanes, count + 1, keys, width});
  auto const plain = ouro::windows(groups);
  REQUIRE(plain.dims() == ouro::shape{lanes * count, 2 * keys, width});
  auto const first = groups.values<double>();
  auto const seen = plain.values<double>();
  for (std::int64_t lane = 0; lane < lanes; ++lane)
    for (std::int64_t s = 0; s < count; ++s)
      for (std::int64_t i = 0; i < 2 * keys * width; ++i)
        CHECK(seen[static_cast<std::size_t>((lane * count + s) * 2 * keys * width + i)] ==
              first[static_cast<std::size_t>((lane * (count + 1) + s) * keys * width + i)]);

  auto const grouped = [&](auto& cx, T const& from, T const& to) {
    return a.cross(cx, from, a.absorb(cx, a.project(cx, to)));
  };
  auto const windowed = [&](auto& cx, T const& from, T const& to) { return grouped(cx, from, ouro::windows(to)); };
  check_same(answer(a, x, groups, grouped), answer(a, x, groups, windowed), 1e-300);
}

TEST_CASE("attention: absorbed rows drop weights while training, and only then") {
  ouro::genesis<R> g(ouro::seed{3}, ouro::dtype::f64);
  ouro::attention<R> const a(g, 8, 2);
  auto const x = noise<R>({1, 4, 8});
  auto y = [&](bool training, double rate) {
    ouro::context<R> cx{.training = training, .dropout = rate};
    return a.cross(cx, x, a.absorb(cx, a.project(cx, x))).values<double>();
  };
  CHECK(y(true, 0.5) != y(false, 0.5));
  CHECK(y(true, 0.0) == y(false, 0.5));
}
