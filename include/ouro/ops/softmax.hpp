// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Softmax over the last axis.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

/// y_i = exp(x_i) / Σ_j exp(x_j) over the last axis, shifted by the row's maximum: (…,D) → (…,D), D > 0.
template <Backend B>
tensor<B> softmax(tensor<B> const& x) {
  require(x.rank() > 0 && x.dim(-1) > 0, errc::shape, "softmax", "needs rows of at least one element, got ", x.dims());
  auto const flat = packed(x);
  tensor<B> y(x.dims(), x.type());
  B::softmax(y.write(), flat.read());
  auto result = y.detach();
  return recorded<B>("softmax", std::move(y), {&x}, [result](tensor<B> const& dy, gradients<B>& dx) {
    auto const g = packed(dy);
    if (dx.wants(0)) B::softmax_gradient(dx.into(0), result.read(), g.read());
  });
}

}  // namespace ouro
