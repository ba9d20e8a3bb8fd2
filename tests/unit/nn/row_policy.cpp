// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// How recurrent mixers take the segments: parallel Write rows and borders, against the same done by hand with carries.
#include <catch2/catch_test_macros.hpp>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/nn/mixers/mamba2.hpp>
#include <ouro/nn/mixers/rwkv7.hpp>
#include <ouro_test/random.hpp>

using ouro::dtype;
using ouro::row_policy;
using ouro_test::noise;
using ouro_test::relative_error;

namespace {

template <class Mixer>
Mixer moved(row_policy policy, dtype type) {
  using B = typename Mixer::backend;
  ouro::genesis<B> g(ouro::seed{3}, type);
  Mixer m(g, ouro::mixer_place{12, 2, 0, 3, {}, policy});
  std::uint64_t i = 0;
  for (auto const& f : ouro::fields(m))
    *f.value = *f.value + ouro::scale(ouro::normal<B>(f.value->dims(), type, {9, i++}), 0.2);
  return m;
}

template <class B>
ouro::tensor<B> rows(ouro::tensor<B> const& x, std::int64_t from, std::int64_t count) {
  return ouro::slice(x, 1, from, count);
}

/// Token shift or convolution of a carry, forgotten.
template <class Carry>
void forget(Carry& c) {
  auto& [before, state] = c;
  if (!before.empty()) before = std::remove_cvref_t<decltype(before)>::zeros(before.dims(), before.type());
}

template <class Mixer>
void check_policy(row_policy policy, ouro::segments s, dtype type) {
  using B = typename Mixer::backend;
  INFO("parallel " << policy.parallel_write << ", resets " << policy.reset_read << policy.reset_input
                   << policy.reset_write << ", two-way " << policy.two_way_prefix << ", rows " << s.mem << " " << s.read
                   << " " << s.input << " " << s.write);
  double const near = type == dtype::f64 ? 1e-12 : 1e-5;  // the same sums in another order
  auto const m = moved<Mixer>(policy, type);
  auto const x = noise<B>({2, s.total(), 12}, type);
  ouro::context<B> cx;
  typename Mixer::carry c;
  auto const y = m.forward(cx, x, s, c);

  auto const plain = moved<Mixer>({}, type);
  typename Mixer::carry hand;
  std::vector<ouro::tensor<B>> parts;
  std::int64_t at = 0;
  auto run = [&](std::int64_t count, bool reset) {
    if (count == 0) return;
    if (reset) forget(hand);
    parts.push_back(plain.forward(cx, rows(x, at, count), {0, 0, count, 0, 0}, hand));
    at += count;
  };
  run(s.mem, false), run(s.read, policy.reset_read), run(s.input, policy.reset_input);
  if (!policy.parallel_write) {
    run(s.write, policy.reset_write);
  } else {
    for (std::int64_t i = 0; i < s.write; ++i) {
      auto own = hand;
      if (policy.reset_write) forget(own);
      parts.push_back(plain.step(cx, rows(x, at++, 1), own));
    }
  }
  auto by_hand = ouro::concat(parts, 1);
  if (std::int64_t const prefix = s.mem + s.read; policy.two_way_prefix && prefix > 0) {
    // From the last row to the first, one by one.
    typename Mixer::carry behind;
    std::vector<ouro::tensor<B>> heard(static_cast<std::size_t>(prefix));
    for (std::int64_t i = prefix - 1; i >= 0; --i) {
      if (policy.reset_read && s.read > 0 && i == s.mem - 1) forget(behind);
      heard[static_cast<std::size_t>(i)] = rows(by_hand, i, 1) + plain.step(cx, rows(x, i, 1), behind);
    }
    if (prefix < s.total()) heard.push_back(rows(by_hand, prefix, s.total() - prefix));
    by_hand = ouro::concat(heard, 1);
  }
  CHECK(relative_error(y, by_hand) < near);
  auto const& [before, state] = c;
  auto const& [before_by_hand, state_by_hand] = hand;
  CHECK(relative_error(before, before_by_hand) < near);
  CHECK(relative_error(state, state_by_hand) < near);
  for (s.skip = 1; s.skip < s.total(); s.skip += 2) {
    typename Mixer::carry d;
    CHECK(relative_error(m.forward(cx, x, s, d), rows(y, s.skip, s.total() - s.skip)) < near);
  }
}

template <class Mixer>
void policies(dtype type) {
  for (int bits = 0; bits < 32; ++bits)
    for (ouro::segments s : {ouro::segments{3, 2, 4, 3}, {1, 1, 1, 1}, {0, 3, 0, 2}, {2, 0, 7, 2}, {6, 5, 0, 0}})
      check_policy<Mixer>({(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0}, s,
                          type);
}

template <class Mixer>
void gradients(row_policy policy) {
  using B = typename Mixer::backend;
  auto const m = moved<Mixer>(policy, dtype::f64);
  ouro::segments const s{2, 1, 3, 2, 1};
  CHECK(ouro::gradient_error<B>(
            {noise<B>({2, s.total(), 12})},
            [&](auto const& v) {
              ouro::context<B> cx;
              typename Mixer::carry c;
              auto const y = m.forward(cx, v[0], s, c);
              auto const& [before, state] = c;
              auto weigh = [](auto const& t) {
                return ouro::reshape(ouro::sum(t * ouro::normal<B>(t.dims(), dtype::f64, {5, 1})), {1});
              };
              return weigh(y) + weigh(before) + weigh(state);
            },
            1e-4) < 1e-6);
}

}  // namespace

TEST_CASE("row policies: as by hand on the reference") {
  policies<ouro::rwkv7<ouro::reference>>(dtype::f64);
  policies<ouro::mamba2<ouro::reference>>(dtype::f64);
}

TEST_CASE("row policies: gradients by differences") {
  for (row_policy p : {row_policy{.parallel_write = true},
                       {.reset_read = true, .reset_input = true},
                       {.parallel_write = true, .reset_input = true, .reset_write = true},
                       {.two_way_prefix = true}}) {
    gradients<ouro::rwkv7<ouro::reference>>(p);
    gradients<ouro::mamba2<ouro::reference>>(p);
  }
}

TEST_CASE("row policies: parallel Write rows do not see each other, and need a row before them") {
  using R = ouro::reference;
  auto const m = moved<ouro::rwkv7<R>>({.parallel_write = true}, dtype::f64);
  auto const x = noise<R>({1, 6, 12});
  auto const swapped = ouro::concat<R>({rows(x, 0, 4), rows(x, 5, 1), rows(x, 4, 1)}, 1);
  ouro::context<R> cx;
  ouro::rwkv7_carry<R> a, b, c;
  auto const y = m.forward(cx, x, {1, 1, 2, 2, 0}, a);
  auto const z = m.forward(cx, swapped, {1, 1, 2, 2, 0}, b);
  CHECK(relative_error(rows(z, 5, 1), rows(y, 4, 1)) < 1e-14);
  CHECK(relative_error(rows(z, 4, 1), rows(y, 5, 1)) < 1e-14);
  CHECK_THROWS_AS(m.forward(cx, x, {0, 0, 0, 6, 0}, c), ouro::error);
}

#if defined(OURO_HAS_CPU)
TEST_CASE("row policies: as by hand on the cpu") {
  policies<ouro::rwkv7<ouro::cpu>>(dtype::f32);
  policies<ouro::mamba2<ouro::cpu>>(dtype::f32);
}
#endif
