// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Normalisation by columns, with the batch's own statistics.
#pragma once

#include <optional>

#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/movement.hpp>

namespace ouro {

/// Mean and biased variance of each column: (C) each.
template <class B>
struct column_statistics {
  tensor<B> mean;
  tensor<B> variance;
};

/// The mean and the biased variance of the columns of x (R,C).
template <Backend B>
column_statistics<B> column_moments(tensor<B> const& x) {
  require(x.rank() == 2 && x.dim(0) > 0, errc::shape, "column_moments", "needs x (R,C) with R > 0, got ", x.dims());
  require_one_type("column_moments", x);
  std::int64_t const width = x.dim(1);
  auto const flat = packed(x);
  tensor<B> both({2, width}, x.type());
  auto row = [width](auto const& t, int i) { return reshape(slice(t, 0, i, 1), {width}); };
  B::column_moments(both.write().slice(0, 0, 1), both.write().slice(0, 1, 1), flat.read());
  // dx = (dmean + 2 (x − mean) dvariance) / R, a line in x for each column.
  both = recorded<B>("column_moments", std::move(both), {&x},
                     [flat, row, mean = row(both, 0)](tensor<B> const& dy, gradients<B>& dx) {
                       auto const d = dx.into(0);
                       if (!d.wanted()) return;
                       auto const n = static_cast<double>(flat.dim(0));
                       auto const slope = scale(row(dy, 1), 2 / n);
                       auto const base = scale(row(dy, 0), 1 / n) - slope * mean;
                       B::combine(binary::multiply, d, flat.read(), slope.read().expand(flat.dims()));
                       B::scale({d.out, true}, base.read().expand(flat.dims()), 1.0);
                     });
  return {row(both, 0), row(both, 1)};
}

/// The result of a batch normalisation, with the statistics it used.
template <class B>
struct batch_norm_result {
  tensor<B> y;
  tensor<B> mean;      // (C)
  tensor<B> variance;  // (C), biased
};

/// y = (x − mean) / √(variance + eps) ⊙ weight + bias with the mean and the biased variance of each column over all
/// rows (Ioffe & Szegedy, 2015): (R,C) → (R,C), y of the type `result`: that of x, if none is said. The statistics carry no
/// gradient of their own.
template <Backend B>
batch_norm_result<B> batch_norm(tensor<B> const& x, tensor<B> const& weight, tensor<B> const& bias, double eps = 1e-5,
                                std::optional<dtype> result = {}) {
  require(x.rank() == 2 && x.dim(0) > 0 && weight.dims() == shape{x.dim(1)} && bias.dims() == weight.dims(),
          errc::shape, "batch_norm", "needs x (R,C) with R > 0, weight (C), bias (C), got ", x.dims(), ", ",
          weight.dims(), " and ", bias.dims());
  require_one_type("batch_norm", x, {&weight, &bias});
  auto const flat = packed(x);
  tensor<B> y(x.dims(), result.value_or(x.type()));
  tensor<B> mean({x.dim(1)}, computed_in(x.type()));
  tensor<B> variance({x.dim(1)}, computed_in(x.type()));
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
