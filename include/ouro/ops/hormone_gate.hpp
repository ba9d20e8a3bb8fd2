// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The gate through which a hormone reaches a layer, with what surrounds it there: one pass over the rows where the
// backend has it, else the composition that defines it.
#pragma once

#include <optional>

#include <ouro/concepts/hormone_gate.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/dropout.hpp>
#include <ouro/ops/gelu.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/normalize_rows.hpp>
#include <ouro/ops/record_pair.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/tanh.hpp>

namespace ouro {

/// Operands in the shapes of a layer: L lanes of T rows; e = the spread of the result.
template <class B>
struct hormone_gate_inputs {
  tensor<B> x;             // (L,T,D)
  tensor<B> h;             // (L,1,D)
  tensor<B> f;             // (L,T,eD); absent: a layer norm of x
  tensor<B> scale;         // (D), only without f
  tensor<B> bias;          // (eD), may be absent with f
  tensor<B> query_weight;  // (D)
  tensor<B> query_bias;    // (D)
  tensor<B> gate;          // (e,D)
  tensor<B> proj_weight;   // (eD)
  tensor<B> proj_bias;     // (eD)
  tensor<B> residual;      // (L,T,eD) or absent
  bool gelu = false;
  double dropout = 0;
  random_draw draw = {};
  std::optional<dtype> result = {};  // the type of y; that of residual, f or x, if none is said

