// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A scalar of a tensor whose gradient tells every element from the others.
#pragma once

#include <cmath>
#include <vector>

#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/reduce.hpp>

namespace ouro_test {

/// (1): the sum of y, every element with another weight.
template <class B>
ouro::tensor<B> weigh(ouro::tensor<B> const& y, double phase = 1.0) {
  std::vector<double> w;
  for (std::int64_t i = 0; i < y.size(); ++i) w.push_back(std::sin(phase + 0.7 * static_cast<double>(i)));
  return ouro::reshape(ouro::sum(y * ouro::tensor<B>::from(w, y.dims(), ouro::computed_in(y.type()))), {1});
}

}  // namespace ouro_test
