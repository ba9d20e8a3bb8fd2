// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Scaled dot-product attention of several heads (Vaswani et al., "Attention is all you need", 2017).
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

/// For each lane and head: y = dropout(softmax(scale · q kᵀ)) v, where query row i sees the first
/// `rule.sees.count(i, Tk)` keys. q (N,Tq,D), k (N,Tk,D), v (N,Tk,D) → (N,Tq,D); a head is a run of D / heads columns.
/// Operands may be strided by row and lane (slices of a packed projection); every query must see at least one key.
/// The scores are never kept: the gradient recomputes them from the log-sum-exp of each row.
template <Backend B>
tensor<B> scaled_dot_product_attention(tensor<B> const& q, tensor<B> const& k, tensor<B> const& v,
                                       attention_rule const& rule) {
  require(q.rank() == 3 && k.rank() == 3 && v.dims() == k.dims() && q.dim(0) == k.dim(0) && q.dim(2) == k.dim(2),
          errc::shape, "scaled_dot_product_attention", "needs q (N,Tq,D), k and v (N,Tk,D), got ", q.dims(), ", ",
          k.dims(), " and ", v.dims());
  require_one_type("scaled_dot_product_attention", q, {&k, &v});
  require(rule.heads > 0 && q.dim(2) % rule.heads == 0, errc::shape, "scaled_dot_product_attention", "width ", q.dim(2),
          " must be a multiple of ", rule.heads, " heads");
  require(k.dim(1) > 0 && (rule.sees.first >= rule.sees.prefix || rule.sees.prefix > 0), errc::shape,
          "scaled_dot_product_attention", "every query must see a key");
  require(rule.dropout >= 0 && rule.dropout < 1, errc::argument, "scaled_dot_product_attention",
          "dropout must be in [0, 1), got ", rule.dropout);
  auto rows = [](tensor<B> const& x) { return x.read().steps[-1] == 1 || x.dim(-1) == 1 ? x.detach() : x.copy(); };
  auto const qs = rows(q);
  auto const ks = rows(k);
  auto const vs = rows(v);
  tensor<B> y(q.dims(), q.type());
  tensor<B> lse({q.dim(0), rule.heads, q.dim(1)}, computed_in(q.type()));
  B::attention(y.write(), lse.write(), qs.read(), ks.read(), vs.read(), rule);
  auto result = y.detach();
  return recorded<B>("scaled_dot_product_attention", std::move(y), {&q, &k, &v},
                     [qs, ks, vs, result, lse, rule](tensor<B> const& dy, gradients<B>& dx) {
                       auto const g = packed(dy);
                       auto const d = dx.into_all_strided();
                       B::attention_gradient(d[0], d[1], d[2], qs.read(), ks.read(), vs.read(), result.read(),
                                             lse.read(), g.read(), rule);
                     });
}

}  // namespace ouro