  [[nodiscard]] dtype type() const { return result.value_or((residual ? residual : f ? f : x).type()); }
};

/// What a gate says, and its repetitions added up, if that is asked for.
template <class B>
struct hormone_gate_result {
  tensor<B> y;       // (L,T,eD)
  tensor<B> folded;  // (L,T,D)
};

/// Σ_j x_j of c parts: x (L,T,cD) → (L,T,D).
template <Backend B>
tensor<B> folded(tensor<B> const& x, std::int64_t width) {
  require(x.rank() == 3 && width > 0 && x.dim(2) % width == 0, errc::shape, "folded", "needs rows of parts of ", width,
          ", got ", x.dims());
  if (x.dim(2) == width) return x;
  return reshape(sum(reshape(x, {x.dim(0), x.dim(1), x.dim(2) / width, width}), 2), x.dims().with(2, width));
}

namespace detail {

/// The composition.
template <class B>
tensor<B> composed_hormone_gate(hormone_gate_inputs<B> const& in) {
  std::int64_t const width = in.gate.dim(1);
  std::int64_t const lanes = in.x.dim(0);
  std::int64_t const rows = in.x.dim(1);
  auto const query = normalize_rows(in.x + in.h, in.query_weight, in.query_bias);
  auto const spread = reshape(query, {lanes, rows, 1, width}) * in.gate;  // (L,T,e,D)
  auto const a = tanh(normalize_rows(reshape(spread, {lanes, rows, in.gate.size()}), in.proj_weight, in.proj_bias));
  auto const f = in.f.empty() ? normalize_rows(in.x, in.scale, in.bias) : in.bias.empty() ? in.f : in.f + in.bias;
  auto y = f * a;
  if (in.gelu) y = gelu(y);
  if (in.dropout > 0) y = dropout(y, in.dropout, in.draw);
  return in.residual.empty() ? y : in.residual + y;
}

template <class B>
hormone_gate_result<B> fused_hormone_gate(hormone_gate_inputs<B> const& in, bool folds) {
  std::int64_t const rows = in.x.dim(0) * in.x.dim(1);
  std::int64_t const wide = in.gate.size();
  auto flat = [](tensor<B> const& t, shape const& dims) { return t.empty() ? t : reshape(t.detach(), dims); };
  hormone_gate_inputs<B> kept{flat(in.x, {rows, in.x.dim(2)}),
                              flat(in.h, {in.x.dim(0), in.gate.dim(1)}),
                              flat(in.f, {rows, wide}),
                              in.scale.detach(),
                              in.bias.detach(),
                              in.query_weight.detach(),
                              in.query_bias.detach(),
                              in.gate.detach(),
                              in.proj_weight.detach(),
                              in.proj_bias.detach(),
                              {},
                              in.gelu,
                              in.dropout,
                              in.draw,
                              {}};
  auto operands = [](hormone_gate_inputs<B> const& k, const_view residual) {
    return hormone_gate_operands{k.x.read(),          k.h.read(),    k.f.read(),
                                 k.scale.read(),      k.bias.read(), k.query_weight.read(),
                                 k.query_bias.read(), k.gate.read(), k.proj_weight.read(),
                                 k.proj_bias.read(),  residual,      k.gelu,
                                 k.dropout,           k.draw,        1e-5};
  };
  tensor<B> y(in.x.dims().with(2, wide), in.type());
  tensor<B> sums = folds ? tensor<B>(in.x.dims(), in.type()) : tensor<B>{};
  tensor<B> statistics({rows, hormone_gate_statistics}, in.gate.type());
  auto const residual = flat(in.residual, {rows, wide});
  B::hormone_gate(
      {y.write().reshape({rows, wide}), folds ? sums.write().reshape(kept.x.dims()) : view{}, statistics.write()},
      operands(kept, residual.read()));
  auto const back = [kept, statistics, operands, rows, wide](tensor<B> const& dy, tensor<B> const& dfolded,
                                                             gradients<B>& dx) {
    auto const g = packed(dy);
    auto const f = dfolded.empty() ? dfolded : packed(dfolded);
    auto shaped = [](destination d, shape const& dims) {
      if (d.wanted()) d.out = d.out.reshape(dims);
      return d;
    };
    dx.give(10, g);
    B::hormone_gate_gradient({shaped(dx.into(0), kept.x.dims()), shaped(dx.on_branch(1), kept.h.dims()),
                              shaped(dx.into(2), {rows, wide}), dx.on_branch(3), dx.on_branch(4), dx.on_branch(5),
                              dx.on_branch(6), dx.on_branch(7), dx.on_branch(8), dx.on_branch(9)},
                             operands(kept, {}), statistics.read(), g.read().reshape({rows, wide}),
                             f.empty() ? const_view{} : f.read().reshape(kept.x.dims()));
  };
  std::initializer_list<tensor<B> const*> const inputs{
      &in.x,          &in.h,    &in.f,           &in.scale,     &in.bias,    &in.query_weight,
      &in.query_bias, &in.gate, &in.proj_weight, &in.proj_bias, &in.residual};
  if (folds) {
    auto r = recorded_pair<B>("hormone_gate", std::move(y), std::move(sums), inputs, back);
    return {std::move(r.y), std::move(r.state)};
  }
  return {recorded<B>("hormone_gate", std::move(y), inputs,
                      [back](tensor<B> const& dy, gradients<B>& dx) { back(dy, {}, dx); }),
          {}};
}

template <class B>
hormone_gate_result<B> any_hormone_gate(hormone_gate_inputs<B> const& in, bool folds) {
  require(in.x.rank() == 3 && in.gate.rank() == 2 && in.x.dim(2) == in.gate.dim(1) && in.gate.dim(1) > 0 &&
              in.h.dims() == in.x.dims().with(1, 1),
          errc::shape, "hormone_gate", "needs x (L,T,D), h (L,1,D), gate (e,D), got ", in.x.dims(), ", ", in.h.dims(),
          " and ", in.gate.dims());
  shape const out = in.x.dims().with(2, in.gate.size());
  require(in.f.empty() ? in.scale.size() == in.x.dim(2) && out == in.x.dims() : in.f.dims() == out, errc::shape,
          "hormone_gate", "needs f ", out, " or the weight of a layer norm, got ", in.f.dims(), " and ",
          in.scale.dims());
  require(in.residual.empty() || in.residual.dims() == out, errc::shape, "hormone_gate", "needs a residual ", out,
          ", got ", in.residual.dims());
  require_one_type("hormone_gate", in.x,
                   {&in.h, &in.f, &in.scale, &in.bias, &in.query_weight, &in.query_bias, &in.gate, &in.proj_weight,
                    &in.proj_bias, &in.residual});
  if constexpr (HormoneGateBackend<B>)
    if (B::has_hormone_gate(in.gate.type()) && in.x.size() > 0 && in.bias && in.gate.size() % 8 == 0 &&
        !(folds && in.residual))
      return fused_hormone_gate(in, folds);
  auto const y = composed_hormone_gate(in);
  return {y, folds ? folded(y, in.gate.dim(1)) : tensor<B>{}};
}

}  // namespace detail

/// y = residual + dropout(act((f + bias) ⊙ a)) with a = tanh(LN(q ⊙ gate_j, j < e)), q = LN(x + h), where act is GELU if
/// asked for, and f + bias is LN(x) where f is absent: (L,T,eD).
template <Backend B>
tensor<B> hormone_gate(hormone_gate_inputs<B> const& in) {
  return detail::any_hormone_gate(in, false).y;
}
/// And Σ_{j<e} y_j, which the gate behind it may ask.
template <Backend B>
hormone_gate_result<B> hormone_gate_and_fold(hormone_gate_inputs<B> const& in) {
  return detail::any_hormone_gate(in, true);
}

}  // namespace ouro
