// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Sigmoid linear unit (swish).
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = x · sigmoid(x).
template <Backend B>
tensor<B> silu(tensor<B> const& x) {
  return map("silu", unary::silu, x);
}

}  // namespace ouro
