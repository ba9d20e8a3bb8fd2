// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Table look-up: an embedding is one table, a convolution over bytes is one table per kernel position.
#pragma once

#include <optional>

#include <ouro/ops/record.hpp>

namespace ouro {

/// y_r = addend + Σ_k table[k, index[r,k], :]: table (K,V,C), index i32 (R,K), addend (C) or absent → (R,C), of the type
/// `result`: that of the table, if none is said. A negative index contributes nothing. Errors
/// (argument): another is not below V; on a device its row is NaN.
template <Backend B>
tensor<B> gather_sum(tensor<B> const& table, tensor<B> const& index, tensor<B> const& addend = {},
                     std::optional<dtype> result = {}) {
  require(table.rank() == 3 && index.rank() == 2 && index.dim(1) == table.dim(0) && index.type() == dtype::i32 &&
              (addend.empty() || addend.dims() == shape{table.dim(2)}),
          errc::shape, "gather_sum", "needs table (K,V,C), i32 index (R,K) and addend (C), got ", table.dims(), ", ",
          index.dims(), " and ", addend.dims());
  require_one_type("gather_sum", table, {&addend});
  auto const tables = packed(table);
  auto const at = packed(index);
  require_below("gather_sum", at, table.dim(1));
  tensor<B> y({index.dim(0), table.dim(2)}, result.value_or(table.type()));
  B::gather_sum(y.write(), tables.read(), at.read(), addend ? packed(addend).read() : const_view{});
  return recorded<B>("gather_sum", std::move(y), {&table, &addend}, [at](tensor<B> const& dy, gradients<B>& dx) {
    auto const g = packed(dy);
    if (dx.wants(0)) B::scatter_sum(dx.into(0), at.read(), g.read());
    if (auto d = dx.into(1); d.wanted()) B::reduce_sum({d.out.reshape({1, g.dim(1)}), d.accumulate}, g.read(), 1.0);
  });
}

}  // namespace ouro
