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

/// Numbers of a draw, uniform between `low` and `high`.
template <Backend B>
tensor<B> uniform(shape const& dims, dtype type, random_draw draw, double low, double high) {
  tensor<B> y(dims, type);
  B::uniform(y.write(), draw, low, high);
  return y;
}

}  // namespace ouro
