// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Small modules that hold one or two layers under the reference's numbered names.
#pragma once

#include <ouro/nn/linear.hpp>

namespace ouro {

/// One linear layer, called "0".
template <Backend B>
struct single_linear {
  using backend = B;
  linear<B> _0;
  OURO_MODULE(single_linear, _0);
  tensor<B> operator()(context<B>& cx, tensor<B> const& x) const { return _0(cx, x); }
};

/// A table of rows.
template <Backend B>
struct embedding {
  using backend = B;
  parameter<B> weight;  // (vocabulary, width)
  OURO_MODULE(embedding, weight);
};

}  // namespace ouro
