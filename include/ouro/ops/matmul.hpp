// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Matrix products: matmul, and the affine map that most of a network is made of.
#pragma once

#include <optional>

#include <ouro/ops/record.hpp>

namespace ouro {

namespace detail {

/// c = addend + a b, where the addend is repeated along axes in which it has extent 1.
template <class B>
void product_onto(view c, const_view a, const_view b, const_view addend) {
  if constexpr (AffineBackend<B>)
    if (addend.dims.size() == c.dims[-1] && addend.contiguous() && addend.dims.back() == c.dims[-1])
      return B::affine(c, a, b, addend.reshape({c.dims[-1]}));
  B::copy(c, addend.expand(c.dims), false);
  B::matmul({c, true}, a, b, 1.0);
}

}  // namespace detail

/// Whether products of this type take their factors as they are, and do not round them first.
template <Backend B>
bool exact_products(dtype type) {
  if constexpr (requires { B::products(); }) return type != dtype::f32 || B::products() == product_precision::f32;
  else return true;
}

/// c = a b, or addend + a b: (M,K)(K,N) → (M,N), or for every batch (N,M,K)(N,K,P) → (N,M,P). Transposed operands are
/// views; the addend may be absent, and is repeated along axes where it has extent 1. c has the type
/// `result`: that of a, if none is said. Any of them may be bf16 where others are f32,
/// if the backend takes it.
template <Backend B>
tensor<B> matmul(tensor<B> const& a, tensor<B> const& b, tensor<B> const& addend = {},
                 std::optional<dtype> result = {}) {
  require((a.rank() == 2 || a.rank() == 3) && a.rank() == b.rank(), errc::shape, "matmul",
          "operands must both be matrices or batches of them, got ", a.dims(), " and ", b.dims());
  require(a.dim(-1) == b.dim(-2), errc::shape, "matmul", "inner dimensions must agree, got ", a.dims(), " and ",
          b.dims());
  require(a.rank() == 2 || a.dim(0) == b.dim(0), errc::shape, "matmul", "batches must agree, got ", a.dims(), " and ",
          b.dims());
  shape const out = a.dims().with(-1, b.dim(-1));
  require(addend.empty() || (addend.rank() == out.rank() && broadcast(addend.dims(), out, "matmul") == out),
          errc::shape, "matmul", "the addend must fit the result ", out, ", got ", addend.dims());
  require_one_type("matmul", a, {&b, &addend});
  tensor<B> c(out, result.value_or(a.type()));
  if (addend) detail::product_onto<B>(c.write(), a.read(), b.read(), addend.read());
  else B::matmul(c.write(), a.read(), b.read(), 1.0);
  return recorded<B>("matmul", std::move(c), {&a, &b, &addend},
                     [a = a.detach(), b = b.detach()](tensor<B> const& dc, gradients<B>& dx) {
                       each_gradient<B>(
                           dc, dx,
                           [&](destination const& d) { B::matmul(d, dc.read(), b.read().transpose(-2, -1), 1.0); },
                           [&](destination const& d) { B::matmul(d, a.read().transpose(-2, -1), dc.read(), 1.0); },
                           [&](destination const& d) { B::reduce_sum(d, dc.read(), 1.0); });
                     });
}

/// y = x Wᵀ + b: x (…,I), W (O,I), b (O) or absent → (…,O), of the type `result`: that of x, if none is said. Any of them
/// may be bf16 where others are f32, if the backend takes it.
template <Backend B>
tensor<B> linear_map(tensor<B> const& x, tensor<B> const& w, tensor<B> const& b, std::optional<dtype> result = {}) {
  require(x.rank() >= 1 && w.rank() == 2 && x.dim(-1) == w.dim(1) && (b.empty() || b.dims() == shape{w.dim(0)}),
          errc::shape, "linear", "needs x (...,I), weight (O,I), bias (O), got ", x.dims(), ", ", w.dims(), " and ",
          b.dims());
  require_one_type("linear", x, {&w, &b});
  auto const flat = packed(x);
  shape const in{x.dims().rows(), w.dim(1)};
  shape const out{x.dims().rows(), w.dim(0)};
  tensor<B> y(x.dims().with(-1, w.dim(0)), result.value_or(x.type()));
  view const rows = y.write().reshape(out);
  auto const weight = w.read().transpose(0, 1);
  if (b) detail::product_onto<B>(rows, flat.read().reshape(in), weight, b.read());
  else B::matmul(rows, flat.read().reshape(in), weight, 1.0);
  return recorded<B>("linear", std::move(y), {&x, &w, &b},
                     [in, out, flat, w = w.detach()](tensor<B> const& dy, gradients<B>& dx) {
                       // Not packed(dy): who shares it would have each_gradient() wait for the branch.
                       auto const dense = dy.contiguous() ? tensor<B>{} : dy.copy();
                       auto const g = (dense ? dense : dy).read().reshape(out);
                       each_gradient<B>(
                           dy, dx,
                           [&](destination const& d) {
                             B::matmul({d.out.reshape(in), d.accumulate}, g, w.read(), 1.0);
                           },
                           [&](destination const& d) { B::matmul(d, g.transpose(0, 1), flat.read().reshape(in), 1.0); },
                           [&](destination const& d) {
                             B::reduce_sum({d.out.reshape({1, out[1]}), d.accumulate}, g, 1.0);
                           });
                     });
}

}  // namespace ouro
