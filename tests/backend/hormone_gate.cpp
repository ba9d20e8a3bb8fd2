// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The fused hormone gate of the accelerated backends against its composition on the reference in f64.
#include <optional>

#include <ouro/autodiff/tape.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/hormone_gate.hpp>
#include <ouro_test/stored_twin.hpp>

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

namespace {

/// The same case on a backend and, in f64, on the reference. Where gradients are `added`, those of another use of the
/// inputs are there already.
template <class In>
void check_gate(int i, ouro_test::gate_sizes const& sizes, bool added) {
  using C = typename In::backend;
  using R = ouro::reference;
  CAPTURE(i, sizes.lanes, sizes.rows, sizes.width, sizes.spread);
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
    auto const said = g.result(g.inputs);
    auto loss = g.loss(said);
    if (added)
      for (auto const& x : g.inputs) loss = loss + ouro::sum(x * x);
    tape.backward(loss);
    for (auto const& x : g.inputs) gradients.push_back(tape.gradient(x));
    return std::pair(said.y.detach(), said.folded.detach());
  };
  std::vector<ouro::tensor<C>> dc;
  std::vector<ouro::tensor<R>> dr;
  auto const [y, sums] = run(c, dc);
  auto const [right, right_sums] = run(r, dr);
  CHECK(ouro_test::relative_error(y, right) < (In::exact ? 1e-12 : 1e-5));
  if (r.folds) CHECK(ouro_test::relative_error(sums, right_sums) < (In::exact ? 1e-12 : 1e-5));
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
           ouro_test::gate_sizes{1, 1, 16},    // a row, and part of a warp
           ouro_test::gate_sizes{1, 5, 128},   // a warp, full
           ouro_test::gate_sizes{1, 90, 136},  // a warp and two threads; more rows than blocks of the least size
           ouro_test::gate_sizes{1, 3, 1536},  // the widest that registers hold
           ouro_test::gate_sizes{1, 3, 1544},  // and one wider
           ouro_test::gate_sizes{2, 2, 4104},  // in several
           ouro_test::gate_sizes{3, 90, 40},   // lanes of several blocks
           ouro_test::gate_sizes{40, 3, 24},   // blocks of several lanes
           ouro_test::gate_sizes{90, 1, 32},   // lanes of one row
           ouro_test::gate_sizes{1, 20, 512},  // two chunks a thread
           ouro_test::gate_sizes{1, 20, 132, 2},
           ouro_test::gate_sizes{2, 9, 40, 3},
           ouro_test::gate_sizes{1, 70, 260, 4},
           ouro_test::gate_sizes{1, 9, 16, 5},  // more repetitions than registers hold
           ouro_test::gate_sizes{2, 33, 6, 4},  // rows that do not lie aligned, which share Philox blocks
           ouro_test::gate_sizes{1, 1, 10, 4},
           ouro_test::gate_sizes{1, 2, 14, 4},
       })
    for (int i : {0, 1, 7, 10, 15}) check_gate<TestType>(i, sizes, i % 2 == 0);
}

#endif
#if defined(OURO_HAS_CUDA)

