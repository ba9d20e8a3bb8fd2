// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The RWKV-7 recurrence and its gradient by chunks of 16 rows, for one lane and head. Within a chunk the decays are taken
// out of the operands, so that all pairs of rows become products of 16-row matrices (products of rank-one changes in the
// manner of Bischof & Van Loan, 1987; Yang et al., "Parallelizing linear transformers with the delta rule", 2024). With
// gamma_t = sum of log d up to row t, and Gamma = exp(gamma_16):
//   A = a exp(gamma_{t-1}), R = r exp(gamma_t), K = k exp(-gamma_t), B = b exp(-gamma_t);  M = [A; R] [K; B]', triangular
//   U = (1 - M_AB)^-1 (A S' + M_AK V);  Y = R S' + M_RK V + M_RB U;  S <- (S + V' K + U' B) diag(Gamma)
// As d > 0.545, exp(-gamma) is at most 16 400 and no exponent needs care. The state is held transposed, (key,value).
#pragma once

#include "scan_products.inl"

namespace ouro::cpu_scans {
namespace {

constexpr float decay_bound = 0.60653066F;  // exp(-1/2)

struct rwkv7_space {
  index kp, vp, chunks;
  float *gamma, *decay;         // (K); (17,K): exp(gamma) before row 0, after row 0, ...
  float *inverse, *gate;        // (16,K): exp(-gamma), sigmoid(w)
  float *ar, *kb, *kb_columns;  // (32,K): A over R, K over B; the latter transposed, (K,32)
  float *m, *vu, *ws, *state;   // (32,32); (32,V): V over U, [A; R] S'; (K,V)
  // For the gradient: those of U's equations over those of Y, transposes, and the states before every chunk.
  float *kb_end, *dar, *dkb;                           // (32,K): K and B times Gamma; gradients
  float *zy, *dvu, *zy_columns, *vu_columns, *by_key;  // (32,V), (32,V), (V,32), (V,32), (K,32)
  float *dm, *slope, *of_decay, *states, *u_rows;
  index used;

