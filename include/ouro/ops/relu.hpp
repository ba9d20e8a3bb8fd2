// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The rectifier.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = max(x, 0); the derivative at 0 is 0.
template <Backend B>
tensor<B> relu(tensor<B> const& x) {
  return map("relu", unary::relu, x);
}

}  // namespace ouro