namespace {

using C = ouro::cuda;
using R = ouro::reference;
using ouro::dtype;

/// What both sides see of values of this type.
ouro::tensor<R> seen(ouro::tensor<R> const& x, dtype type) { return x.copy(type).copy(dtype::f64); }
ouro::tensor<C> stored(ouro::tensor<R> const& x, dtype type) {
  return ouro::tensor<C>::from(x.values<double>(), x.dims(), type);
}

/// A gradient of the gate on the device, which is added to what was there or replaces it.
struct inner_gradient {
  ouro::tensor<R> before;
  ouro::tensor<C> after;
  inner_gradient(ouro::shape const& dims, dtype type)
      : before(seen(ouro_test::noise<R>(dims), type)), after(stored(before, type)) {}
  double error(ouro::tensor<R> const& right, bool added) const {
    return ouro_test::relative_distance(after, added ? before + right : right);
  }
};

/// What the inner values of a gate are stored in: by default each in f32 or bf16.
struct gate_types {
  dtype x = ouro_test::any_inner();
  dtype f = ouro_test::any_inner();
  dtype residual = ouro_test::any_inner();
  dtype y = ouro_test::any_inner();   // and its sum
  dtype dy = ouro_test::any_inner();  // and that of the sum
  dtype dx = ouro_test::any_inner();
  dtype df = ouro_test::any_inner();
};
constexpr gate_types all_in_bf16{dtype::bf16, dtype::bf16, dtype::bf16, dtype::bf16,
                                 dtype::bf16, dtype::bf16, dtype::bf16};

void check_inner_gate(int i, ouro_test::gate_sizes const& sizes, gate_types const& types, bool add) {
  // What is stored in f32 is but as good as the functions of the gate.
  auto limit = [](ouro::tensor<C> const& x) { return x.type() == dtype::bf16 ? 2e-2 : 5e-3; };
  ouro_test::gate_case<R> r(i, sizes, dtype::f32);
  std::vector<ouro::tensor<C>> c;
  for (std::size_t k = 0; k < r.inputs.size(); ++k) {
    dtype const type = k == 0 ? types.x : k == 9 ? types.residual : k == 2 && !r.normalises ? types.f : dtype::f32;
    r.inputs[k] = seen(r.inputs[k], type);
    c.push_back(stored(r.inputs[k], type));
  }
  CAPTURE(i, sizes.lanes, sizes.rows, sizes.width, sizes.spread, c[0].type(), c[2].type());
  ouro::tape<R> tape;
  for (auto const& x : r.inputs) tape.watch(x);
  auto const [right, right_sums] = r.result(r.inputs);
  auto const dy = seen(r.weights(right.dims()), types.dy);
  auto const dfolded = r.folds ? seen(r.weights(right_sums.dims()), types.dy) : ouro::tensor<R>{};
  tape.backward(r.folds ? ouro::sum(right * dy) + ouro::sum(right_sums * dfolded) : ouro::sum(right * dy));

  std::int64_t const rows = sizes.lanes * sizes.rows;
  std::int64_t const wide = sizes.spread * sizes.width;
  ouro::shape const narrow_rows{rows, sizes.width};
  ouro::shape const wide_rows{rows, wide};
  ouro::const_view const none;
  ouro::hormone_gate_operands const in{c[0].read().reshape(narrow_rows),
                                       c[1].read().reshape({sizes.lanes, sizes.width}),
                                       r.normalises ? none : c[2].read().reshape(wide_rows),
                                       r.normalises ? c[2].read() : none,
                                       c[3].read(),
                                       c[4].read(),
                                       c[5].read(),
                                       c[6].read(),
                                       c[7].read(),
                                       c[8].read(),
                                       r.remains ? c[9].read().reshape(wide_rows) : none,
                                       r.gelu,
                                       r.dropout,
                                       {11, 7}};
  ouro::tensor<C> y(right.dims(), types.y);
  ouro::tensor<C> statistics({rows, ouro::hormone_gate_statistics}, dtype::f32);
  auto sums = r.folds ? ouro::tensor<C>(right_sums.dims(), types.y) : ouro::tensor<C>{};
  C::hormone_gate(
      {y.write().reshape(wide_rows), r.folds ? sums.write().reshape(narrow_rows) : ouro::view{}, statistics.write()},
      in);
  CHECK(ouro_test::relative_distance(y, right.detach()) < limit(y));
  if (r.folds) CHECK(ouro_test::relative_distance(sums, right_sums.detach()) < limit(sums));

  std::vector<inner_gradient> d;
  for (std::size_t k = 0; k < 9; ++k)
    d.emplace_back(r.inputs[k].dims(), k == 0 ? types.dx : k == 2 && !r.normalises ? types.df : dtype::f32);
  auto to = [&d, add](std::size_t k) { return ouro::destination(d[k].after.write(), add); };
  ouro::hormone_gate_gradients gradients{to(0), to(1), {}, {}, to(3), to(4), to(5), to(6), to(7), to(8)};
  (r.normalises ? gradients.scale : gradients.f) = to(2);
  auto const dsums = r.folds ? stored(dfolded, types.dy) : ouro::tensor<C>{};
  C::hormone_gate_gradient(gradients, in, statistics.read(), stored(dy, types.dy).read().reshape(wide_rows),
                           r.folds ? dsums.read().reshape(narrow_rows) : none);
  for (std::size_t k = 0; k < d.size(); ++k) {
    CAPTURE(k, d[k].after.type());
    CHECK(d[k].error(tape.gradient(r.inputs[k]), add) < limit(d[k].after));
  }
}

}  // namespace