  rwkv7_space(float* base, index rows, index key, index value, bool gradient)
      : kp(padded(key)), vp(padded(value)), chunks((rows + lanes - 1) / lanes) {
    carver c{base};
    c.take(kp, gamma);
    c.take((lanes + 1) * kp, decay);
    c.take(lanes * kp, inverse, gate);
    c.take(2 * lanes * kp, ar, kb, kb_columns);
    c.take(4 * lanes * lanes, m);
    c.take(2 * lanes * vp, vu, ws);
    c.take(kp * vp, state);
    if (gradient) {
      c.take(2 * lanes * kp, kb_end, dar, dkb, by_key);
      c.take(2 * lanes * vp, zy, dvu, zy_columns, vu_columns);
      c.take(4 * lanes * lanes, dm);
      c.take(kp * vp, slope);
      c.take(kp, of_decay);
      c.take((chunks + 1) * kp * vp, states);
      c.take(chunks * lanes * vp, u_rows);
    }
    used = c.used;
  }
};

void rwkv7_decay_row(index n, float const* __restrict w, float* __restrict gate, float* __restrict gamma,
                     float* __restrict after, float* __restrict inverse) {
  for (index i = 0; i < n; ++i) gate[i] = cpu_kernels::sigmoid1(w[i]);
  for (index i = 0; i < n; ++i) gamma[i] -= decay_bound * gate[i];
  for (index i = 0; i < n; ++i) after[i] = cpu_kernels::exp1(gamma[i]);
  for (index i = 0; i < n; ++i) inverse[i] = 1.0F / after[i];
}
void multiply_row(index n, float* __restrict y, float const* __restrict x, float const* __restrict factor) {
  for (index i = 0; i < n; ++i) y[i] = x[i] * factor[i];
}

/// The operands of a chunk with the decays taken out, and M. Rows from n on are zero and do not decay.
void rwkv7_prepare(rwkv7_space& s, rwkv7_head const& h, index first, index n) {
  index const kp = s.kp;
  index const half = lanes * kp;
  for (index i = 0; i < h.key; ++i) s.gamma[i] = 0.0F;
  for (index i = 0; i < h.key; ++i) s.decay[i] = 1.0F;
  for (index t = 0; t < lanes; ++t) {
    float* const before = s.decay + t * kp;
    float* const after = before + kp;
    float* const inverse = s.inverse + t * kp;
    float* const ar = s.ar + t * kp;
    float* const kb = s.kb + t * kp;
    if (t < n) {
      index const row = first + t;
      rwkv7_decay_row(h.key, h.w.at + row * h.w.step, s.gate + t * kp, s.gamma, after, inverse);
      multiply_row(h.key, ar, h.a.at + row * h.a.step, before);
      multiply_row(h.key, ar + half, h.r.at + row * h.r.step, after);
      multiply_row(h.key, kb, h.k.at + row * h.k.step, inverse);
      multiply_row(h.key, kb + half, h.b.at + row * h.b.step, inverse);
    } else {
      for (index i = 0; i < h.key; ++i) after[i] = before[i];
      for (index i = 0; i < h.key; ++i) ar[i] = ar[half + i] = kb[i] = kb[half + i] = 0.0F;
    }
  }
  load_rows(h.v, first, n, h.value, s.vu, s.vp);
  transposed(2 * lanes, kp, s.kb, kp, s.kb_columns, 2 * lanes);
  product(2 * lanes, 2 * lanes, kp, s.ar, kp, 1, s.kb_columns, 2 * lanes, s.m, 2 * lanes, false);
}

/// What M and its gradient have above the triangles is set to zero: U sees rows before its own, Y also its own.
void keep_triangles(float* m) {
  for (index t = 0; t < lanes; ++t)
    for (index j = 0; j < lanes; ++j) {
      for (index right = 0; right < 2; ++right) {
        float& to_u = m[t * 2 * lanes + right * lanes + j];
        float& to_y = m[(lanes + t) * 2 * lanes + right * lanes + j];
        to_u = j < t ? to_u : 0.0F;
        to_y = j <= t ? to_y : 0.0F;
      }
    }
}

/// x <- (1 - M)^-1 x for a strictly lower triangular M (16,16) in rows of 32, x (16,n) in rows of ld.
void solve(float const* m, float* x, index ld, index n) {
  for (index j = 0; j < n; j += vector_width) {
    vec u[lanes];
#pragma GCC unroll 16
    for (int t = 0; t < lanes; ++t) load(u[t], x + t * ld + j);
#pragma GCC unroll 16
    for (int t = 1; t < lanes; ++t)
#pragma GCC unroll 16
      for (int k = 0; k < t; ++k) u[t] += m[t * 2 * lanes + k] * u[k];
#pragma GCC unroll 16
    for (int t = 0; t < lanes; ++t) store(x + t * ld + j, u[t]);
  }
}
/// x <- (1 - M')^-1 x.
void solve_transposed(float const* m, float* x, index ld, index n) {
  for (index j = 0; j < n; j += vector_width) {
    vec u[lanes];
#pragma GCC unroll 16
    for (int t = 0; t < lanes; ++t) load(u[t], x + t * ld + j);
#pragma GCC unroll 16
    for (int t = lanes - 1; t > 0; --t)
#pragma GCC unroll 16
      for (int k = 0; k < t; ++k) u[k] += m[t * 2 * lanes + k] * u[t];
#pragma GCC unroll 16
    for (int t = 0; t < lanes; ++t) store(x + t * ld + j, u[t]);
  }
}

/// U and, if asked for, Y (in ws, rows 16 to 31) of a prepared chunk; then the state after it.
void rwkv7_advance(rwkv7_space& s, rwkv7_head const& h, bool want_y) {
  index const vp = s.vp;
  index const wide = 2 * lanes;
  float* const u = s.vu + lanes * vp;
  float* const y = s.ws + lanes * vp;
  keep_triangles(s.m);
  product(want_y ? wide : lanes, vp, s.kp, s.ar, s.kp, 1, s.state, vp, s.ws, vp, false);
  product(lanes, vp, lanes, s.m, wide, 1, s.vu, vp, s.ws, vp, true);
  solve(s.m + lanes, s.ws, vp, vp);
  for (index i = 0; i < lanes * vp; ++i) u[i] = s.ws[i];
  if (want_y) product(lanes, vp, wide, s.m + lanes * wide, wide, 1, s.vu, vp, y, vp, true);
  product(s.kp, vp, wide, s.kb_columns, wide, 1, s.vu, vp, s.state, vp, true);
  float const* const end = s.decay + lanes * s.kp;
  for (index i = 0; i < h.key; ++i)
    for (index j = 0; j < vp; ++j) s.state[i * vp + j] *= end[i];
}

index k_rwkv7_scratch(index rows, index key, index value, bool gradient) {
  return rwkv7_space(nullptr, rows, key, value, gradient).used;
}

/// Row by row, in the state's own layout: for a few rows, as in speech.
void rwkv7_rows(rwkv7_head const& h, rows_out y, float* last, float* decay) {
  for (index i = 0; i < h.value * h.key; ++i) last[i] = h.state[i];
  for (index t = 0; t < h.rows; ++t) {
    float const* const w = h.w.at + t * h.w.step;
    float const* const a = h.a.at + t * h.a.step;
    float const* const b = h.b.at + t * h.b.step;
    float const* const k = h.k.at + t * h.k.step;
    float const* const r = h.r.at + t * h.r.step;
    for (index j = 0; j < h.key; ++j) decay[j] = cpu_kernels::exp1(-decay_bound * cpu_kernels::sigmoid1(w[j]));
    for (index i = 0; i < h.value; ++i) {
      float* const row = last + i * h.key;
      float const u = cpu_kernels::fixed_sum(h.key, [row, a](index j) { return row[j] * a[j]; });
      float const v = h.v.at[t * h.v.step + i];
      for (index j = 0; j < h.key; ++j) row[j] = row[j] * decay[j] + u * b[j] + v * k[j];
      y.at[t * y.step + i] = cpu_kernels::fixed_sum(h.key, [row, r](index j) { return row[j] * r[j]; });
    }
  }
}

void k_rwkv7(rwkv7_head const& h, rows_out y, float* last, float* scratch) {
  if (h.rows <= few) return rwkv7_rows(h, y, last, scratch);
  rwkv7_space s(scratch, h.rows, h.key, h.value, false);
  load_state(h.state, h.value, h.key, s.state, s.vp);
  for (index first = 0; first < h.rows; first += lanes) {
    index const n = h.rows - first < lanes ? h.rows - first : lanes;
    rwkv7_prepare(s, h, first, n);
    rwkv7_advance(s, h, true);
    store_rows(s.ws + lanes * s.vp, s.vp, y, first, n, h.value);
  }
  store_state(s.state, s.vp, last, h.value, h.key, false);
}

/// The gradients of a chunk's operands from those with the decays taken out, last row first. The gradient of log d_t is
/// that of every later pair that spans it: with Q = R dR - K dK - B dB, P = A dA and c that of the state after the chunk,
/// dg_t = c + sum of Q from row t on + sum of P after it.
void rwkv7_slope_row(index n, float* __restrict rest, float* __restrict da, float* __restrict dr, float* __restrict dk,
                     float* __restrict db, float* __restrict dw, float const* __restrict ar, float const* __restrict kb,
                     index half, float const* __restrict before, float const* __restrict after,
                     float const* __restrict inverse, float const* __restrict gate) {
  for (index i = 0; i < n; ++i) {
    float const q = ar[half + i] * dr[i] - kb[i] * dk[i] - kb[half + i] * db[i];
    float const g = rest[i] + q;
    rest[i] = g + ar[i] * da[i];
    dw[i] = g * -decay_bound * gate[i] * (1.0F - gate[i]);
    da[i] *= before[i];
    dr[i] *= after[i];
    dk[i] *= inverse[i];
    db[i] *= inverse[i];
  }
}

void k_rwkv7_gradient(rwkv7_head const& h, rwkv7_slopes const& to, rows_in dy, float const* dlast, float* scratch) {
  rwkv7_space s(scratch, h.rows, h.key, h.value, true);
  index const kp = s.kp;
  index const vp = s.vp;
  index const wide = 2 * lanes;
  index const half = lanes * kp;
  load_state(h.state, h.value, h.key, s.state, vp);
  for (index c = 0; c < s.chunks; ++c) {  // the states between chunks
    index const first = c * lanes;
    for (index i = 0; i < kp * vp; ++i) s.states[c * kp * vp + i] = s.state[i];
    rwkv7_prepare(s, h, first, h.rows - first < lanes ? h.rows - first : lanes);
    rwkv7_advance(s, h, false);
    for (index i = 0; i < lanes * vp; ++i) s.u_rows[c * lanes * vp + i] = s.vu[lanes * vp + i];
  }
  for (index i = 0; i < kp * vp; ++i) s.states[s.chunks * kp * vp + i] = s.state[i];
  load_state(dlast, h.value, h.key, s.slope, vp);

  float* const dw = s.by_key;  // free when it is needed
  for (index c = s.chunks - 1; c >= 0; --c) {
    index const first = c * lanes;
    index const n = h.rows - first < lanes ? h.rows - first : lanes;
    float const* const start = s.states + c * kp * vp;
    float const* const after = start + kp * vp;
    float const* const end = s.decay + lanes * kp;
    rwkv7_prepare(s, h, first, n);
    keep_triangles(s.m);
    float* const u = s.vu + lanes * vp;
    float* const dz = s.zy;
    float* const up = s.zy + lanes * vp;
    for (index i = 0; i < lanes * vp; ++i) u[i] = s.u_rows[c * lanes * vp + i];
    load_rows(dy, first, n, h.value, up, vp);
    for (index t = 0; t < wide; ++t) multiply_row(h.key, s.kb_end + t * kp, s.kb + t * kp, end);

    // dV and dU from Y and from the state after; then through U's equations.
    product(wide, vp, lanes, s.m + lanes * wide, 1, wide, up, vp, s.dvu, vp, false);
    product(wide, vp, kp, s.kb_end, kp, 1, s.slope, vp, s.dvu, vp, true);
    for (index i = 0; i < lanes * vp; ++i) dz[i] = s.dvu[lanes * vp + i];
    solve_transposed(s.m + lanes, dz, vp, vp);
    product(lanes, vp, lanes, s.m, 1, wide, dz, vp, s.dvu, vp, true);

    transposed(wide, vp, s.zy, vp, s.zy_columns, wide);
    transposed(wide, vp, s.vu, vp, s.vu_columns, wide);
    product(wide, wide, vp, s.zy, vp, 1, s.vu_columns, wide, s.dm, wide, false);
    keep_triangles(s.dm);

    product(kp, wide, vp, start, vp, 1, s.zy_columns, wide, s.by_key, wide, false);
    transposed(kp, wide, s.by_key, wide, s.dar, kp);
    product(wide, kp, wide, s.dm, wide, 1, s.kb, kp, s.dar, kp, true);
    product(kp, wide, vp, s.slope, vp, 1, s.vu_columns, wide, s.by_key, wide, false);
    transposed(kp, wide, s.by_key, wide, s.dkb, kp);
    for (index t = 0; t < wide; ++t)
      for (index i = 0; i < h.key; ++i) s.dkb[t * kp + i] *= end[i];
    product(wide, kp, wide, s.dm, 1, wide, s.ar, kp, s.dkb, kp, true);

    for (index i = 0; i < h.key; ++i) {
      s.of_decay[i] = inner_product(s.slope + i * vp, after + i * vp, vp);
      for (index j = 0; j < vp; ++j) s.slope[i * vp + j] *= end[i];
    }
    product(kp, vp, wide, s.ar, 1, kp, s.zy, vp, s.slope, vp, true);

    for (index t = n - 1; t >= 0; --t)
      rwkv7_slope_row(h.key, s.of_decay, s.dar + t * kp, s.dar + half + t * kp, s.dkb + t * kp, s.dkb + half + t * kp,
                      dw + t * kp, s.ar + t * kp, s.kb + t * kp, half, s.decay + t * kp, s.decay + (t + 1) * kp,
                      s.inverse + t * kp, s.gate + t * kp);
    store_rows(s.dar, kp, to.a, first, n, h.key);
    store_rows(s.dar + half, kp, to.r, first, n, h.key);
    store_rows(s.dkb, kp, to.k, first, n, h.key);
    store_rows(s.dkb + half, kp, to.b, first, n, h.key);
    store_rows(dw, kp, to.w, first, n, h.key);
    store_rows(s.dvu, vp, to.v, first, n, h.value);
  }
  if (to.state.at != nullptr) store_state(s.slope, vp, to.state.at, h.value, h.key, to.state.add);
}

}  // namespace
}  // namespace ouro::cpu_scans
