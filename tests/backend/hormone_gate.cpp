// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The fused hormone gate of the cpu backend in f32 against its composition on the reference in f64.
#include <catch2/catch_test_macros.hpp>

#if defined(OURO_HAS_CPU)

#include <ouro/autodiff/tape.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro_test/hormone_gate.hpp>

using R = ouro::reference;
using C = ouro::cpu;

TEST_CASE("cpu: hormone gate and its gradient") {
  for (int i = 0; i < 40; ++i) {
    ouro_test::gate_case<R> single(i, 1 + i % 12, ouro::dtype::f32);
    ouro_test::gate_case<R> r = single;
    ouro_test::gate_case<C> c(i, 1);
    c.inputs.clear();
    for (auto& x : r.inputs) {
      c.inputs.push_back(ouro::tensor<C>::from(x.values<float>(), x.dims()));
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
    CHECK(ouro_test::relative_error(y, run(r, dr)) < 1e-5);
    // A layer norm over few values divides by a small deviation now and then: its gradient is less exact than its value.
    for (std::size_t k = 0; k < dc.size(); ++k) CHECK(ouro_test::relative_error(dc[k], dr[k]) < 1e-4);
  }
}

TEST_CASE("cpu: the hormone gate does not depend on the number of threads") {
  int const before = ouro::cpu_threads();
  ouro_test::gate_case<C> c(4, 40, ouro::dtype::f32);
  std::vector<std::vector<float>> found;
  for (int threads : {1, 2, 3}) {
    ouro::set_cpu_threads(threads);
    ouro::tape<C> tape;
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
