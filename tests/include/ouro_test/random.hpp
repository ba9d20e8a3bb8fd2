// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Deterministic random tensors and the comparison every numerical test uses.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include <ouro/ops/noise.hpp>

namespace ouro_test {

/// Standard normal values, another draw at each call.
template <class B>
ouro::tensor<B> noise(ouro::shape const& dims, ouro::dtype type = ouro::dtype::f64) {
  static std::uint64_t draws = 0;
  return ouro::normal<B>(dims, type, {42, draws++});
}

/// max |a − b| / max(max |b|, least); infinite where the sizes differ or a value is not finite.
inline double relative_error(std::vector<double> const& a, std::vector<double> const& b, double least = 1e-300) {
  if (a.size() != b.size()) return INFINITY;
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    error = std::max(error, std::abs(a[i] - b[i]));
    size = std::max(size, std::abs(b[i]));
  }
  return error == 0 ? 0 : error / std::max(size, least);
}
template <class A, class B>
double relative_error(ouro::tensor<A> const& a, ouro::tensor<B> const& b, double least = 1e-300) {
  return relative_error(a.template values<double>(), b.template values<double>(), least);
}

/// ‖a − b‖ / ‖b‖, where ‖b‖² is taken for no less than `least`; infinite where the sizes differ or a value is not finite.
template <class A, class B>
double relative_distance(ouro::tensor<A> const& a, ouro::tensor<B> const& b, double least = 1e-300) {
  auto const x = a.template values<double>();
  auto const y = b.template values<double>();
  if (x.size() != y.size()) return INFINITY;
  double distance = 0;
  double size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    distance += (x[i] - y[i]) * (x[i] - y[i]);
    size += y[i] * y[i];
  }
  double const error = std::sqrt(distance / std::max(size, least));
  return std::isfinite(error) ? error : INFINITY;
}

/// A number in [low, high], another one at each call.
inline std::int64_t pick(std::int64_t low, std::int64_t high) {
  static std::uint64_t draws = 0;
  return low +
         static_cast<std::int64_t>(ouro::random_draw{7, 1}.word(draws++) % static_cast<std::uint64_t>(high - low + 1));
}

}  // namespace ouro_test
