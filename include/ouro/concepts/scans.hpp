// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The operands of the recurrences that a backend computes, and their gradients under the same names.
#pragma once

#include <ouro/tensor/view.hpp>

namespace ouro {

/// The RWKV-7 recurrence (Peng et al., "RWKV-7 Goose with expressive dynamic state evolution", 2025). For every lane
/// and head, with S (value,key) and the decay d = exp(−e^(−1/2) · sigmoid(w)):
///   u_t = S_{t−1} a_t;  S_t = S_{t−1} diag(d_t) + u_t b_tᵀ + v_t k_tᵀ;  y_t = S_t r_t.
/// A head is a run of columns. Rows may be strided, columns and states not.
template <class View>
struct rwkv7_set {
  View r;      // (B,T,H·K)
  View w;      // (B,T,H·K)
  View k;      // (B,T,H·K)
  View v;      // (B,T,H·V)
  View a;      // (B,T,H·K)
  View b;      // (B,T,H·K)
  View state;  // (B,H,V,K)
};
using rwkv7_operands = rwkv7_set<const_view>;
using rwkv7_gradients = rwkv7_set<destination>;

/// The state-space recurrence of Mamba-2 (Dao & Gu, "Transformers are SSMs", 2024). For every lane and head h of group
/// g = h / (H / G), with S (value,key):
///   S_t = exp(step_t · rate_h) S_{t−1} + step_t x_t b_tᵀ;  y_t = S_t c_t + skip_h x_t.
/// step ≥ 0 and rate ≤ 0. Heads and groups are runs of columns. Rows may be strided, columns and states not.
template <class View>
struct ssd_set {
  View x;      // (B,T,H·P)
  View step;   // (B,T,H)
  View rate;   // (H)
  View b;      // (B,T,G·N)
  View c;      // (B,T,G·N)
  View skip;   // (H)
  View state;  // (B,H,P,N)
};
using ssd_operands = ssd_set<const_view>;
using ssd_gradients = ssd_set<destination>;

/// A causal convolution of every column by itself over K rows: y_t = bias + Σ_j weight_j ⊙ x_{t−K+1+j}, where the rows
/// before the first are those of the window. Rows of x may be strided.
template <class View>
struct short_convolution_set {
  View x;       // (B,T,C)
  View window;  // (B,K−1,C)
  View weight;  // (C,K)
  View bias;    // (C)
};
using short_convolution_operands = short_convolution_set<const_view>;
using short_convolution_gradients = short_convolution_set<destination>;

}  // namespace ouro
