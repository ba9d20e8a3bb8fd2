// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate: its gradient against central differences, and what it refuses.
#include <catch2/catch_test_macros.hpp>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/ops/hormone_gate.hpp>
#include <ouro_test/hormone_gate.hpp>

using R = ouro::reference;

TEST_CASE("hormone gate: gradient") {
  for (int i = 0; i < 20; ++i) {
    ouro_test::gate_case<R> const c(i, 1);
    CHECK(ouro::gradient_error<R>(
              c.inputs,
              [&](std::vector<ouro::tensor<R>> const& v) {
                auto const y = ouro::hormone_gate(c.with(v));
                return ouro::sum(y * c.weights(y.dims()));
              },
              1e-4) < 2e-6);
  }
}

TEST_CASE("hormone gate: refusals name the shapes") {
  ouro_test::gate_case<R> const c(0, 1);
  auto wrong = c.with(c.inputs);
  wrong.h = ouro::tensor<R>::zeros({1, 2, 3}, ouro::dtype::f64);
  CHECK_THROWS_AS(ouro::hormone_gate(wrong), ouro::error);
  wrong = c.with(c.inputs);
  wrong.residual = ouro::tensor<R>::zeros({1}, ouro::dtype::f64);
  CHECK_THROWS_AS(ouro::hormone_gate(wrong), ouro::error);
}
