// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What every mixer owes, on RWKV-7 and Mamba-2: the laws of SequenceMixer, gradients of the whole, lengths and extremes.
#include <catch2/catch_test_macros.hpp>

#include <cmath>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/nn/mixers/attention.hpp>
#include <ouro/nn/mixers/mamba2.hpp>
#include <ouro/nn/mixers/rwkv7.hpp>
#include <ouro_test/laws/sequence_mixer.hpp>

using ouro::dtype;
using ouro_test::noise;
using ouro_test::relative_error;
using R = ouro::reference;
using T = ouro::tensor<R>;
using list = std::vector<T>;

static_assert(ouro::check_sequence_mixer<ouro::rwkv7<R>, ouro::context<R>, T>());
static_assert(ouro::check_sequence_mixer<ouro::mamba2<R>, ouro::context<R>, T>());

namespace {

/// A mixer with every parameter moved away from where it starts, so that nothing in it is zero.
template <class Mixer>
Mixer moved(std::int64_t width, std::int64_t heads, dtype type, std::int64_t layer = 1) {
  using B = typename Mixer::backend;
  ouro::genesis<B> g(ouro::seed{3}, type);
  Mixer m(g, ouro::mixer_place{width, heads, layer, 3});
  for (auto const& f : ouro::fields(m)) *f.value = *f.value + ouro::scale(noise<B>(f.value->dims(), type), 0.2);
  return m;
}

/// Two layers of one pass as a mixer: the second sees the values of the first in their stream.
template <ouro::Backend B>
struct two_layers {
  struct carry {
    ouro::rwkv7_carry<B> first;
    ouro::rwkv7_carry<B> second;
  };
  ouro::rwkv7<B> first;
  ouro::rwkv7<B> second;
  ouro::tensor<B> forward(ouro::context<B>& cx, ouro::tensor<B> const& x, ouro::segments s, carry& c) const {
    ouro::mixer_stream<ouro::rwkv7<B>> pass;
    auto all = s;
    all.skip = 0;
    auto const y = ouro::mix(first, cx, x, all, c.first, pass);
    return ouro::mix(second, cx, x + y, s, c.second, pass);
  }
  ouro::tensor<B> step(ouro::context<B>& cx, ouro::tensor<B> const& x, carry& c) const {
    ouro::mixer_stream<ouro::rwkv7<B>> pass;
    auto const y = ouro::mix_step(first, cx, x, c.first, pass);
    return ouro::mix_step(second, cx, x + y, c.second, pass);
  }
};

template <class B>
void laws(dtype type) {
  using ouro_test::looks;
  ouro_test::sequence_mixer_laws<B>(moved<ouro::rwkv7<B>>(12, 2, type), 12, type, looks::back);
  two_layers<B> const two{moved<ouro::rwkv7<B>>(12, 3, type, 0), moved<ouro::rwkv7<B>>(12, 3, type)};
  ouro_test::sequence_mixer_laws<B>(two, 12, type, looks::back);
  ouro_test::sequence_mixer_laws<B>(moved<ouro::mamba2<B>>(12, 2, type), 12, type, looks::back);
}

T weigh(T const& x) { return ouro::reshape(ouro::sum(x * ouro::normal<R>(x.dims(), dtype::f64, {5, 1})), {1}); }

/// The error of the gradients of x, of the carry before and of every parameter, from y and from the carry after.
template <class Mixer>
double gradient_error(Mixer const& m, T const& x, typename Mixer::carry const& start, double step) {
  auto const& [before, state] = start;
  list inputs{x, before, state};
  for (auto const& f : ouro::fields(m)) inputs.push_back(*f.value);
  return ouro::gradient_error<R>(
      inputs,
      [&](list const& v) {
        Mixer now = m;
        std::size_t at = 3;
        for (auto const& f : ouro::fields(now)) *f.value = v[at++];
        typename Mixer::carry c{v[1], v[2]};
        ouro::context<R> cx;
        auto const y = now.forward(cx, v[0], {0, 0, v[0].dim(1), 0, 1}, c);
        auto const& [after, last] = c;
        return weigh(y) + weigh(after) + weigh(last);
      },
      step);
}

/// The largest magnitude among y, the carry's state and all gradients; infinite if one is not finite.
template <class Mixer>
double magnitude(Mixer const& m, std::int64_t width, std::int64_t rows, double size) {
  using B = typename Mixer::backend;
  auto const x = ouro::scale(noise<B>({2, rows, width}, dtype::f32), size);
  ouro::tape<B> t;
  t.watch(x);
  for (auto const& f : ouro::fields(m)) t.watch(*f.value);
  ouro::context<B> cx;
  typename Mixer::carry c;
  auto const y = m.forward(cx, x, {0, 0, rows, 0, 0}, c);
  t.backward(ouro::sum(y));
  double worst = 0;
  auto look = [&](ouro::tensor<B> const& v) {
    for (double e : v.template values<double>()) worst = std::isfinite(e) ? std::max(worst, std::abs(e)) : INFINITY;
  };
  look(y), look(c.state), look(t.gradient(x));
  for (auto const& f : ouro::fields(m)) look(t.gradient(*f.value));
  return worst;
}

template <class B>
void extremes() {
  auto set = [](ouro::parameter<B>& p, double value) { p = ouro::tensor<B>::full(p.dims(), dtype::f32, value); };
  for (double bias : {-1e4, -20.0, 20.0, 1e4})
    for (double size : {1e-6, 1.0, 100.0}) {
      INFO("bias " << bias << ", size of x " << size);
      auto r = moved<ouro::rwkv7<B>>(16, 2, dtype::f32);
      set(r.w0, bias);
      CHECK(std::isfinite(magnitude(r, 16, 40, size)));
      auto m = moved<ouro::mamba2<B>>(16, 2, dtype::f32);
      set(m.dt_bias, bias);
      CHECK(std::isfinite(magnitude(m, 16, 40, size)));
      set(m.A_log, 5.0);
      CHECK(std::isfinite(magnitude(m, 16, 40, size)));
    }
}

}  // namespace

