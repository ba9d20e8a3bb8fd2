// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The affine map as a module.
#pragma once

#include <ouro/nn/context.hpp>
#include <ouro/nn/genesis.hpp>
#include <ouro/ops/matmul.hpp>

namespace ouro {

/// y = x Wᵀ + b: (…,in) → (…,out). Weights and biases start uniform in ±1/√in.
template <Backend B>
struct linear {
  using backend = B;
  parameter<B> weight;  // (out, in)
  parameter<B> bias;    // (out)
  OURO_MODULE(linear, weight, bias);

  linear() = default;
  linear(genesis<B>& g, std::int64_t in, std::int64_t out)
      : weight(g.fan_in({out, in}, in)), bias(g.fan_in({out}, in)) {}

  tensor<B> operator()(context<B>& cx, tensor<B> const& x, std::optional<dtype> result = {}) const {
    return ouro::linear_map(x, cx.stored(weight, x.type()), cx.stored(bias, result.value_or(x.type())), result);
  }
};

}  // namespace ouro
