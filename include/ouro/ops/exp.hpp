// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Exponential.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = eˣ.
template <Backend B>
tensor<B> exp(tensor<B> const& x) {
  return map("exp", unary::exp, x);
}

}  // namespace ouro
