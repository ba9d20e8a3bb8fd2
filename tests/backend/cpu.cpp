// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What is the cpu backend's alone: threads, and vector functions over the whole range of f32.
#include <catch2/catch_test_macros.hpp>

#if defined(OURO_HAS_CPU)

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <new>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cpu/math.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro_test/random.hpp>

TEST_CASE("cpu: results do not depend on the number of threads from run to run") {
  int const before = ouro::cpu_threads();
  using C = ouro::cpu;
  auto const a = ouro_test::noise<C>({300, 200}, ouro::dtype::f32);
  auto const b = ouro_test::noise<C>({200, 150}, ouro::dtype::f32);
  ouro::tensor<C> first({300, 150}), second({300, 150});
  ouro::set_cpu_threads(3);
  C::matmul(first.write(), a.read(), b.read(), 1.0);
  C::matmul(second.write(), a.read(), b.read(), 1.0);
  CHECK(first.values<float>() == second.values<float>());
  ouro::set_cpu_threads(before);
  CHECK_THROWS_AS(ouro::set_cpu_threads(0), ouro::error);
}

#if !defined(__SANITIZE_THREAD__)  // which ends a forked process that makes threads
TEST_CASE("cpu: a forked process has threads of its own") {
  int const before = ouro::cpu_threads();
  using C = ouro::cpu;
  auto const a = ouro_test::noise<C>({300, 200}, ouro::dtype::f32);
  auto const work = [&] {
    ouro::tensor<C> y({300, 300}), sums({1, 300});
    C::matmul(y.write(), a.read(), a.read().transpose(0, 1), 1.0);
    C::map(ouro::unary::tanh, y.write(), y.read());
    C::reduce_sum(sums.write(), y.read(), 1.0);
    return sums.values<float>();
  };
  ouro::set_cpu_threads(3);
  auto const expected = work();
  for (int round = 0; round < 2; ++round) {
    pid_t const child = ::fork();
    if (child == 0) {
      ::alarm(60);  // rather than wait for ever
      ::_exit(work() == expected && ouro::cpu_threads() == 3 ? 0 : 1);
    }
    REQUIRE(child > 0);
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(work() == expected);
  }
  ouro::set_cpu_threads(before);
}
#endif

