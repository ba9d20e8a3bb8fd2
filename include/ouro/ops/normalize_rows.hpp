// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Normalisation by rows.
#pragma once

#include <optional>

#include <ouro/ops/record.hpp>

namespace ouro {

/// y = (x − mean) / √(variance + eps) ⊙ weight + bias over the last axis (Ba, Kiros & Hinton, 2016): (…,D) → (…,D), of the
/// type `result`: that of x, if none is said.
template <Backend B>
tensor<B> normalize_rows(tensor<B> const& x, tensor<B> const& weight, tensor<B> const& bias, double eps = 1e-5,
                         std::optional<dtype> result = {}) {
  require_one_type("normalize_rows", x, {&weight, &bias});
  require(x.rank() > 0 && weight.dims() == shape{x.dim(-1)} && bias.dims() == weight.dims(), errc::shape,
          "normalize_rows", "weight and bias must have the row's width, got ", x.dims(), ", ", weight.dims(), " and ",
          bias.dims());
  auto const flat = packed(x);
  tensor<B> y(x.dims(), result.value_or(x.type()));
  tensor<B> mean({x.dims().rows()}, weight.type());
  tensor<B> rstd({x.dims().rows()}, weight.type());
  B::layer_norm(y.write(), mean.write(), rstd.write(), flat.read(), weight.read(), bias.read(), eps);
  return recorded<B>("normalize_rows", std::move(y), {&x, &weight, &bias},
                     [flat, mean, rstd, w = weight.detach()](tensor<B> const& dy, gradients<B>& dx) {
                       auto const g = packed(dy);
                       B::layer_norm_gradient(dx.into(0), dx.on_branch(1), dx.on_branch(2), flat.read(), mean.read(),
                                              rstd.read(), w.read(), g.read());
                     });
}

}  // namespace ouro
