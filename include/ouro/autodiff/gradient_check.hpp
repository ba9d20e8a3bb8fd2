// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Holds a gradient against central differences.
#pragma once

#include <vector>

#include <ouro/autodiff/tape.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// The largest error of the tape's gradient of the scalar f(inputs) against central differences, for each input
/// relative to the largest entry of its gradient (or to 1e-8, where that is smaller). Inputs are f64. Two step sizes
/// are combined (Richardson), so that for smooth f a right gradient gives about 1e-9.
template <Backend B, class F>
double gradient_error(std::vector<tensor<B>> inputs, F const& f, double step = 1e-3) {
  std::vector<tensor<B>> analytic;
  {
    tape<B> t;
    for (auto& x : inputs) t.watch(x = x.copy());  // of its own, though it may be another one's value
    t.backward(f(inputs));
    for (auto const& x : inputs) analytic.push_back(t.gradient(x));
  }
  double worst = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    auto const dims = inputs[i].dims();
    auto const values = inputs[i].template values<double>();
    auto const gradient = analytic[i] ? analytic[i].template values<double>() : std::vector<double>(values.size(), 0.0);
    double largest = 1e-8;
    for (double g : gradient) largest = elementary::max(largest, elementary::abs(g));
    auto const original = inputs[i];
    for (std::size_t j = 0; j < values.size(); ++j) {
      auto at = [&](double h) {
        auto moved = values;
        moved[j] += h;
        inputs[i] = tensor<B>::from(moved, dims);
        return f(inputs).item();
      };
      double const wide = (at(step) - at(-step)) / (2 * step);
      double const narrow = (at(step / 2) - at(-step / 2)) / step;
      worst = elementary::max(worst, elementary::abs((4 * narrow - wide) / 3 - gradient[j]) / largest);
    }
    inputs[i] = original;
  }
  return worst;
}

}  // namespace ouro
