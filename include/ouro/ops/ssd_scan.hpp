// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The recurrence of Mamba-2: a state with one decay for all of a head, chosen by the input.
#pragma once

#include <ouro/ops/record_pair.hpp>

namespace ouro {

/// For every lane and head h of group g, from the state S (P,N):
///   S_t = exp(step_t · rate_h) S_{t−1} + step_t x_t b_tᵀ;  y_t = S_t c_t + skip_h x_t
/// (Dao & Gu, "Transformers are SSMs", 2024; ssd_set in concepts/scans.hpp). x (B,T,H·P), step (B,T,H) ≥ 0,
/// rate (H) ≤ 0, b and c (B,T,G·N) with H a multiple of G, skip (H), state (B,H,P,N) → y (B,T,H·P) and the state after
/// row T. A row with step 0 changes nothing. All operands, the state included, have gradients; they are computed from
/// the operands alone.
template <Backend B>
scan_result<B> ssd_scan(tensor<B> const& x, tensor<B> const& step, tensor<B> const& rate, tensor<B> const& b,
                        tensor<B> const& c, tensor<B> const& skip, tensor<B> const& state) {
  require(x.rank() == 3 && state.rank() == 4 && x.dim(0) == state.dim(0) && x.dim(2) == state.dim(1) * state.dim(2),
          errc::shape, "ssd_scan", "needs x (B,T,H*P) and state (B,H,P,N), got ", x.dims(), " and ", state.dims());
  shape const heads{state.dim(1)};
  require(step.dims() == x.dims().with(2, heads[0]) && rate.dims() == heads && skip.dims() == heads, errc::shape,
          "ssd_scan", "needs step (B,T,H), rate (H) and skip (H) with H = ", heads[0], ", got ", step.dims(), ", ",
          rate.dims(), " and ", skip.dims());
  std::int64_t const groups = state.dim(3) > 0 && b.rank() == 3 ? b.dim(2) / state.dim(3) : 0;
  require(b.dims() == c.dims() && groups > 0 && heads[0] % groups == 0 &&
              b.dims() == x.dims().with(2, groups * state.dim(3)),
          errc::shape, "ssd_scan", "needs b and c (B,T,G*N) with H a multiple of G, got ", b.dims(), " and ", c.dims(),
          " for state ", state.dims());
  for (auto const* o : {&step, &rate, &b, &c, &skip, &state})
    require(o->type() == x.type() && is_floating(x.type()), errc::shape, "ssd_scan",
            "dtypes must agree and be f32 or f64, got ", name_of(x.type()), " and ", name_of(o->type()));
  ssd_set<tensor<B>> const in{with_dense_columns(x), with_dense_columns(step), packed(rate),
                              with_dense_columns(b), with_dense_columns(c),    packed(skip),
                              packed(state)};
  auto read = [](ssd_set<tensor<B>> const& o) {
    return ssd_operands{o.x.read(), o.step.read(), o.rate.read(), o.b.read(),
                        o.c.read(), o.skip.read(), o.state.read()};
  };
  tensor<B> y(x.dims(), x.type());
  tensor<B> last(state.dims(), state.type());
  B::ssd_scan(y.write(), last.write(), read(in));
  return recorded_pair<B>("ssd_scan", std::move(y), std::move(last), {&x, &step, &rate, &b, &c, &skip, &state},
                          [in, read](tensor<B> const& dy, tensor<B> const& dlast, gradients<B>& dx) {
                            auto const up = packed(dy);
                            auto const end = dlast.empty() ? dlast : packed(dlast);
                            B::ssd_scan_gradient(
                                {dx.into(0), dx.into(1), dx.into(2), dx.into(3), dx.into(4), dx.into(5), dx.into(6)},
                                read(in), up.read(), end.read());
                          });
}

}  // namespace ouro
