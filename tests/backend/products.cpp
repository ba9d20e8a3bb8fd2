// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products of the cuda backend: those of few rows, with a bias, and with factors and results that are stored in bf16.
#include <ouro_test/stored_twin.hpp>

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

#endif