TEST_CASE("cuda: hormone gate of inner values in bf16") {
  ouro_test::need_device();
  REQUIRE(C::has_hormone_gate(dtype::f32));
  for (ouro_test::gate_sizes const& sizes : {
           ouro_test::gate_sizes{1, 5, 128},
           ouro_test::gate_sizes{3, 40, 40},     // lanes of several blocks, and part of a warp
           ouro_test::gate_sizes{1, 20, 384},    // three chunks a thread, or one
           ouro_test::gate_sizes{20, 3, 256},    // two
           ouro_test::gate_sizes{2, 3, 392},     // one
           ouro_test::gate_sizes{1, 3, 1536},    // the widest that registers hold
           ouro_test::gate_sizes{1, 3, 1544},    // and one wider
           ouro_test::gate_sizes{2, 9, 132, 2},  // repetitions
           ouro_test::gate_sizes{2, 9, 40, 3}, ouro_test::gate_sizes{1, 30, 260, 4},
           ouro_test::gate_sizes{1, 9, 16, 5},  // more repetitions than registers hold
           ouro_test::gate_sizes{2, 33, 6, 4},  // rows that do not lie aligned
       }) {
    for (int i = 0; i < 12; ++i) check_inner_gate(i, sizes, {}, i % 2 == 1);
    for (int i : {0, 1, 2, 3}) check_inner_gate(i, sizes, all_in_bf16, i % 2 == 1);
  }
}

TEST_CASE("cuda: the three hormone gates of a layer in bf16") {
  ouro_test::need_device();
  auto const f32 = dtype::f32;
  auto const bf16 = dtype::bf16;
  struct gate {
    std::vector<int> cases;
    std::int64_t spread;
    gate_types types;
  };
  gate const gates[] = {
      {{3}, 1, {f32, f32, f32, bf16, bf16, f32, f32}},           // of a layer norm
      {{2, 10}, 4, {bf16, bf16, bf16, bf16, bf16, bf16, bf16}},  // with GELU and the sum, and with dropout
      {{1}, 1, {bf16, bf16, f32, f32, f32, bf16, bf16}}};        // with a residual
  for (auto const& g : gates)
    for (std::int64_t width : {128, 256, 384, 512, 640, 1024})
      for (auto const& [lanes, rows] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 7}, {1, 70}})
        for (int i : g.cases)
          for (bool add : {false, true}) check_inner_gate(i, {lanes, rows, width, g.spread}, g.types, add);

#if defined(OURO_EMULATED_CUDA)
  std::int64_t const many = 120;  // rows that a thread has several chunks of: two, three, four
#else
  std::int64_t const many = 4000;
#endif
  for (auto const& g : gates)
    for (std::int64_t width : {256, 384, 512})
      for (int i : g.cases) check_inner_gate(i, {1, many, width, g.spread}, g.types, false);
}

#endif
#if defined(OURO_HAS_CPU)

TEST_CASE("cpu: the hormone gate does not depend on the number of threads") {
  int const before = ouro::cpu_threads();
  ouro_test::gate_case<ouro::cpu> c(7, 40, ouro::dtype::f32);
  std::vector<std::vector<float>> found;
  for (int threads : {1, 2, 3}) {
    ouro::set_cpu_threads(threads);
    ouro::tape<ouro::cpu> tape;
    for (auto const& x : c.inputs) tape.watch(x);
    tape.backward(c.loss(c.result(c.inputs)));
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
