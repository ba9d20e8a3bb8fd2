// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Square root.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = √x; the gradient at 0 is infinite.
template <Backend B>
tensor<B> square_root(tensor<B> const& x) {
  return map("square_root", unary::square_root, x);
}

}  // namespace ouro
