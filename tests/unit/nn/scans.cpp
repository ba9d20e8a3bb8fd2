// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The recurrences and the short convolution: gradients by differences, the accelerated backends against the reference,
// lengths, splits and extremes.
#include <cmath>
#include <vector>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/exp.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/rwkv7_scan.hpp>
#include <ouro/ops/short_convolution.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/softplus.hpp>
#include <ouro/ops/ssd_scan.hpp>
#include <ouro/ops/unit.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/weigh.hpp>

using ouro::dtype;
using ouro::shape;
using ouro_test::noise;
using ouro_test::pick;
using ouro_test::relative_error;
using ouro_test::weigh;
using R = ouro::reference;
using T = ouro::tensor<R>;
using list = std::vector<T>;

namespace {

template <class B>
ouro::tensor<B> weigh(ouro::scan_result<B> const& s) {
  return ouro_test::weigh(s.y) + ouro_test::weigh(s.state, 2.0);
}

struct extents {
  std::int64_t lanes, rows, heads, key, value, groups;
};

/// r, w, k, v, a, b, state, with a and b as RWKV-7 makes them: a removes what b partly puts back.
template <class B>
std::vector<ouro::tensor<B>> rwkv7_inputs(extents e, dtype type) {
  shape const keys{e.lanes, e.rows, e.heads * e.key};
  shape const values{e.lanes, e.rows, e.heads * e.value};
  auto const direction =
      ouro::reshape(ouro::unit(ouro::reshape(noise<R>(keys), {e.lanes, e.rows, e.heads, e.key}), 1e-12), keys);
  auto const b = ouro::scale(direction * ouro::sigmoid(noise<R>(keys)), -1.0);
  auto const w = ouro::scale(noise<R>(keys), 3.0);
  std::vector<ouro::tensor<B>> in;
  for (auto const& x : {noise<R>(keys), w, noise<R>(keys), noise<R>(values), direction, b,
                        noise<R>({e.lanes, e.heads, e.value, e.key})})
    in.push_back(ouro::tensor<B>::from(x.template values<float>(), x.dims(), type));
  return in;
}
template <class B>
ouro::scan_result<B> rwkv7(std::vector<ouro::tensor<B>> const& v) {
  return ouro::rwkv7_scan(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
}

/// x, step, rate, b, c, skip, state.
template <class B>
std::vector<ouro::tensor<B>> ssd_inputs(extents e, dtype type) {
  shape const groups{e.lanes, e.rows, e.groups * e.key};
  auto const step = ouro::softplus(noise<R>({e.lanes, e.rows, e.heads}));
  auto const rate = ouro::scale(ouro::exp(noise<R>({e.heads})), -1.0);
  std::vector<ouro::tensor<B>> in;
  for (auto const& x : {noise<R>({e.lanes, e.rows, e.heads * e.value}), step, rate, noise<R>(groups), noise<R>(groups),
                        noise<R>({e.heads}), noise<R>({e.lanes, e.heads, e.value, e.key})})
    in.push_back(ouro::tensor<B>::from(x.template values<float>(), x.dims(), type));
  return in;
}
template <class B>
ouro::scan_result<B> ssd(std::vector<ouro::tensor<B>> const& v) {
  return ouro::ssd_scan(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
}

template <class B>
std::vector<ouro::tensor<B>> convolution_inputs(extents e, dtype type) {
  std::int64_t const columns = e.heads * e.value;
  std::vector<ouro::tensor<B>> in;
  for (auto const& x : {noise<R>({e.lanes, e.rows, columns}), noise<R>({e.lanes, e.groups - 1, columns}),
                        noise<R>({columns, e.groups}), noise<R>({columns})})
    in.push_back(ouro::tensor<B>::from(x.template values<float>(), x.dims(), type));
  return in;
}
template <class B>
ouro::scan_result<B> convolution(std::vector<ouro::tensor<B>> const& v) {
  return ouro::short_convolution(v[0], v[1], v[2], v[3]);
}

/// Results and all gradients of the weighed sum, in that order.
template <class B, class F>
std::vector<ouro::tensor<B>> everything(std::vector<ouro::tensor<B>> const& in, F const& f) {
  ouro::tape<B> t;
  for (auto const& x : in) t.watch(x);
  auto const s = f(in);
  std::vector<ouro::tensor<B>> out{s.y.detach(), s.state.detach()};
  t.backward(weigh(s));
  for (auto const& x : in) out.push_back(t.gradient(x));
  return out;
}

template <class B>
std::vector<ouro::tensor<B>> moved(list const& from, dtype type) {
  std::vector<ouro::tensor<B>> to;
  for (auto const& x : from) to.push_back(ouro::tensor<B>::from(x.values<double>(), x.dims(), type));
  return to;
}

/// The first `length` rows from `start` of the operands that have rows.
template <class B>
std::vector<ouro::tensor<B>> rows_of(std::vector<ouro::tensor<B>> in, std::vector<std::size_t> const& which,
                                     std::int64_t start, std::int64_t length) {
  for (std::size_t i : which) in[i] = ouro::slice(in[i], 1, start, length);
  return in;
}

}  // namespace

TEST_CASE("recurrences: gradients by differences") {
  for (int i = 0; i < 10; ++i) {
    extents const e{pick(1, 2), pick(1, 5), 2, pick(1, 3), pick(1, 3), pick(1, 2)};
    CHECK(ouro::gradient_error<R>(rwkv7_inputs<R>(e, dtype::f64), [](list const& v) { return weigh(rwkv7(v)); }) <
          1e-6);
    CHECK(ouro::gradient_error<R>(ssd_inputs<R>(e, dtype::f64), [](list const& v) { return weigh(ssd(v)); }) < 1e-6);
    CHECK(ouro::gradient_error<R>(convolution_inputs<R>({e.lanes, e.rows, 1, 1, 3, pick(1, 5)}, dtype::f64),
                                  [](list const& v) { return weigh(convolution(v)); }) < 1e-6);
    // The last state alone, and y alone.
    CHECK(ouro::gradient_error<R>(rwkv7_inputs<R>(e, dtype::f64), [](list const& v) { return weigh(rwkv7(v).state); }) <
          1e-6);
    CHECK(ouro::gradient_error<R>(ssd_inputs<R>(e, dtype::f64), [](list const& v) { return weigh(ssd(v).y); }) < 1e-6);
  }
  CHECK(ouro::gradient_error<R>({noise<R>({7})}, [](list const& v) { return weigh(ouro::softplus(v[0])); }) < 1e-6);
}

TEST_CASE("recurrences: a sequence in parts is the whole, state and gradients included") {
  extents const e{2, 37, 2, 5, 3, 2};
  struct which {
    list in;
    ouro::scan_result<R> (*scan)(list const&);
    std::vector<std::size_t> rows;
    std::size_t state;
  };
  for (auto const& w : {which{rwkv7_inputs<R>(e, dtype::f64), rwkv7<R>, {0, 1, 2, 3, 4, 5}, 6},
                        which{ssd_inputs<R>(e, dtype::f64), ssd<R>, {0, 1, 3, 4}, 6},
                        which{convolution_inputs<R>({2, 37, 2, 5, 3, 4}, dtype::f64), convolution<R>, {0}, 1}}) {
    auto const whole = everything(w.in, w.scan);
    for (std::int64_t at : {1, 2, 15, 16, 17, 36}) {
      auto const parts = everything(w.in, [&](list const& v) {
        auto const first = w.scan(rows_of(v, w.rows, 0, at));
        auto rest = rows_of(v, w.rows, at, e.rows - at);
        rest[w.state] = first.state;
        auto const second = w.scan(rest);
        return ouro::scan_result<R>{ouro::concat<R>({first.y, second.y}, 1), second.state};
      });
      for (std::size_t i = 0; i < whole.size(); ++i) CHECK(relative_error(parts[i], whole[i]) < 1e-12);
    }
  }
}

TEST_CASE("recurrences: shapes that do not fit are refused") {
  auto v = rwkv7_inputs<R>({1, 2, 2, 3, 3, 1}, dtype::f64);
  v[6] = noise<R>({1, 2, 3, 4});
  CHECK_THROWS_AS(rwkv7(v), ouro::error);
  auto s = ssd_inputs<R>({1, 2, 3, 3, 3, 1}, dtype::f64);
  s[3] = s[4] = noise<R>({1, 2, 6});
  CHECK_THROWS_AS(ssd(s), ouro::error);
  auto c = convolution_inputs<R>({1, 2, 1, 1, 3, 4}, dtype::f64);
  c[1] = noise<R>({1, 4, 3});
  CHECK_THROWS_AS(convolution(c), ouro::error);
}

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

// f32 products of 16 rows at a time against sums in f64: measured 1e-6, and 5e-6 where a gradient is a difference.
TEMPLATE_LIST_TEST_CASE("recurrences: the backends agree with the reference", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  std::vector<std::int64_t> const lengths{1, 15, 16, 17, 63, 100};
  for (int i = 0; i < 22; ++i) {
    std::int64_t const groups = pick(1, 2);
    std::int64_t const rows = i < 6 ? lengths[static_cast<std::size_t>(i)] : pick(1, 80);
    extents e{pick(1, 3), rows, groups * pick(1, 2), i % 4 == 0 ? 64 : pick(1, 40), i % 4 == 1 ? 64 : pick(1, 40),
              groups};
    if (i == 20) e = {1, 21, 1, 90, 70, 1};
    if (i == 21) e = {1, 18, 1, 300, 3, 1};
    auto check = [&](char const* name, list const& in, auto scan) {
      auto const right = everything(in, [&](list const& v) { return scan(v); });
      auto const got =
          everything(moved<C>(in, TestType::type), [&](std::vector<ouro::tensor<C>> const& v) { return scan(v); });
      for (std::size_t k = 0; k < right.size(); ++k) {
        INFO(name << " result " << k << " at lanes " << e.lanes << " rows " << e.rows << " heads " << e.heads << " key "
                  << e.key << " value " << e.value);
        CHECK(relative_error(got[k], right[k]) < (TestType::exact ? 1e-12 : k < 2 ? 1e-5 : 5e-5));
      }
    };
    check("rwkv7", rwkv7_inputs<R>(e, dtype::f64), [](auto const& v) { return rwkv7(v); });
    check("ssd", ssd_inputs<R>(e, dtype::f64), [](auto const& v) { return ssd(v); });
    check("convolution", convolution_inputs<R>({e.lanes, e.rows, 1, 1, pick(1, 70), pick(1, 5)}, dtype::f64),
          [](auto const& v) { return convolution(v); });
  }
}

// Decays of 1 and of 0.5452, pauses that erase the state in the middle of a chunk, and rows that change nothing.
TEMPLATE_LIST_TEST_CASE("recurrences: extremes on the backends", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  extents const e{1, 70, 2, 20, 20, 1};
  auto check = [&](list const& in, auto scan) {
    auto const right = everything(in, [&](list const& v) { return scan(v); });
    auto const got =
        everything(moved<C>(in, TestType::type), [&](std::vector<ouro::tensor<C>> const& v) { return scan(v); });
    for (std::size_t k = 0; k < right.size(); ++k) {
      INFO("result " << k);
      CHECK(relative_error(got[k], right[k], 1e-3) < (TestType::exact ? 1e-11 : 1e-4));
    }
  };
  for (double w : {-1e30, -1e4, -30.0, 30.0, 1e4, 1e30}) {
    auto in = rwkv7_inputs<R>(e, dtype::f64);
    in[1] = T::full(in[1].dims(), dtype::f64, w);
    check(in, [](auto const& v) { return rwkv7(v); });
  }
  for (int kind = 0; kind < 4; ++kind) {
    auto in = ssd_inputs<R>(e, dtype::f64);
    auto step = in[1].values<double>();
    for (std::size_t i = 0; i < step.size(); ++i) {
      bool const pause = i / 2 % 7 == 3;
      if (kind == 0) step[i] = 0;
      if (kind == 1) step[i] = pause ? 1e4 : 1e-3;
      if (kind == 2) step[i] = 1e6;
      if (kind == 3) step[i] = pause ? 0 : 1e-6;
    }
    in[1] = T::from(step, in[1].dims());
    in[2] = T::full({2}, dtype::f64, -16.0);
    check(in, [](auto const& v) { return ssd(v); });
  }
}

TEMPLATE_LIST_TEST_CASE("recurrences: destinations are overwritten or added to, the same bits again", "",
                        ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  extents const e{2, 19, 4, 7, 5, 2};
  constexpr auto type = TestType::type;
  auto const dy = noise<C>({e.lanes, e.rows, e.heads * e.value}, type);
  auto const dlast = noise<C>({e.lanes, e.heads, e.value, e.key}, type);
  auto check = [&](auto const& in, auto gradient) {
    auto run = [&](double initial, bool add, int threads) {
      std::vector<ouro::tensor<C>> g(in.size());
      for (std::size_t i = 0; i < g.size(); ++i) g[i] = ouro::tensor<C>::full(in[i].dims(), type, initial);
      ouro_test::with_threads<C>(threads, [&] {
        gradient([&](std::size_t i) { return ouro::destination(g[i].write(), add); },
                 [&](std::size_t i) { return in[i].read(); });
      });
      return g;
    };
    auto const fresh = run(NAN, false, 1);
    auto const again = run(NAN, false, 2);
    auto const added = run(2.0, true, 3);
    for (std::size_t i = 0; i < in.size(); ++i) {
      CHECK(fresh[i].template values<double>() == again[i].template values<double>());
      auto const sum = fresh[i] + ouro::tensor<C>::full(in[i].dims(), type, 2.0);
      CHECK(relative_error(added[i], sum) < 1e-5);
    }
  };
  check(rwkv7_inputs<C>(e, type), [&](auto to, auto in) {
    C::rwkv7_scan_gradient({to(0), to(1), to(2), to(3), to(4), to(5), to(6)},
                           {in(0), in(1), in(2), in(3), in(4), in(5), in(6)}, dy.read(), dlast.read());
  });
  check(ssd_inputs<C>(e, type), [&](auto to, auto in) {
    C::ssd_scan_gradient({to(0), to(1), to(2), to(3), to(4), to(5), to(6)},
                         {in(0), in(1), in(2), in(3), in(4), in(5), in(6)}, dy.read(), dlast.read());
  });
  check(convolution_inputs<C>({e.lanes, e.rows, e.heads, 1, e.value, 4}, type), [&](auto to, auto in) {
    C::short_convolution_gradient({to(0), to(1), to(2), to(3)}, {in(0), in(1), in(2), in(3)}, dy.read());
  });
}

#endif
