// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products of the cuda backend: those of few rows, with a bias, and with factors and results that are stored in bf16.
#include <tuple>

#include <ouro/ops/matmul.hpp>
#include <ouro_test/stored_twin.hpp>
#if defined(OURO_EMULATED_CUDA)
#include <emulated_cuda.hpp>
#endif

#if defined(OURO_HAS_CUDA)

using C = ouro::cuda;
using R = ouro::reference;
using ouro::dtype;
using ouro::shape;
using ouro_test::need_device;
using ouro_test::stored_twin;

namespace {

struct product_case {
  bool batched, a_columns, b_columns, accumulate, bias;
  std::int64_t batches, m, k, n;
  dtype a, b, c;
};

/// c (+)= a b, or a b + bias, on cuda against the reference: the relative error.
double error(product_case const& p) {
  auto dims = [&](std::int64_t rows, std::int64_t columns, bool turned) {
    shape const d = turned ? shape{columns, rows} : shape{rows, columns};
    return p.batched ? shape{p.batches, d[0], d[1]} : d;
  };
  auto seen = [&](auto const& t, bool turned) {
    return turned ? t.read().transpose(-2 + t.rank(), -1 + t.rank()) : t.read();
  };
  stored_twin const a(dims(p.m, p.k, p.a_columns), p.a);
  stored_twin const b(dims(p.k, p.n, p.b_columns), p.b);
  stored_twin const bias({p.n}, p.c == dtype::f64 ? dtype::f64 : dtype::f32);
  stored_twin c(dims(p.m, p.n, false), p.c);
  if (p.bias) {
    C::affine(c.c.write(), seen(a.c, p.a_columns), seen(b.c, p.b_columns), bias.c.read());
    R::copy(c.r.write(), bias.r.read().expand(c.r.dims()), false);
    R::matmul({c.r.write(), true}, seen(a.r, p.a_columns), seen(b.r, p.b_columns), 1.0);
  } else {
    C::matmul({c.c.write(), p.accumulate}, seen(a.c, p.a_columns), seen(b.c, p.b_columns), 0.7);
    R::matmul({c.r.write(), p.accumulate}, seen(a.r, p.a_columns), seen(b.r, p.b_columns), 0.7);
  }
  return c.error();
}

}  // namespace

TEST_CASE("cuda: products of few rows, with and without a bias") {
  need_device();
  for (int i = 0; i < 60; ++i) {
    dtype const type = i % 5 == 0 ? dtype::f64 : dtype::f32;
    product_case const p{i % 2 == 0,
                         false,
                         i % 3 != 0,
                         i % 7 == 0,
                         i % 4 == 1,
                         ouro_test::pick(1, 3),
                         ouro_test::pick(1, 6),
                         i % 6 == 5 ? 4 * ouro_test::pick(1, 90) : ouro_test::pick(1, 300),
                         ouro_test::pick(1, 150),
                         type,
                         i % 5 == 3 ? dtype::bf16 : type,
                         type};
    INFO(p.batches << " x (" << p.m << "," << p.k << "," << p.n << ")");
    CHECK(error(p) < (type == dtype::f64 ? 1e-13 : 1e-5));
  }
}

TEST_CASE("cuda: products of few rows with long sums, of rows that begin anywhere") {
  need_device();
  // Rows of b, which are cut from wider ones, begin at `first` and lie `pitch` apart.
  struct rows_case {
    std::int64_t batches, m, k, n, first, pitch;
  };
  for (auto const& s : {rows_case{1, 1, 2048, 96, 0, 96},
                        {1, 2, 700, 100, 4, 112},
                        {3, 3, 1100, 36, 8, 48},
                        {2, 4, 513, 64, 0, 64},
                        {1, 4, 900, 33, 0, 33},
                        {1, 3, 260, 32, 1, 36},
                        {2, 1, 130, 34, 0, 36},
                        {1, 2, 70, 2, 2, 5},
                        {1, 1, 1, 3, 0, 4},
                        {40, 2, 5, 8, 0, 8}})
    for (auto const& [type, stored, limit] :
         {std::tuple{dtype::f32, dtype::f32, 1e-5}, {dtype::f32, dtype::bf16, 1e-5}, {dtype::f64, dtype::f64, 1e-13}})
      for (bool const accumulate : {false, true}) {
        INFO(s.batches << " x (" << s.m << "," << s.k << "," << s.n << ") from " << s.first << " of " << s.pitch
                       << " in " << ouro::name_of(type) << " and " << ouro::name_of(stored));
        stored_twin const a({s.batches, s.m, s.k}, type);
        stored_twin const b({s.batches, s.k, s.pitch}, stored);
        stored_twin c({s.batches, s.m, s.n}, type);
        auto rows = [&](auto const& t) { return t.read().slice(2, s.first, s.n); };
        C::matmul({c.c.write(), accumulate}, a.c.read(), rows(b.c), 0.7);
        R::matmul({c.r.write(), accumulate}, a.r.read(), rows(b.r), 0.7);
        CHECK(c.error() < limit);
        auto again = [&] {
          C::matmul(c.c.write(), a.c.read(), rows(b.c), 0.7);
          return c.c.values<double>();
        };
        CHECK(again() == again());
      }
}

