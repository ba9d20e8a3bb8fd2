// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The networks of many receptors in one call, against one after another on the reference in f64; and their gradient.
#include <array>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/autodiff/tape.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/hormone_networks.hpp>
#include <ouro/ops/noise.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>

namespace {

/// A hormone, then six parameters for each of `count` networks.
std::vector<ouro::tensor<ouro::reference>> parameters(std::int64_t count, std::int64_t lanes, std::int64_t inner,
                                                      std::int64_t width) {
  using ouro_test::noise;
  using R = ouro::reference;
  std::vector<ouro::tensor<R>> list{noise<R>({lanes, 1, inner})};
  for (std::int64_t i = 0; i < count; ++i)
    for (ouro::shape const& dims : {ouro::shape{inner, inner}, ouro::shape{inner}, ouro::shape{width, inner},
                                    ouro::shape{width}, ouro::shape{width}, ouro::shape{width}})
      list.push_back(noise<R>(dims));
  return list;
}

/// Σ of what all say, but for the network `left_out`, each element times another number.
template <class B>
ouro::tensor<B> spoken(std::vector<ouro::tensor<B>> const& v, std::size_t left_out = static_cast<std::size_t>(-1)) {
  std::vector<ouro::hormone_network_inputs<B>> networks;
  for (std::size_t i = 1; i < v.size(); i += 6)
    networks.push_back({v[i], v[i + 1], v[i + 2], v[i + 3], v[i + 4], v[i + 5]});
  auto const says = ouro::hormone_networks(networks, v[0]);
  auto all = ouro::scale(ouro::sum(v[0]), 0.1);
  for (std::size_t i = 0; i < says.size(); ++i)
    if (i != left_out) all = all + ouro::sum(says[i] * ouro::normal<B>(says[i].dims(), says[i].type(), {7, i}));
  return ouro::reshape(all, {1});
}

}  // namespace

TEST_CASE("hormone networks: gradient, and refusals") {
  using R = ouro::reference;
  CHECK(ouro::gradient_error<R>(
            parameters(2, 2, 3, 5), [](auto const& v) { return spoken<R>(v); }, 1e-4) < 1e-6);
  auto wrong = parameters(2, 1, 3, 5);
  wrong[9] = ouro::tensor<R>::zeros({4, 3}, ouro::dtype::f64);
  CHECK_THROWS_AS(spoken<R>(wrong), ouro::error);
  wrong = parameters(1, 1, 3, 5);
  wrong[0] = ouro::tensor<R>::zeros({1, 2, 3}, ouro::dtype::f64);
  CHECK_THROWS_AS(spoken<R>(wrong), ouro::error);
}

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

TEMPLATE_LIST_TEST_CASE("backends: hormone networks and their gradients", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  using R = ouro::reference;
  for (auto const& [count, lanes, inner, width] :
       {std::array<std::int64_t, 4>{1, 1, 1, 2}, {3, 2, 5, 20}, {7, 1, 32, 128}, {2, 3, 70, 33}, {2, 2, 270, 530}}) {
    auto r = parameters(count, lanes, inner, width);
    std::vector<ouro::tensor<C>> c;
    for (auto& x : r) {
      c.push_back(ouro::tensor<C>::from(x.template values<float>(), x.dims(), TestType::type));
      x = x.copy(ouro::dtype::f32).copy(ouro::dtype::f64);
    }
    auto run = [&]<class B>(std::vector<ouro::tensor<B>> const& v, std::vector<ouro::tensor<B>>& slopes) {
      ouro::tape<B> tape;
      for (auto const& x : v) tape.watch(x);
      // Twice, so that the second gradient adds to the first; once one of them is not asked.
      auto const y = spoken<B>(v) + spoken<B>(v, 0);
      tape.backward(y);
      for (auto const& x : v) slopes.push_back(tape.gradient(x));
      return y.detach();
    };
    std::vector<ouro::tensor<C>> dc;
    std::vector<ouro::tensor<R>> dr;
    auto const y = run(c, dc);
    double const limit = TestType::exact ? 1e-12 : 2e-5;
    CHECK(ouro_test::relative_error(y, run(r, dr), 1.0) < limit);
    for (std::size_t i = 0; i < dc.size(); ++i) CHECK(ouro_test::relative_error(dc[i], dr[i], 1.0) < limit);
    // Every seventh gradient on its own: nobody asks for those between.
    for (std::size_t from = 0; from < 7; ++from) {
      ouro::tape<C> tape;
      for (std::size_t i = from; i < c.size(); i += 7) tape.watch(c[i]);
      tape.backward(spoken<C>(c) + spoken<C>(c, 0));
      for (std::size_t i = from; i < c.size(); i += 7)
        CHECK(ouro_test::relative_error(tape.gradient(c[i]), dr[i], 1.0) < limit);
    }
  }
}

#endif
