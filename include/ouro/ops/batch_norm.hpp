// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Normalisation by columns, with the batch's own statistics.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

/// The result of a batch normalisation, with the statistics it used.
template <class B>
struct batch_norm_result {
  tensor<B> y;
  tensor<B> mean;      // (C)
  tensor<B> variance;  // (C), biased
};

/// y = (x − mean) / √(variance + eps) ⊙ weight + bias with the mean and the biased variance of each column over all
/// rows (Ioffe & Szegedy, 2015): (R,C) → (R,C). The statistics carry no gradient of their own.
template <Backend B>
batch_norm_result<B> batch_norm(tensor<B> const& x, tensor<B> const& weight, tensor<B> const& bias, double eps = 1e-5) {
  require(x.rank() == 2 && x.dim(0) > 0 && weight.dims() == shape{x.dim(1)} && bias.dims() == weight.dims(),
          errc::shape, "batch_norm", "needs x (R,C) with R > 0, weight (C), bias (C), got ", x.dims(), ", ",
          weight.dims(), " and ", bias.dims());
  auto const flat = packed(x);
  tensor<B> y(x.dims(), x.type());
  tensor<B> mean({x.dim(1)}, x.type());
  tensor<B> variance({x.dim(1)}, x.type());
  B::batch_norm(y.write(), mean.write(), variance.write(), flat.read(), weight.read(), bias.read(), eps);
  y = recorded<B>("batch_norm", std::move(y), {&x, &weight, &bias},
                  [flat, mean, variance, eps, w = weight.detach()](tensor<B> const& dy, gradients<B>& dx) {
                    auto const g = packed(dy);
                    B::batch_norm_gradient(dx.into(0), dx.into(1), dx.into(2), flat.read(), mean.read(),
                                           variance.read(), w.read(), g.read(), eps);
                  });
  return {std::move(y), std::move(mean), std::move(variance)};
}

}  // namespace ouro
