// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The linear map without a bias as a module.
#pragma once

#include <optional>

#include <ouro/nn/context.hpp>
#include <ouro/nn/genesis.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/movement.hpp>

namespace ouro {

/// x (…,I) times a matrix: w (I,O) gives (…,O), of the type `result`: that of x, if none is said.
template <Backend B>
tensor<B> project_rows(tensor<B> const& x, tensor<B> const& w, std::optional<dtype> result = {}) {
  auto const y = matmul(reshape(x, {x.dims().rows(), x.dim(-1)}), w, {}, result);
  return reshape(y, x.dims().with(-1, w.dim(1)));
}

/// y = x Wᵀ: (…,in) → (…,out).
template <Backend B>
struct projection {
  using backend = B;
  parameter<B> weight;  // (out, in)
  OURO_MODULE(projection, weight);

  projection() = default;
  explicit projection(tensor<B> w) : weight(std::move(w)) {}
  /// The weight starts uniform in ±1/√in.
  projection(genesis<B>& g, std::int64_t in, std::int64_t out) : weight(g.fan_in({out, in}, in)) {}

  tensor<B> operator()(context<B>& cx, tensor<B> const& x, std::optional<dtype> result = {}) const {
    return project_rows(x, transpose(cx.stored(weight, x.type()), 0, 1), result);
  }
};

}  // namespace ouro
