// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Hyperbolic tangent.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = tanh x.
template <Backend B>
tensor<B> tanh(tensor<B> const& x) {
  return map("tanh", unary::tanh, x);
}

}  // namespace ouro
