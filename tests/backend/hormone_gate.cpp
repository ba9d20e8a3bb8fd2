// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The fused hormone gate of the accelerated backends against its composition on the reference in f64.
#include <ouro/autodiff/tape.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/hormone_gate.hpp>

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

TEMPLATE_LIST_TEST_CASE("backends: hormone gate and its gradient", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  using R = ouro::reference;
  REQUIRE(C::has_hormone_gate(TestType::type));
  for (int i = 0; i < 51; i += i < 40 ? 1 : 5) {  // the last ones are wide, with dropout
    ouro_test::gate_case<R> r(i, i < 40 ? 1 + i % 12 : 60, ouro::dtype::f32);
    ouro_test::gate_case<C> c(i, 1);
    // The widths are drawn: the case of the backend gets those of the reference, with the same values.
    c.inputs.clear();
    for (auto& x : r.inputs) {
      c.inputs.push_back(ouro::tensor<C>::from(x.template values<float>(), x.dims(), TestType::type));
      x = x.copy(ouro::dtype::f64);
    }
    auto run = [](auto const& g, auto& gradients) {
      using B = typename std::remove_cvref_t<decltype(g.inputs[0])>::backend;
      ouro::tape<B> tape;
      for (auto const& x : g.inputs) tape.watch(x);
      auto const y = ouro::hormone_gate(g.with(g.inputs));
      tape.backward(ouro::sum(y * g.weights(y.dims())));
      for (auto const& x : g.inputs) gradients.push_back(tape.gradient(x));
      return y.detach();
    };
    std::vector<ouro::tensor<C>> dc;
    std::vector<ouro::tensor<R>> dr;
    auto const y = run(c, dc);
    CHECK(ouro_test::relative_error(y, run(r, dr)) < (TestType::exact ? 1e-12 : 1e-5));
    // A layer norm over few values divides by a small deviation now and then: its gradient is less exact than its value.
    for (std::size_t k = 0; k < dc.size(); ++k)
      CHECK(ouro_test::relative_error(dc[k], dr[k]) < (TestType::exact ? 1e-10 : 1e-4));
  }
}

#endif
#if defined(OURO_HAS_CPU)

TEST_CASE("cpu: the hormone gate does not depend on the number of threads") {
  int const before = ouro::cpu_threads();
  ouro_test::gate_case<ouro::cpu> c(4, 40, ouro::dtype::f32);
  std::vector<std::vector<float>> found;
  for (int threads : {1, 2, 3}) {
    ouro::set_cpu_threads(threads);
    ouro::tape<ouro::cpu> tape;
    for (auto const& x : c.inputs) tape.watch(x);
    tape.backward(ouro::sum(ouro::hormone_gate(c.with(c.inputs))));
    std::vector<float> all;
    for (auto const& x : c.inputs)
      for (float v : tape.gradient(x).values<float>()) all.push_back(v);
    found.push_back(all);
  }
  ouro::set_cpu_threads(before);
  CHECK(found[0] == found[1]);
  CHECK(found[0] == found[2]);
}

#endif
