// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Softplus, the smooth way from any number to a positive one.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = log(1 + eˣ); above 20 x itself, as PyTorch has it.
template <Backend B>
tensor<B> softplus(tensor<B> const& x) {
  return map("softplus", unary::softplus, x);
}

}  // namespace ouro
