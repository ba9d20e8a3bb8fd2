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
    ouro_test::gate_case<R> c(i, 1);
    c.folds = i % 3 != 0;  // also with a residual
    CHECK(ouro::gradient_error<R>(
              c.inputs, [&](std::vector<ouro::tensor<R>> const& v) { return c.loss(c.result(v)); }, 1e-4) < 2e-6);
  }
}

TEST_CASE("hormone gate: the sum of its parts is that") {
  ouro_test::gate_case<R> const c(4, {2, 3, 5, 3}, ouro::dtype::f64);
  auto const r = ouro::hormone_gate_and_fold(c.with(c.inputs));
  CHECK(r.y.values<double>() == ouro::hormone_gate(c.with(c.inputs)).values<double>());
  CHECK(r.folded.dims() == ouro::shape{2, 3, 5});
  CHECK(r.folded.values<double>() == ouro::folded(r.y, 5).values<double>());
  CHECK(ouro::folded(r.folded, 5).values<double>() == r.folded.values<double>());
  CHECK_THROWS_AS(ouro::folded(r.y, 4), ouro::error);
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
