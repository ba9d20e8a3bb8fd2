// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The elementwise functions on the device, and their derivatives.
#pragma once

#include "device.hpp"

namespace ouro::cuda_kernels {

template <class T>
__device__ T sigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}
template <class T>
__device__ T gelu(T x) {
  return T(0.5) * x * (T(1) + std::erf(x * T(0.70710678118654752440)));
}
template <class T>
__device__ T gelu_slope(T x) {
  T const cdf = T(0.5) * (T(1) + std::erf(x * T(0.70710678118654752440)));
  return cdf + x * T(0.39894228040143267794) * std::exp(T(-0.5) * x * x);
}

template <class T>
__device__ T evaluate(unary f, T x) {
  switch (f) {
    case unary::gelu: return gelu(x);
    case unary::tanh: return std::tanh(x);
    case unary::sigmoid: return sigmoid(x);
    case unary::silu: return x * sigmoid(x);
    case unary::exp: return std::exp(x);
    case unary::square: return x * x;
    case unary::square_root: return std::sqrt(x);
    case unary::softplus: return x > T(20) ? x : (x > T(0) ? x : T(0)) + std::log1p(std::exp(-std::abs(x)));
    case unary::log: return std::log(x);
    case unary::relu: return x > T(0) ? x : x * T(0);  // what is no number stays none
  }
  return x;
}

/// The derivative, from x or (see gradient_from_result) from y.
template <class T>
__device__ T derivative(unary f, T s) {
  switch (f) {
    case unary::gelu: return gelu_slope(s);
    case unary::tanh: return T(1) - s * s;
    case unary::sigmoid: return s * (T(1) - s);
    case unary::silu: {
      T const g = sigmoid(s);
      return g * (T(1) + s * (T(1) - g));
    }
    case unary::exp: return s;
    case unary::square: return T(2) * s;
    case unary::square_root: return T(0.5) / s;
    case unary::softplus: return s > T(20) ? T(1) : sigmoid(s);
    case unary::log: return T(1) / s;
    case unary::relu: return s > T(0) ? T(1) : T(0);
  }
  return T(1);
}

}  // namespace ouro::cuda_kernels
