// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A causal convolution of every column by itself, over a few rows.
#pragma once

#include <ouro/ops/movement.hpp>
#include <ouro/ops/record_pair.hpp>

namespace ouro {

/// y_t = bias + Σ_j weight_j ⊙ x_{t−K+1+j}, j = 0..K−1: x (B,T,C), window (B,K−1,C), weight (C,K), bias (C) → y (B,T,C)
/// and the window for the rows that follow. The window holds the K − 1 rows before the first: zeros at the start.
template <Backend B>
scan_result<B> short_convolution(tensor<B> const& x, tensor<B> const& window, tensor<B> const& weight,
                                 tensor<B> const& bias) {
  require(x.rank() == 3 && weight.rank() == 2 && weight.dim(1) >= 1 && weight.dim(0) == x.dim(2) &&
              bias.dims() == shape{x.dim(2)} && window.dims() == x.dims().with(1, weight.dim(1) - 1),
          errc::shape, "short_convolution", "needs x (B,T,C), window (B,K-1,C), weight (C,K) and bias (C), got ",
          x.dims(), ", ", window.dims(), ", ", weight.dims(), " and ", bias.dims());
  for (auto const* o : {&window, &weight, &bias})
    require(o->type() == x.type() && is_floating(x.type()), errc::shape, "short_convolution",
            "dtypes must agree and be f32 or f64, got ", name_of(x.type()), " and ", name_of(o->type()));
  short_convolution_set<tensor<B>> const in{with_dense_columns(x), packed(window), packed(weight), packed(bias)};
  auto read = [](short_convolution_set<tensor<B>> const& o) {
    return short_convolution_operands{o.x.read(), o.window.read(), o.weight.read(), o.bias.read()};
  };
  tensor<B> y(x.dims(), x.type());
  B::short_convolution(y.write(), read(in));
  y = recorded<B>(
      "short_convolution", std::move(y), {&x, &window, &weight, &bias},
      [in, read](tensor<B> const& dy, gradients<B>& dx) {
        auto const up = packed(dy);
        B::short_convolution_gradient({dx.into(0), dx.into(1), dx.into(2), dx.into(3)}, read(in), up.read());
      });
  std::int64_t const kept = weight.dim(1) - 1;
  std::int64_t const rows = x.dim(1);
  if (rows >= kept) return {std::move(y), slice(x, 1, rows - kept, kept)};
  return {std::move(y), concat<B>({slice(window, 1, rows, kept - rows), x}, 1)};
}

}  // namespace ouro
