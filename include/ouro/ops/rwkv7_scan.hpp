// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The recurrence of RWKV-7: a state that decays by column, forgets by rank one and learns by rank one.
#pragma once

#include <ouro/ops/record_pair.hpp>

namespace ouro {

/// For every lane and head, from the state S (V,K), with d_t = exp(−e^(−1/2) · sigmoid(w_t)) in (0.545, 1):
///   S_t = S_{t−1} diag(d_t) + (S_{t−1} a_t) b_tᵀ + v_t k_tᵀ;  y_t = S_t r_t
/// (Peng et al., "RWKV-7 Goose with expressive dynamic state evolution", 2025; rwkv7_set in concepts/scans.hpp).
/// r, w, k, a, b (B,T,H·K), v (B,T,H·V), state (B,H,V,K) → y (B,T,H·V) and the state after row T. w is the decay before
/// its activation: d itself is too close to 1 to be stored. Bounded where a is a unit vector and b = −a ⊙ (0..1).
/// All operands, the state included, have gradients; they are computed from the operands alone.
template <Backend B>
scan_result<B> rwkv7_scan(tensor<B> const& r, tensor<B> const& w, tensor<B> const& k, tensor<B> const& v,
                          tensor<B> const& a, tensor<B> const& b, tensor<B> const& state) {
  require(r.rank() == 3 && state.rank() == 4 && r.dim(0) == state.dim(0) && r.dim(2) == state.dim(1) * state.dim(3) &&
              v.dims() == shape{r.dim(0), r.dim(1), state.dim(1) * state.dim(2)},
          errc::shape, "rwkv7_scan", "needs r (B,T,H*K), v (B,T,H*V) and state (B,H,V,K), got ", r.dims(), ", ",
          v.dims(), " and ", state.dims());
  require(w.dims() == r.dims() && k.dims() == r.dims() && a.dims() == r.dims() && b.dims() == r.dims(), errc::shape,
          "rwkv7_scan", "w, k, a and b must have the shape of r, ", r.dims(), ", got ", w.dims(), ", ", k.dims(), ", ",
          a.dims(), " and ", b.dims());
  for (auto const* x : {&w, &k, &v, &a, &b, &state})
    require(x->type() == r.type() && is_floating(r.type()), errc::shape, "rwkv7_scan",
            "dtypes must agree and be f32 or f64, got ", name_of(r.type()), " and ", name_of(x->type()));
  rwkv7_set<tensor<B>> const in{with_dense_columns(r), with_dense_columns(w), with_dense_columns(k),
                                with_dense_columns(v), with_dense_columns(a), with_dense_columns(b),
                                packed(state)};
  auto read = [](rwkv7_set<tensor<B>> const& x) {
    return rwkv7_operands{x.r.read(), x.w.read(), x.k.read(), x.v.read(), x.a.read(), x.b.read(), x.state.read()};
  };
  tensor<B> y(v.dims(), v.type());
  tensor<B> last(state.dims(), state.type());
  B::rwkv7_scan(y.write(), last.write(), read(in));
  return recorded_pair<B>("rwkv7_scan", std::move(y), std::move(last), {&r, &w, &k, &v, &a, &b, &state},
                          [in, read](tensor<B> const& dy, tensor<B> const& dlast, gradients<B>& dx) {
                            auto const up = packed(dy);
                            auto const end = dlast.empty() ? dlast : packed(dlast);
                            B::rwkv7_scan_gradient(
                                {dx.into(0), dx.into(1), dx.into(2), dx.into(3), dx.into(4), dx.into(5), dx.into(6)},
                                read(in), up.read(), end.read());
                          });
}

}  // namespace ouro
