// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Gaussian error linear unit.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = x · ½(1 + erf(x/√2)): the exact form (Hendrycks & Gimpel, "Gaussian error linear units", 2016).
template <Backend B>
tensor<B> gelu(tensor<B> const& x) {
  return map("gelu", unary::gelu, x);
}

}  // namespace ouro
