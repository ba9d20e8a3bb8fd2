// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The fused hormone gate of the accelerated backends against its composition on the reference in f64.
#include <ouro/autodiff/tape.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/hormone_gate.hpp>

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

namespace {

/// The same case on a backend and, in f64, on the reference. Where gradients are `added`, those of another use of the
/// inputs are there already.
template <class In>
void check_gate(int i, ouro_test::gate_sizes const& sizes, bool added) {
  using C = typename In::backend;
  using R = ouro::reference;
  CAPTURE(i, sizes.lanes, sizes.rows, sizes.width, sizes.fold, sizes.spread);
  ouro_test::gate_case<R> r(i, sizes, ouro::dtype::f32);
  ouro_test::gate_case<C> c(i, {1, 1, 4}, ouro::dtype::f32);  // its inputs are made those of the reference
  c.normalises = r.normalises;
  c.inputs.clear();
  for (auto& x : r.inputs) {
    c.inputs.push_back(ouro::tensor<C>::from(x.template values<float>(), x.dims(), In::type));
    x = x.copy(ouro::dtype::f64);
  }
  auto run = [added](auto const& g, auto& gradients) {
    using B = typename std::remove_cvref_t<decltype(g.inputs[0])>::backend;
    ouro::tape<B> tape;
    for (auto const& x : g.inputs) tape.watch(x);
    auto const y = ouro::hormone_gate(g.with(g.inputs));
    auto loss = ouro::sum(y * g.weights(y.dims()));
    if (added)
      for (auto const& x : g.inputs) loss = loss + ouro::sum(x * x);
    tape.backward(loss);
    for (auto const& x : g.inputs) gradients.push_back(tape.gradient(x));
    return y.detach();
  };
  std::vector<ouro::tensor<C>> dc;
  std::vector<ouro::tensor<R>> dr;
  auto const y = run(c, dc);
  CHECK(ouro_test::relative_error(y, run(r, dr)) < (In::exact ? 1e-12 : 1e-5));
  // A layer norm over few values divides by a small deviation now and then: its gradient is less exact than its value.
  for (std::size_t k = 0; k < dc.size(); ++k)
    CHECK(ouro_test::relative_error(dc[k], dr[k]) < (In::exact ? 1e-10 : 1e-4));
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("backends: hormone gate and its gradient", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  REQUIRE(TestType::backend::has_hormone_gate(TestType::type));
  for (int i = 0; i < 51; i += i < 40 ? 1 : 5)  // the last ones are wide, with dropout
    check_gate<TestType>(i, ouro_test::gate_sizes::random(i, i < 40 ? 1 + i % 12 : 60), false);
}

TEMPLATE_LIST_TEST_CASE("backends: hormone gate at the edges of its kernels", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  for (ouro_test::gate_sizes const& sizes : {
           ouro_test::gate_sizes{1, 1, 16},      // a row, and part of a warp
           ouro_test::gate_sizes{1, 5, 128},     // a warp, full
           ouro_test::gate_sizes{1, 90, 136},    // a warp and two threads; more rows than blocks of the least size
           ouro_test::gate_sizes{1, 3, 1536},    // the widest that registers hold
           ouro_test::gate_sizes{1, 3, 1544},    // and one wider, in two chunks
           ouro_test::gate_sizes{2, 2, 4104},    // in several
           ouro_test::gate_sizes{3, 90, 40},     // lanes of several blocks
           ouro_test::gate_sizes{40, 3, 24},     // blocks of several lanes
           ouro_test::gate_sizes{90, 1, 32, 4},  // lanes of one row
           ouro_test::gate_sizes{1, 20, 392},    // two chunks a thread, the second not for all
           ouro_test::gate_sizes{1, 20, 132, 1, 2},
           ouro_test::gate_sizes{2, 9, 40, 2, 3},
           ouro_test::gate_sizes{1, 70, 260, 4, 4},
           ouro_test::gate_sizes{1, 9, 16, 1, 5},  // more repetitions than registers hold
           ouro_test::gate_sizes{2, 33, 6, 3, 4},  // rows that do not lie aligned, which share Philox blocks
           ouro_test::gate_sizes{1, 1, 10, 1, 4},
           ouro_test::gate_sizes{1, 2, 14, 1, 4},
       })
    for (int i : {0, 1, 10, 15}) check_gate<TestType>(i, sizes, i % 2 == 0);
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
