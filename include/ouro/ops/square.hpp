// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Square.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = x².
template <Backend B>
tensor<B> square(tensor<B> const& x) {
  return map("square", unary::square, x);
}

}  // namespace ouro