TEST_CASE("mixers: laws on the reference") { laws<R>(dtype::f64); }
TEST_CASE("mixers: extremes on the reference") { extremes<R>(); }

TEST_CASE("mixers: gradients by differences") {
  ouro::genesis<R> g(ouro::seed{3}, dtype::f64);
  auto shake = [](auto m) {
    for (auto const& f : ouro::fields(m)) *f.value = *f.value + ouro::scale(noise<R>(f.value->dims()), 0.3);
    return m;
  };
  auto const r = shake(ouro::rwkv7<R>(g, {4, 2, 1, 2}, {1, 2, 1, 2}));
  // By itself a layer is the first of its pass and does not use its value residual: see rwkv7.cpp for that.
  CHECK(gradient_error(r, noise<R>({2, 4, 4}), {noise<R>({2, 1, 4}), noise<R>({2, 2, 2, 2})}, 1e-4) < 1e-6);
  auto const m =
      shake(ouro::mamba2<R>(g, {.width = 4, .heads = 2, .head_width = 3, .state = 2, .groups = 2, .kernel = 3}));
  CHECK(gradient_error(m, noise<R>({2, 4, 4}), {noise<R>({2, 2, 14}), noise<R>({2, 2, 3, 2})}, 1e-4) < 1e-6);
}

TEST_CASE("mixers: a place is all that a mixer needs") {
  ouro::genesis<R> g(ouro::seed{1}, dtype::f64);
  ouro::context<R> cx;
  auto const x = noise<R>({1, 3, 20});
  auto runs = [&](auto const& m) {
    typename std::remove_cvref_t<decltype(m)>::carry c;
    ouro::mixer_stream<std::remove_cvref_t<decltype(m)>> pass;
    CHECK(ouro::mix(m, cx, x, {0, 0, 3, 0, 0}, c, pass).dims() == x.dims());
  };
  ouro::mixer_place const place{20, 4, 0, 1};
  runs(ouro::attention<R>(g, place));
  runs(ouro::rwkv7<R>(g, place));
  runs(ouro::mamba2<R>(g, place));
}

#if defined(OURO_HAS_CPU)

TEST_CASE("mixers: laws on the cpu") { laws<ouro::cpu>(dtype::f32); }
TEST_CASE("mixers: extremes on the cpu") { extremes<ouro::cpu>(); }

// Rows one by one through the state's own layout, against chunks of 16 rows: f32 rounding only.
TEST_CASE("mixers: long sequences in any parts on the cpu") {
  using C = ouro::cpu;
  std::int64_t const rows = 100;
  auto check = [&](auto const& m) {
    using mixer = std::remove_cvref_t<decltype(m)>;
    auto const x = noise<C>({2, rows, 32}, dtype::f32);
    ouro::context<C> cx;
    typename mixer::carry c;
    auto const whole = m.forward(cx, x, {0, 0, rows, 0, 0}, c);
    for (std::int64_t part : {1, 2, 5, 15, 16, 17, 63}) {
      typename mixer::carry d;
      std::vector<ouro::tensor<C>> y;
      for (std::int64_t at = 0; at < rows; at += part) {
        std::int64_t const n = std::min(part, rows - at);
        y.push_back(m.forward(cx, ouro::slice(x, 1, at, n), {0, 0, n, 0, 0}, d));
      }
      CHECK(relative_error(ouro::concat(y, 1), whole) < 1e-5);
      CHECK(relative_error(d.state, c.state) < 1e-5);
    }
  };
  check(moved<ouro::rwkv7<C>>(32, 2, dtype::f32));
  check(moved<ouro::mamba2<C>>(32, 2, dtype::f32));
}

#endif
