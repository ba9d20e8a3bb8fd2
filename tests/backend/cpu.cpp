// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What is the cpu backend's alone: threads, and vector functions over the whole range of f32.
#include <catch2/catch_test_macros.hpp>

#if defined(OURO_HAS_CPU)

#include <cstring>
#include <limits>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cpu/math.hpp>
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

#else
TEST_CASE("cpu") { SKIP("the cpu backend is not built"); }
#endif
