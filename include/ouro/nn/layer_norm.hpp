// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Layer normalisation as a module.
#pragma once

#include <ouro/nn/context.hpp>
#include <ouro/nn/genesis.hpp>
#include <ouro/ops/normalize_rows.hpp>

namespace ouro {

/// (…,width) → (…,width), eps 1e-5. Starts as the plain normalisation: weight 1, bias 0.
template <Backend B>
struct layer_norm {
  using backend = B;
  parameter<B> weight;  // (width)
  parameter<B> bias;    // (width)
  OURO_MODULE(layer_norm, weight, bias);

  layer_norm() = default;
  layer_norm(genesis<B>& g, std::int64_t width) : weight(g.ones({width})), bias(g.zeros({width})) {}

  tensor<B> operator()(context<B>&, tensor<B> const& x, std::optional<dtype> result = {}) const {
    return normalize_rows(x, weight.value(), bias.value(), 1e-5, result);
  }
};

}  // namespace ouro
