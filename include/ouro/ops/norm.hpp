// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The norm of many tensors together, which also says whether all of their elements are finite.
#pragma once

#include <vector>

#include <ouro/ops/record.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// Σ x² over all elements of the tensors, absent ones left out, to (1) in f64; finite exactly when every element is.
template <class B>
void sum_of_squares(view to, std::vector<tensor<B>> const& list) {
  std::vector<tensor<B>> dense;
  std::vector<const_view> views;
  for (auto const& x : list) {
    if (x.empty()) continue;
    dense.push_back(packed(x));
    views.push_back(dense.back().read());
  }
  B::sum_of_squares(to, views.data(), views.size());
}
/// √Σ x². A device is waited for.
template <class B>
double norm_of(std::vector<tensor<B>> const& list) {
  tensor<B> sum({1}, dtype::f64);
  sum_of_squares(sum.write(), list);
  return elementary::sqrt(sum.item());
}

}  // namespace ouro
