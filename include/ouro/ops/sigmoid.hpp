// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Logistic function.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = 1 / (1 + e⁻ˣ).
template <Backend B>
tensor<B> sigmoid(tensor<B> const& x) {
  return map("sigmoid", unary::sigmoid, x);
}

}  // namespace ouro
