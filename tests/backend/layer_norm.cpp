// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Layer norms on cuda of values that are stored in f32 or bf16, each in its own type, against the reference in f64.
#if defined(OURO_HAS_CUDA)

#include <ouro_test/stored_twin.hpp>

using C = ouro::cuda;
using R = ouro::reference;
using ouro::dtype;
using ouro_test::any_inner;
using ouro_test::pick;
using ouro_test::stored_twin;

namespace {

/// One rounding, relative to the largest value.
double limit_of(stored_twin const& t) { return t.c.type() == dtype::bf16 ? 1.0 / 256 : 2e-5; }

}  // namespace

TEST_CASE("cuda: layer norm of inner values in bf16") {
  ouro_test::need_device();
  for (int i = 0; i < 40; ++i) {
    std::int64_t const rows = pick(1, 200);
    std::int64_t const width = i < 15 ? pick(20, 70) : i < 36 ? 4 * pick(10, 300) : pick(4090, 4100);
    bool const add = i % 2 == 0;
    stored_twin x({rows, width}, any_inner()), y({rows, width}, any_inner()), dy({rows, width}, any_inner()),
        dx({rows, width}, any_inner());
    stored_twin w({width}, dtype::f32), b({width}, dtype::f32), dw({width}, dtype::f32), db({width}, dtype::f32),
        mean({rows}, dtype::f32), rstd({rows}, dtype::f32);
    CAPTURE(rows, width, add, x.c.type(), y.c.type(), dy.c.type(), dx.c.type());
    C::layer_norm(y.c.write(), mean.c.write(), rstd.c.write(), x.c.read(), w.c.read(), b.c.read(), 1e-5);
    R::layer_norm(y.r.write(), mean.r.write(), rstd.r.write(), x.r.read(), w.r.read(), b.r.read(), 1e-5);
    for (auto const* t : {&y, &mean, &rstd}) CHECK(t->error() < limit_of(*t));
    C::layer_norm_gradient({dx.c.write(), add}, {dw.c.write(), add}, {db.c.write(), add}, x.c.read(), mean.c.read(),
                           rstd.c.read(), w.c.read(), dy.c.read());
    R::layer_norm_gradient({dx.r.write(), add}, {dw.r.write(), add}, {db.r.write(), add}, x.r.read(), mean.r.read(),
                           rstd.r.read(), w.r.read(), dy.r.read());
    for (auto const* t : {&dx, &dw, &db}) CHECK(t->error() < limit_of(*t));
  }
}

#endif