TEST_CASE("cuda: products of values that are stored in bf16") {
  need_device();
  dtype const types[] = {dtype::f32, dtype::bf16};
  for (int i = 0; i < 64; ++i) {
    product_case const p{i % 3 == 0,
                         i % 4 == 1,
                         i % 5 < 3,
                         i % 7 < 3,
                         i % 11 == 4,
                         ouro_test::pick(1, 3),
                         ouro_test::pick(1, 40),
                         ouro_test::pick(1, 90),
                         ouro_test::pick(1, 70),
                         types[i % 2],
                         types[i / 2 % 2],
                         types[i / 4 % 2]};
    INFO(p.batches << " x (" << p.m << "," << p.k << "," << p.n << ") " << ouro::name_of(p.a) << " "
                   << ouro::name_of(p.b) << " to " << ouro::name_of(p.c));
    CHECK(error(p) < 1e-2);
  }
}

namespace {

/// What a product is computed from and in, and the error that is allowed.
struct stored_types {
  dtype a, b, c;
  double limit;
};
constexpr stored_types all_types[] = {{dtype::f32, dtype::f32, dtype::f32, 1e-5},
                                      {dtype::bf16, dtype::bf16, dtype::bf16, 1e-2},
                                      {dtype::f32, dtype::bf16, dtype::bf16, 1e-2},
                                      {dtype::bf16, dtype::bf16, dtype::f32, 1e-5},
                                      {dtype::f64, dtype::f64, dtype::f64, 1e-13}};

enum class lie { by_rows, by_columns, apart };  // contiguous rows, contiguous columns, neither

/// Matrices within larger ones: from column `start` on, which have so many columns and rows more.
struct place {
  lie how;
  std::int64_t start = 0, columns = 0, rows = 0;

  [[nodiscard]] shape around(shape const& dims) const {
    shape d = dims;
    if (how == lie::by_columns) std::swap(d[-2], d[-1]);
    if (how == lie::apart) d[-1] *= 2;
    d[-2] += rows;
    d[-1] += columns;
    return d;
  }
  template <class View>
  [[nodiscard]] View of(View const& v) const {
    int const rank = v.dims.rank();
    View w = v.slice(rank - 1, start, v.dims[-1] - columns).slice(rank - 2, 0, v.dims[-2] - rows);
    if (how == lie::by_columns) return w.transpose(rank - 2, rank - 1);
    if (how == lie::by_rows) return w;
    w.dims[-1] /= 2;
    w.steps[-1] *= 2;
    return w;
  }
};

enum class onto { nothing, itself, bias };

struct placed_case {
  std::int64_t batches;  // 0: matrices
  stored_types types;
  onto what;
  place a, b, c;
  std::int64_t bias_start;
};

/// c = a b, c += a b or c = a b + bias on cuda against the reference: the relative error of c and of what is around it.
double placed_error(placed_case const& p) {
  constexpr std::int64_t m = 9, k = 19, n = 21;
  auto dims = [&](std::int64_t rows, std::int64_t columns) {
    return p.batches > 0 ? shape{p.batches, rows, columns} : shape{rows, columns};
  };
  stored_twin const a(p.a.around(dims(m, k)), p.types.a);
  stored_twin const b(p.b.around(dims(k, n)), p.types.b);
  stored_twin const bias({p.bias_start + n}, p.types.c == dtype::f64 ? dtype::f64 : dtype::f32);
  stored_twin c(p.c.around(dims(m, n)), p.types.c);
  auto compute = [&]<class B>(std::type_identity<B>, auto& z, auto const& x, auto const& y, auto const& row) {
    auto const to = p.c.of(z.write());
    auto const added = row.read().slice(0, p.bias_start, n);
    if (p.what != onto::bias) return B::matmul({to, p.what == onto::itself}, p.a.of(x.read()), p.b.of(y.read()), 1.0);
    if constexpr (std::is_same_v<B, C>) return C::affine(to, p.a.of(x.read()), p.b.of(y.read()), added);
    B::copy(to, added.expand(to.dims), false);
    B::matmul({to, true}, p.a.of(x.read()), p.b.of(y.read()), 1.0);
  };
  compute(std::type_identity<C>{}, c.c, a.c, b.c, bias.c);
  compute(std::type_identity<R>{}, c.r, a.r, b.r, bias.r);
  return c.error();
}

}  // namespace

