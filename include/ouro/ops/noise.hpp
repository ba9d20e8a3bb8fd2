// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Tensors of random numbers.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

/// Standard normal numbers of a draw.
template <Backend B>
tensor<B> normal(shape const& dims, dtype type, random_draw draw) {
  tensor<B> y(dims, type);
  B::normal(y.write(), draw);
  return y;
}

/// Numbers of a draw, uniform between `low` and `high`. Errors (argument): that is no range.
template <Backend B>
tensor<B> uniform(shape const& dims, dtype type, random_draw draw, double low, double high) {
  require(low <= high && high - low <= 1e300, errc::argument, "uniform", "there is no range from ", low, " to ", high);
  tensor<B> y(dims, type);
  B::uniform(y.write(), draw, low, high);
  return y;
}

}  // namespace ouro