TEST_CASE("cpu: elementwise results have the same bits with any number of threads") {
  int const before = ouro::cpu_threads();
  using C = ouro::cpu;
  auto const x = ouro_test::noise<C>({100'003}, ouro::dtype::f32);
  auto const dy = ouro_test::noise<C>({100'003}, ouro::dtype::f32);
  std::vector<std::vector<float>> first;
  for (int const threads : {1, 2, 3, 5, 7}) {
    ouro::set_cpu_threads(threads);
    std::vector<std::vector<float>> now;
    auto keep = [&](auto const& f) {
      ouro::tensor<C> y(x.dims());
      f(y);
      now.push_back(y.values<float>());
    };
    for (auto const f : {ouro::unary::gelu, ouro::unary::tanh, ouro::unary::sigmoid}) {
      keep([&](auto& y) { C::map(f, y.write(), x.read()); });
      keep([&](auto& y) { C::map_gradient(f, y.write(), x.read(), dy.read()); });
    }
    keep([&](auto& y) { C::combine(ouro::binary::divide, y.write(), x.read(), dy.read()); });
    keep([&](auto& y) { C::add_dropped(y.write(), x.read(), dy.read(), 0.3, {1, 2}); });
    keep([&](auto& y) { C::dropout(y.write(), x.read(), 0.3, {1, 2}); });
    if (first.empty()) first = now;
    CHECK(first == now);
  }
  ouro::set_cpu_threads(before);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // whose own memory has no bounds
TEST_CASE("cpu: a product that finds no memory says so, or is right") {
  using C = ouro::cpu;
  int const before = ouro::cpu_threads();
  ouro::set_cpu_threads(1);
  auto const a = ouro_test::noise<C>({1100, 1100}, ouro::dtype::f32);
  auto c = ouro::tensor<C>::full(a.dims(), ouro::dtype::f32, 7);
  auto again = c.copy();
  ouro::view const to[] = {c.write(), again.write()};
  C::matmul({to[0].slice(0, 0, 16)}, a.read().slice(0, 0, 16), a.read(), 1.0);  // the library is ready
  ::rlimit all{};
  ::getrlimit(RLIMIT_AS, &all);
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  ::rlimit none = all;
  none.rlim_cur = static_cast<::rlim_t>(pages * ::sysconf(_SC_PAGESIZE));
  bool said = false;
  ::setrlimit(RLIMIT_AS, &none);
  try {
    C::matmul({to[0]}, a.read(), a.read(), 1.0);
  } catch (std::bad_alloc const&) {
    said = true;
  }
  ::setrlimit(RLIMIT_AS, &all);
  C::matmul({to[1]}, a.read(), a.read(), 1.0);
  ouro::set_cpu_threads(before);
  CHECK((said || c.values<float>() == again.values<float>()));
}
#endif

TEST_CASE("cpu: what lies backwards in memory is scaled as it lies") {
  using C = ouro::cpu;
  auto const x = ouro::tensor<C>::from(std::vector<float>{1, 2, 3, 4}, {4});
  ouro::tensor<C> y({4});
  C::scale({y.write()}, x.read().reverse(0), 2.0);
  CHECK(y.values<float>() == std::vector<float>{8, 6, 4, 2});
}

namespace {
/// The distance of y from the exact value in units of the last place.
double ulps(float y, double exact) {
  if (std::isnan(exact)) return std::isnan(y) ? 0 : INFINITY;
  auto const rounded = static_cast<float>(exact);
  if (std::isinf(rounded) || std::isinf(y)) return y == rounded || std::abs(exact) > 3.4e38 ? 0 : INFINITY;
  float const next = std::nextafter(std::abs(rounded), std::numeric_limits<float>::infinity());
  return std::abs(static_cast<double>(y) - exact) /
         (static_cast<double>(next) - static_cast<double>(std::abs(rounded)));
}
}  // namespace

TEST_CASE("cpu: vector functions are within 4 ulp over the whole range") {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < 0x100000000ULL; bits += 10007) {
    auto const word = static_cast<std::uint32_t>(bits);
    float f = 0;
    std::memcpy(&f, &word, 4);
    x.push_back(f);
  }
  for (double v = -20; v < 20; v += 0.0003) x.push_back(static_cast<float>(v));
  for (float v : {0.0F, -0.0F, INFINITY, -INFINITY, std::numeric_limits<float>::denorm_min()}) x.push_back(v);
  std::vector<float> y(x.size());
  auto check = [&](char const* name, auto function, auto exact) {
    function(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
    double worst = 0;
    float where = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const u = ulps(y[i], exact(static_cast<double>(x[i])));
      if (!(u <= worst)) worst = u, where = x[i];
    }
    INFO(name << ": " << worst << " ulp at " << where);
    CHECK(worst <= 4.0);
  };
  check("exp", ouro::cpu_math::exp, [](double v) { return std::exp(v); });
  check("tanh", ouro::cpu_math::tanh, [](double v) { return std::tanh(v); });
  check("erf", ouro::cpu_math::erf, [](double v) { return std::erf(v); });
  check("sigmoid", ouro::cpu_math::sigmoid, [](double v) { return 1.0 / (1.0 + std::exp(-v)); });
}

namespace {
struct products_in_bf16 {
  products_in_bf16() { ouro::set_cpu_products(ouro::product_precision::bf16); }
  ~products_in_bf16() { ouro::set_cpu_products(ouro::product_precision::f32); }
};
bool has_bf16() { return ouro::cpu_has_products(ouro::product_precision::bf16); }
}  // namespace

TEST_CASE("cpu: products in bf16 round their factors and nothing else") {
  CHECK_THROWS_AS(ouro::set_cpu_products(ouro::product_precision::tf32), ouro::error);
  if (!has_bf16()) CHECK_THROWS_AS(ouro::set_cpu_products(ouro::product_precision::bf16), ouro::error);
  if (!has_bf16()) SKIP("this processor has no AVX-512 BF16");
  using C = ouro::cpu;
  int const before = ouro::cpu_threads();
  for (std::uint64_t trial = 0; trial < 40; ++trial) {
    ouro::random_draw const draw{7, trial};
    auto pick = [&](std::uint64_t i, double most) { return 1 + static_cast<std::int64_t>(most * draw.uniform(i)); };
    bool const batched = draw.uniform(0) < 0.3;
    bool const ta = draw.uniform(1) < 0.5, tb = draw.uniform(2) < 0.5, adds = draw.uniform(3) < 0.5;
    std::int64_t const m = pick(4, 150), n = pick(5, 150), k = pick(6, 150), batches = batched ? pick(7, 4) : 1;
    auto dims = [&](std::int64_t rows, std::int64_t columns, bool turned) {
      ouro::shape const two = turned ? ouro::shape{columns, rows} : ouro::shape{rows, columns};
      return batched ? ouro::shape{batches, two[0], two[1]} : two;
    };
    auto const a = ouro_test::noise<C>(dims(m, k, ta), ouro::dtype::f32);
    auto const b = ouro_test::noise<C>(dims(k, n, tb), ouro::dtype::f32);
    auto const start = ouro_test::noise<C>(dims(m, n, false), ouro::dtype::f32);
    auto turned = [](auto const& x, bool t) { return t ? x.read().transpose(x.rank() - 2, x.rank() - 1) : x.read(); };
    std::vector<std::vector<float>> results;
    for (int threads : {1, 2, 3}) {
      products_in_bf16 const now;
      ouro::set_cpu_threads(threads);
      auto y = start.copy();
      C::matmul({y.write(), adds}, turned(a, ta), turned(b, tb), 0.5);
      results.push_back(y.values<float>());
    }
    ouro::set_cpu_threads(before);
    INFO("m " << m << ", n " << n << ", k " << k << ", " << batches << " batches, transposed " << ta << tb);
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
    bool const rounds = m >= 16 && n >= 16 && k >= 16;
    using R = ouro::reference;
    auto on_reference = [&](ouro::tensor<C> const& x) {
      auto const exact = ouro::tensor<R>::from(x.values<double>(), x.dims());
      return rounds ? exact.copy(ouro::dtype::bf16).copy(ouro::dtype::f64) : exact;
    };
    auto const x = on_reference(a), y = on_reference(b);
    auto expected = ouro::tensor<R>::from(start.values<double>(), start.dims());
    R::matmul({expected.write(), adds}, turned(x, ta), turned(y, tb), 0.5);
    CHECK(ouro_test::relative_error(ouro::tensor<R>::from(results[0], start.dims()), expected, 1.0) < 1e-6);
  }
}

TEST_CASE("cpu: attention in bf16 is attention") {
  if (!has_bf16()) SKIP("this processor has no AVX-512 BF16");
  using C = ouro::cpu;
  using T = ouro::tensor<C>;
  std::int64_t const lanes = 2, queries = 75, keys = 133, width = 48;
  auto noise = [&](std::int64_t rows) { return ouro_test::noise<C>({lanes, rows, width}, ouro::dtype::f32); };
  auto const q = noise(queries), k = noise(keys), v = noise(keys), dy = noise(queries);
  for (double dropout : {0.0, 0.2}) {
    ouro::attention_rule const rule{
        .heads = 3, .scale = 0.25, .sees = {60, 40, 58}, .dropout = dropout, .draw = {5, 1}};
    auto run = [&] {
      std::vector<T> r{T(q.dims()), T({lanes, 3, queries}), T(q.dims()), T(k.dims()), T(v.dims())};
      C::attention(r[0].write(), r[1].write(), q.read(), k.read(), v.read(), rule);
      C::attention_gradient(r[2].write(), r[3].write(), r[4].write(), q.read(), k.read(), v.read(), r[0].read(),
                            r[1].read(), dy.read(), rule);
      return r;
    };
    auto const exact = run();
    products_in_bf16 const now;
    auto const rounded = run();
    for (std::size_t i = 0; i < exact.size(); ++i) {
      INFO("dropout " << dropout << ", result " << i);
      double const error = ouro_test::relative_error(rounded[i], exact[i]);
      CHECK(error < 2e-2);
      CHECK(error > 1e-5);
    }
  }
}

#else
TEST_CASE("cpu") { SKIP("the cpu backend is not built"); }
#endif
