// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Table look-up: an embedding is one table, a convolution over bytes is one table per kernel position.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

/// y_r = Σ_k table[k, index[r,k], :]: table (K,V,C), index i32 (R,K) → (R,C). A negative index contributes nothing;
/// the others must be below V.
template <Backend B>
tensor<B> gather_sum(tensor<B> const& table, tensor<B> const& index) {
  require(table.rank() == 3 && index.rank() == 2 && index.dim(1) == table.dim(0) && index.type() == dtype::i32,
          errc::shape, "gather_sum", "needs table (K,V,C) and i32 index (R,K), got ", table.dims(), " and ",
          index.dims());
  auto const tables = packed(table);
  auto const at = packed(index);
  tensor<B> y({index.dim(0), table.dim(2)}, table.type());
  B::gather_sum(y.write(), tables.read(), at.read());
  return recorded<B>("gather_sum", std::move(y), {&table}, [at](tensor<B> const& dy, gradients<B>& dx) {
    auto const g = packed(dy);
    if (dx.wants(0)) B::scatter_sum(dx.into(0), at.read(), g.read());
  });
}

}  // namespace ouro
