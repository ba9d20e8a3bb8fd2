// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Normalisation to length one.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

/// y = x / max(‖x‖₂, eps) over the last axis: (…,D) → (…,D). A zero row stays zero.
template <Backend B>
tensor<B> unit(tensor<B> const& x, double eps = 1e-5) {
  require_one_type("unit", x);
  auto const flat = packed(x);
  tensor<B> y(x.dims(), x.type());
  tensor<B> norm({x.dims().rows()}, x.type());
  B::unit(y.write(), norm.write(), flat.read(), eps);
  auto result = y.detach();
  return recorded<B>("unit", std::move(y), {&x}, [result, norm, eps](tensor<B> const& dy, gradients<B>& dx) {
    auto const g = packed(dy);
    if (dx.wants(0)) B::unit_gradient(dx.into(0), result.read(), norm.read(), g.read(), eps);
  });
}

}  // namespace ouro