// All of one size: what else decides how a product is computed must be told apart.
TEST_CASE("cuda: products and a bias from every place to every place") {
  need_device();
  constexpr place rows{lie::by_rows}, columns{lie::by_columns};
  for (auto const& t : all_types)
    for (std::int64_t batches : {0, 1, 3})
      for (auto const what : {onto::nothing, onto::itself, onto::bias}) {
        auto check = [&](place const& a, place const& b, place const& c, std::int64_t bias_start = 0) {
          INFO(batches << " batches to " << ouro::name_of(t.c) << " onto " << static_cast<int>(what)
                       << ", columns from " << a.start << ", " << b.start << " and " << c.start << ", bias from "
                       << bias_start);
          CHECK(placed_error({batches, t, what, a, b, c, bias_start}) < t.limit);
        };
        for (auto const how : {lie::by_rows, lie::by_columns})
          for (auto const& other : {rows, columns})
            for (auto const& x : {place{how}, {how, 0, 8}, {how, 1, 8}, {how, 8, 8}, {how, 0, 8, 1}, {how, 0, 11}}) {
              check(x, other, rows);
              check(other, x, rows);
              check(rows, other, x);
              check(columns, other, x);
            }
        check(rows, columns, {lie::apart, 1, 3});
        for (std::int64_t start : {0, 1, 4, 8, 0}) check(rows, columns, rows, start);
      }
}

TEST_CASE("cuda: addends that are repeated along any axis") {
  need_device();
  for (std::int64_t m : {3, 10})
    for (auto const& repeated : {shape{3, 1, 7}, shape{1, 1, 7}, shape{3, m, 1}, shape{1, m, 7}, shape{3, m, 7}})
      for (auto const type : {dtype::f32, dtype::bf16}) {
        INFO(m << " rows, addend " << repeated.str() << " in " << ouro::name_of(type));
        stored_twin const a({3, m, 5}, dtype::f32), b({3, 5, 7}, dtype::f32), addend(repeated, type);
        CHECK(ouro_test::relative_error(ouro::matmul(a.c, b.c, addend.c), ouro::matmul(a.r, b.r, addend.r)) < 1e-5);
      }
}

TEST_CASE("cuda: a long product has the same bits each time") {
  need_device();
  for (auto const& t : all_types) {
    stored_twin const a({40, 5000}, t.a), b({5000, 56}, t.b);
    stored_twin const bias({56}, t.c == dtype::f64 ? dtype::f64 : dtype::f32);
    auto product = [&] {
      ouro::tensor<C> c({40, 56}, t.c);
      C::affine(c.write(), a.c.read(), b.c.read(), bias.c.read());
      return c;
    };
    auto const first = product();
    ouro::tensor<R> right({40, 56}, dtype::f64);
    R::copy(right.write(), bias.r.read().expand({40, 56}), false);
    R::matmul({right.write(), true}, a.r.read(), b.r.read(), 1.0);
    CHECK(ouro_test::relative_error(first, right) < t.limit);
    for (int turn = 0; turn < 5; ++turn) CHECK(product().values<double>() == first.values<double>());
  }
}

#if defined(OURO_EMULATED_CUDA)

TEST_CASE("cuda: the bias of a product is added by the product") {
  auto counts = [](stored_types const& t, place const& c) {
    auto const before = emulated_cuda::products();
    CHECK(placed_error({2, t, onto::bias, {lie::by_rows}, {lie::by_rows}, c, 0}) < t.limit);
    auto const after = emulated_cuda::products();
    return std::pair(after.all - before.all, after.with_bias - before.with_bias);
  };
  for (auto const& t : all_types) {
    int const known = t.c == dtype::f64 ? 0 : 1;
    CHECK(counts(t, {lie::by_rows}) == std::pair(known, known));
    CHECK(counts(t, {lie::by_rows, 1, 3}) == std::pair(known, known));
    CHECK(counts(t, {lie::apart}) == std::pair(known, known));
    CHECK(counts(t, {lie::by_columns}) == std::pair(known, 0));
  }
}

#endif

#endif
