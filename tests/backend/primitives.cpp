// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Every primitive of the accelerated backends against the reference in f64, on random shapes, strided and accumulating.
#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

#include <ouro/tensor/tensor.hpp>
#include <ouro/train/adamw.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>

using R = ouro::reference;
using ouro::dtype;
using ouro::shape;
using ouro_test::pick;
using ouro_test::relative_error;

namespace {

constexpr int shapes = 20;
template <class In>
constexpr double limit = In::exact ? 1e-12 : 1e-5;

/// The same values, which f32 has too, on both sides; the reference computes in f64.
template <class In>
struct twin {
  ouro::tensor<typename In::backend> c;
  ouro::tensor<R> r;
  explicit twin(shape const& dims, bool random = true) {
    auto const z = random ? ouro_test::noise<R>(dims, dtype::f32) : ouro::tensor<R>::zeros(dims);
    r = z.copy(dtype::f64);
    c = ouro::tensor<typename In::backend>::from(z.values<float>(), dims, In::type);
  }
  [[nodiscard]] std::vector<double> got() const { return c.template values<double>(); }
  [[nodiscard]] std::vector<double> right() const { return r.values<double>(); }
  [[nodiscard]] double error(double least = 1e-300) const { return relative_error(c, r, least); }
};

template <class A>
ouro::tensor<A> indices(std::vector<std::int32_t> const& v, shape const& dims) {
  return ouro::tensor<A>::from(v, dims);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("backends: elementwise", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  using pair = twin<TestType>;
  constexpr double limit = ::limit<TestType>;
  for (int i = 0; i < shapes; ++i) {
    shape const dims{pick(1, 9), pick(1, 40), pick(1, 70)};
    bool const add = i % 2 == 0;
    for (auto f : {ouro::unary::gelu, ouro::unary::tanh, ouro::unary::sigmoid, ouro::unary::silu, ouro::unary::exp,
                   ouro::unary::square, ouro::unary::softplus, ouro::unary::relu}) {
      pair x(dims), y(dims), s(dims), dx(dims);
      C::map(f, y.c.write(), x.c.read());
      R::map(f, y.r.write(), x.r.read());
      CHECK(y.error() < limit);
      C::map_gradient(f, {dx.c.write(), add}, s.c.read(), x.c.read());
      R::map_gradient(f, {dx.r.write(), add}, s.r.read(), x.r.read());
      CHECK(dx.error() < limit);
    }
    for (auto const& b_dims : {dims, shape{dims[2]}, shape{1}, shape{dims[1], 1}, shape{dims[0], 1, dims[2]}})
      for (auto f : {ouro::binary::add, ouro::binary::subtract, ouro::binary::multiply, ouro::binary::divide}) {
        pair a(dims), b(b_dims), y(dims);
        if (f == ouro::binary::divide) {
          C::map(ouro::unary::exp, b.c.write(), b.c.copy().read());
          R::map(ouro::unary::exp, b.r.write(), b.r.copy().read());
        }
        C::combine(f, {y.c.write(), add}, a.c.read(), b.c.read().expand(dims));
        R::combine(f, {y.r.write(), add}, a.r.read(), b.r.read().expand(dims));
        CHECK(y.error() < limit);
        if (f == ouro::binary::divide) continue;
        C::combine(f, {y.c.write(), add}, b.c.read().expand(dims), a.c.read());
        R::combine(f, {y.r.write(), add}, b.r.read().expand(dims), a.r.read());
        CHECK(y.error() < limit);
      }
    pair x(dims), y(dims);
    C::scale({y.c.write(), add}, x.c.read(), 0.3);
    R::scale({y.r.write(), add}, x.r.read(), 0.3);
    CHECK(y.error() < limit);
    pair t({dims[2], dims[1], dims[0]});
    C::copy(t.c.write(), x.c.read().transpose(0, 2), add);
    R::copy(t.r.write(), x.r.read().transpose(0, 2), add);
    CHECK(t.error() < limit);
    CHECK(std::abs(ouro::norm_of<C>({x.c}) / ouro::norm_of<R>({x.r}) - 1) < 1e-12);
  }
}

TEMPLATE_LIST_TEST_CASE("backends: reductions", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  using pair = twin<TestType>;
  constexpr double limit = ::limit<TestType>;
  for (int i = 0; i < shapes; ++i) {
    shape const dims{pick(1, 5), pick(1, 90), pick(1, 60)};
    pair x(dims);
    for (auto const& to : {shape{1, 1, 1}, dims.with(0, 1), dims.with(1, 1), dims.with(2, 1), shape{1, 1, dims[2]},
                           shape{dims[0], 1, 1}}) {
      pair y(to);
      C::reduce_sum({y.c.write(), i % 2 == 0}, x.c.read(), 0.5);
      R::reduce_sum({y.r.write(), i % 2 == 0}, x.r.read(), 0.5);
      double size = 1;  // sums cancel: measured against the size of what is summed
      for (double v : y.right()) size = std::max(size, std::abs(v));
      auto const a = y.got();
      auto const b = y.right();
      for (std::size_t k = 0; k < a.size(); ++k)
        CHECK(std::abs(a[k] - b[k]) < 3 * limit * std::max(size, std::sqrt(static_cast<double>(dims.size()))));
    }
  }
}

TEMPLATE_LIST_TEST_CASE("backends: products", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  using pair = twin<TestType>;
  constexpr double limit = ::limit<TestType>;
  for (int i = 0; i < shapes; ++i) {
    std::int64_t const m = pick(1, 130), n = pick(1, 130), k = pick(1, 90);
    pair a({m, k}), b({k, n}), bt({n, k}), at({k, m}), y({m, n});
    auto both = [&](pair& x, bool tx, pair& w, bool tw) {
      C::matmul({y.c.write(), i % 2 == 0}, tx ? x.c.read().transpose(0, 1) : x.c.read(),
                tw ? w.c.read().transpose(0, 1) : w.c.read(), 0.5);
      R::matmul({y.r.write(), i % 2 == 0}, tx ? x.r.read().transpose(0, 1) : x.r.read(),
                tw ? w.r.read().transpose(0, 1) : w.r.read(), 0.5);
      CHECK(y.error() < limit);
    };
    both(a, false, b, false);
    both(a, false, bt, true);
    both(at, true, b, false);
    both(at, true, bt, true);
    pair p({3, m, k}), q({3, k, n}), z({3, m, n});
    C::matmul(z.c.write(), p.c.read(), q.c.read(), 1.0);
    R::matmul(z.r.write(), p.r.read(), q.r.read(), 1.0);
    CHECK(z.error() < limit);
    ouro::tensor<C> d({m, n}, dtype::f64);
    C::matmul(d.write(), a.c.copy(dtype::f64).read(), b.c.copy(dtype::f64).read(), 1.0);
    ouro::tensor<R> e({m, n}, dtype::f64);
    R::matmul(e.write(), a.r.read(), b.r.read(), 1.0);
    CHECK(relative_error(d, e) < 1e-12);
  }
}

TEMPLATE_LIST_TEST_CASE("backends: norms", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  using pair = twin<TestType>;
  constexpr double limit = ::limit<TestType>;
  for (int i = 0; i < shapes; ++i) {
    // Wide enough that no row's deviation is small by chance, which would make its gradient inexact.
    std::int64_t const rows = pick(2, 200), width = i < 12   ? pick(8, 70)
                                                    : i < 18 ? 4 * pick(20, 150)
                                                             : pick(1000, 5000);
    bool const add = i % 2 == 0;
    pair x({rows, width}), w({width}), b({width}), y({rows, width}), mean({rows}), rstd({rows}), dy({rows, width});
    C::layer_norm(y.c.write(), mean.c.write(), rstd.c.write(), x.c.read(), w.c.read(), b.c.read(), 1e-5);
    R::layer_norm(y.r.write(), mean.r.write(), rstd.r.write(), x.r.read(), w.r.read(), b.r.read(), 1e-5);
    CHECK(y.error() < limit);
    pair dx({rows, width}), dw({width}), db({width});
    C::layer_norm_gradient({dx.c.write(), add}, {dw.c.write(), add}, {db.c.write(), add}, x.c.read(), mean.c.read(),
                           rstd.c.read(), w.c.read(), dy.c.read());
    R::layer_norm_gradient({dx.r.write(), add}, {dw.r.write(), add}, {db.r.write(), add}, x.r.read(), mean.r.read(),
                           rstd.r.read(), w.r.read(), dy.r.read());
    CHECK(dx.error() < 2 * limit);
    CHECK(dw.error() < limit);
    CHECK(db.error() < limit);
    pair m({width}), v({width});
    C::batch_norm(y.c.write(), m.c.write(), v.c.write(), x.c.read(), w.c.read(), b.c.read(), 1e-5);
    R::batch_norm(y.r.write(), m.r.write(), v.r.write(), x.r.read(), w.r.read(), b.r.read(), 1e-5);
    CHECK(y.error() < limit);
    CHECK(v.error() < limit);
    pair mean_alone({width}), variance_alone({width});
    C::column_moments(mean_alone.c.write(), variance_alone.c.write(), x.c.read());
    R::column_moments(mean_alone.r.write(), variance_alone.r.write(), x.r.read());
    CHECK(mean_alone.error() < limit);
    CHECK(variance_alone.error() < limit);
    C::batch_norm_gradient({dx.c.write(), add}, {dw.c.write(), add}, {db.c.write(), add}, x.c.read(), m.c.read(),
                           v.c.read(), w.c.read(), dy.c.read(), 1e-5);
    R::batch_norm_gradient({dx.r.write(), add}, {dw.r.write(), add}, {db.r.write(), add}, x.r.read(), m.r.read(),
                           v.r.read(), w.r.read(), dy.r.read(), 1e-5);
    CHECK(dx.error() < 2 * limit);
    CHECK(dw.error() < 2 * limit);
  }
}

TEMPLATE_LIST_TEST_CASE("backends: products with weights in bf16 are those with the same weights in f32", "",
                        ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  if (TestType::exact) SUCCEED("f64 has no such weights");
  else
    for (int i = 0; i < shapes; ++i) {
      std::int64_t const m = i % 2 == 0 ? pick(1, 5) : pick(1, 60), k = pick(1, 150), n = pick(1, 90);
      ouro::tensor<C> const x = ouro_test::noise<C>({m, k}, dtype::f32);
      ouro::tensor<C> const w = ouro_test::noise<C>({2, n, k}, dtype::f32).copy(dtype::bf16);
      auto product = [&](ouro::tensor<C> const& weights) {
        auto y = ouro::tensor<C>::full({m, n}, dtype::f32, 0.5);
        auto const matrix = weights.read().slice(0, 1, 1).reshape({n, k});
        C::matmul({y.write(), i % 3 == 0}, x.read(), matrix.transpose(0, 1), 0.7);
        return y;
      };
      CHECK(relative_error(product(w), product(w.copy(dtype::f32)), 1.0) < 1e-5);
    }
}

TEMPLATE_LIST_TEST_CASE("backends: attention", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  using pair = twin<TestType>;
  constexpr double limit = ::limit<TestType>;
  for (int i = 0; i < shapes; ++i) {
    std::int64_t const heads = pick(1, 3), width = heads * pick(1, 20), lanes = pick(1, 3);
    std::int64_t const queries = i < 10 ? pick(1, 40) : pick(60, 150);
    std::int64_t const keys = i % 4 == 1 ? pick(1, 8) : i % 4 == 3 ? pick(50, 90) : queries;
    ouro::attention_rule rule{
        .heads = heads, .scale = 0.4, .sees = {}, .dropout = i % 3 == 0 ? 0.2 : 0.0, .draw = {3, 5}};
    std::int64_t const prefix = pick(1, queries);
    if (i % 2 == 0) rule.sees = {prefix, pick(0, queries - prefix), 0};
    pair q({lanes, queries, 2 * width}), kv({lanes, keys, 2 * width}), y({lanes, queries, width}),
        lse({lanes, heads, queries}), dy({lanes, queries, width});
    auto part = [&](auto const& t, int n) { return t.read().slice(2, n * width, width); };
    C::attention(y.c.write(), lse.c.write(), part(q.c, 1), part(kv.c, 0), part(kv.c, 1), rule);
    R::attention(y.r.write(), lse.r.write(), part(q.r, 1), part(kv.r, 0), part(kv.r, 1), rule);
    CHECK(y.error() < limit);
    CHECK(lse.error() < limit);
    pair dq({lanes, queries, width}), dk({lanes, keys, width}), dv({lanes, keys, width});
    bool const add = i % 2 == 0;
    C::attention_gradient({dq.c.write(), add}, {dk.c.write(), add}, {dv.c.write(), add}, part(q.c, 1), part(kv.c, 0),
                          part(kv.c, 1), y.c.read(), lse.c.read(), dy.c.read(), rule);
    R::attention_gradient({dq.r.write(), add}, {dk.r.write(), add}, {dv.r.write(), add}, part(q.r, 1), part(kv.r, 0),
                          part(kv.r, 1), y.r.read(), lse.r.read(), dy.r.read(), rule);
    // With one visible key these vanish: what is left is measured against the size of the operands, about 1.
    CHECK(relative_error(dq.c, dq.r, 1.0) < 2 * limit);
    CHECK(relative_error(dk.c, dk.r, 1.0) < 2 * limit);
    CHECK(dv.error() < limit);
  }
}

TEMPLATE_LIST_TEST_CASE("backends: tables, losses, updates", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  using pair = twin<TestType>;
  constexpr double limit = ::limit<TestType>;
  for (int i = 0; i < shapes; ++i) {
    std::int64_t const rows = pick(1, 90), classes = pick(2, 60), width = pick(1, 50);
    std::vector<std::int32_t> index, targets;
    for (std::int64_t r = 0; r < rows; ++r) {
      targets.push_back(static_cast<std::int32_t>(pick(-1, classes - 1)));
      for (int k = 0; k < 3; ++k) index.push_back(static_cast<std::int32_t>(pick(-1, classes - 1)));
    }
    pair logits({rows, classes}), nll({rows}), dl({rows, classes}), table({3, classes, width}), y({rows, width}),
        dt({3, classes, width}), more({width});
    ouro::const_view const none;
    bool const add = i % 2 == 0;
    auto const lc = indices<C>(targets, {rows});
    auto const lr = indices<R>(targets, {rows});
    pair dn({rows});
    C::cross_entropy(nll.c.write(), logits.c.read(), lc.read());
    R::cross_entropy(nll.r.write(), logits.r.read(), lr.read());
    CHECK(nll.error() < limit);
    C::cross_entropy_gradient({dl.c.write(), add}, logits.c.read(), lc.read(), dn.c.read());
    R::cross_entropy_gradient({dl.r.write(), add}, logits.r.read(), lr.read(), dn.r.read());
    CHECK(dl.error() < limit);
    R::cross_entropy_gradient(dl.r.write(), logits.r.read(), lr.read(), dn.r.read());
    C::copy(dl.c.write(), logits.c.read(), false);
    auto const place = dl.c.write();  // where the logits are
    C::cross_entropy_gradient(place, place, lc.read(), dn.c.read());
    CHECK(dl.error() < limit);
    C::gather_sum(y.c.write(), table.c.read(), indices<C>(index, {rows, 3}).read(), add ? more.c.read() : none);
    R::gather_sum(y.r.write(), table.r.read(), indices<R>(index, {rows, 3}).read(), add ? more.r.read() : none);
    CHECK(y.error() < limit);
    C::scatter_sum({dt.c.write(), add}, indices<C>(index, {rows, 3}).read(), y.c.read());
    R::scatter_sum({dt.r.write(), add}, indices<R>(index, {rows, 3}).read(), y.r.read());
    CHECK(dt.error() < limit);
    // Dropout masks agree bit for bit, whatever the length.
    pair x({rows * width});
    ouro::tensor<C> kept({rows * width}, TestType::type);
    ouro::tensor<R> same({rows * width}, TestType::type);
    C::dropout(kept.write(), x.c.read(), 0.3, {11, static_cast<std::uint64_t>(i)});
    R::dropout(same.write(), x.r.copy(TestType::type).read(), 0.3, {11, static_cast<std::uint64_t>(i)});
    CHECK(kept.template values<double>() == same.template values<double>());
    // And so do other numbers, but for what a device's logarithm and cosine round to.
    pair drawn({rows * width}, false);
    C::normal(drawn.c.write(), {17, static_cast<std::uint64_t>(i)});
    R::normal(drawn.r.write(), {17, static_cast<std::uint64_t>(i)});
    CHECK(drawn.error() < 1e-6);
    C::uniform(drawn.c.write(), {19, static_cast<std::uint64_t>(i)}, -0.5, 2.0);
    R::uniform(drawn.r.write(), {19, static_cast<std::uint64_t>(i)}, -0.5, 2.0);
    CHECK(drawn.error() < 1e-6);
    pair before({rows * width}), sum({rows * width}, false);
    C::add_dropped(sum.c.write(), before.c.read(), x.c.read(), 0.3, {11, static_cast<std::uint64_t>(i)});
    R::copy(sum.r.write(), before.r.read(), false);
    R::dropout({sum.r.write(), true}, x.r.read(), 0.3, {11, static_cast<std::uint64_t>(i)});
    CHECK(sum.error() < limit);
    pair p({rows}), m({rows}, false), v({rows}, false);
    for (int step = 0; step < 3; ++step) {
      ouro::adamw_step const s{
          .learning_rate = 0.01, .weight_decay = 0.1, .correction1 = 0.2, .correction2 = 0.1, .gradient_scale = 0.7};
      ouro::adamw_update const uc{p.c.write(), m.c.write(), v.c.write(), dn.c.read(), s};
      ouro::adamw_update const ur{p.r.write(), m.r.write(), v.r.write(), dn.r.read(), s};
      C::adamw(&uc, 1);
      R::adamw(&ur, 1);
    }
    CHECK(p.error() < limit);
  }
}

#endif
