// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Operands of the optional primitive `hormone_gate`: everything in a hormone receptor but the product it wraps, and
// what follows it in a layer, in one pass over the rows.
#pragma once

#include <ouro/tensor/random.hpp>
#include <ouro/tensor/view.hpp>

namespace ouro {

/// y = residual + drop(act((f + bias) ⊙ a)), a = tanh(LN(q ⊙ gate_j, j < e)), q = LN(x + h): x (R,D), h (L,D) for L lanes of
/// R/L rows each, f and y (R,eD). Without f it is a layer norm of x itself: f + bias = LN(x) with weight `scale` and bias
/// `bias`, e = 1. act is GELU or nothing.
struct hormone_gate_operands {
  const_view x;             ///< (R,D)
  const_view h;             ///< (L,D)
  const_view f;             ///< (R,eD), or empty
  const_view scale;         ///< (D), only without f
  const_view bias;          ///< (eD)
  const_view query_weight;  ///< (D)
  const_view query_bias;    ///< (D)
  const_view gate;          ///< (e,D)
  const_view proj_weight;   ///< (eD)
  const_view proj_bias;     ///< (eD)
  const_view residual;      ///< (R,eD), or empty
  bool gelu = false;
  double dropout = 0;
  random_draw draw;  ///< element i of y is element i of the mask
  double epsilon = 1e-5;
};

/// Where a gate writes what it says.
struct hormone_gate_results {
  view y;           ///< (R,eD)
  view folded;      ///< Σ_{j<e} y_j (R,D), of y's type; or empty. Only without a residual
  view statistics;  ///< (R,6), for the gradient
};

struct hormone_gate_gradients {
  destination x, h, f, scale, bias, query_weight, query_bias, gate, proj_weight, proj_bias;
};

/// Columns of the statistics (R,6) that the gradient needs: mean and 1/σ of query, projection, and f's layer norm.
inline constexpr std::int64_t hormone_gate_statistics = 6;

/// A backend that has the primitive; for the dtypes it names.
template <class B>
concept HormoneGateBackend = requires(view v, hormone_gate_operands const& in, hormone_gate_gradients const& d,
                                      const_view x) {
  { B::has_hormone_gate(dtype::f32) } -> std::same_as<bool>;
  B::hormone_gate(hormone_gate_results{v, v, v}, in);
  B::hormone_gate_gradient(d, in, x, x, x);  // (gradients, operands, statistics, dy, dfolded or empty)
};

}  // namespace ouro
