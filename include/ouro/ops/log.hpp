// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The natural logarithm.
#pragma once

#include <ouro/ops/map.hpp>

namespace ouro {

/// y = ln x.
template <Backend B>
tensor<B> log(tensor<B> const& x) {
  return map("log", unary::log, x);
}

}  // namespace ouro
