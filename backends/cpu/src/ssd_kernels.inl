// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The Mamba-2 recurrence and its gradient by chunks of 16 rows, for one lane and head (Dao & Gu, "Transformers are
// SSMs", 2024, section 6). With l_t = sum of step * rate up to row t, X = step * x and L_ts = exp(l_t - l_s) for s <= t:
//   Y = (L o C B') X + exp(l) o (C S') + skip x;  S <- exp(l_16) S + X' (exp(l_16 - l) o B)
// Differences of l are never positive, and what is above the diagonal is selected away, so nothing overflows. l is kept
// in f64: after a long pause in the middle of a chunk the difference of two large sums must still be right. The state is
// held transposed, (key,value).
#pragma once

#include "scan_products.inl"

namespace ouro::cpu_scans {
namespace {

struct ssd_space {
  index kp, vp, chunks;
  float *x, *scaled;            // (16,V): x, step x
  float *b, *c, *c_start;       // (16,K); C times exp(l)
  float *b_columns, *b_end;     // (K,16); B times exp(l_16 - l)
  float *mask, *m, *y, *state;  // (16,16): L, L o C B'; (16,V); (K,V)
  // For the gradient.
  float *b_rows_end, *up, *up_columns, *x_columns, *dx, *em, *dcb, *f_columns, *by_key, *db, *dc, *slope, *states;
  double l[lanes + 1];  // l before row 0, after row 0, ...
  double step[lanes];
  index used;

  ssd_space(float* base, index rows, index key, index value, bool gradient)
      : kp(padded(key)), vp(padded(value)), chunks((rows + lanes - 1) / lanes) {
    carver t{base};
    t.take(lanes * vp, x, scaled, y);
    t.take(lanes * kp, b, c, c_start, b_columns, b_end);
    t.take(lanes * lanes, mask, m);
    t.take(kp * vp, state);
    if (gradient) {
      t.take(lanes * vp, up, up_columns, x_columns, dx);
      t.take(lanes * kp, b_rows_end, by_key, db, dc);
      t.take(lanes * lanes, em, dcb, f_columns);
      t.take(kp * vp, slope);
      t.take(chunks * kp * vp, states);
    }
    used = t.used;
  }
  /// exp(l_16 - l_t), and exp(l_t): what is left of row t at the end, and of the start at row t.
  [[nodiscard]] float to_end(index t) const { return cpu_kernels::exp1(static_cast<float>(l[lanes] - l[t + 1])); }
  [[nodiscard]] float from_start(index t) const { return cpu_kernels::exp1(static_cast<float>(l[t + 1])); }
};

/// Loads a chunk and computes what does not need the state. Rows from n on have step 0: they change nothing.
void ssd_prepare(ssd_space& s, ssd_head const& h, index first, index n) {
  constexpr double nothing_left = -1000;  // exp of it is 0 in any format
  s.l[0] = 0;
  for (index t = 0; t < lanes; ++t) {
    double const step = t < n ? static_cast<double>(h.step.at[(first + t) * h.step.step]) : 0.0;
    double const decay = step * h.rate;
    s.step[t] = step;
    s.l[t + 1] = s.l[t] + (decay > nothing_left ? decay : nothing_left);
  }
  load_rows(h.x, first, n, h.value, s.x, s.vp);
  load_rows(h.b, first, n, h.key, s.b, s.kp);
  load_rows(h.c, first, n, h.key, s.c, s.kp);
  for (index t = 0; t < lanes; ++t) {
    auto const step = static_cast<float>(s.step[t]);
    float const start = s.from_start(t);
    for (index i = 0; i < s.vp; ++i) s.scaled[t * s.vp + i] = step * s.x[t * s.vp + i];
    for (index i = 0; i < s.kp; ++i) s.c_start[t * s.kp + i] = start * s.c[t * s.kp + i];
    float row[lanes];
    for (index j = 0; j < lanes; ++j) row[j] = j < t ? static_cast<float>(s.l[t + 1] - s.l[j + 1]) : 0.0F;
    for (index j = 0; j < lanes; ++j) row[j] = cpu_kernels::exp1(row[j]);
    for (index j = 0; j < lanes; ++j) s.mask[t * lanes + j] = j <= t ? row[j] : 0.0F;
  }
  transposed(lanes, s.kp, s.b, s.kp, s.b_columns, lanes);
  float left[lanes];
  for (index t = 0; t < lanes; ++t) left[t] = s.to_end(t);
  for (index i = 0; i < s.kp; ++i)
    for (index t = 0; t < lanes; ++t) s.b_end[i * lanes + t] = s.b_columns[i * lanes + t] * left[t];
}

/// m = L o (C B').
void ssd_pairs(ssd_space& s) {
  product(lanes, lanes, s.kp, s.c, s.kp, 1, s.b_columns, lanes, s.m, lanes, false);
  for (index i = 0; i < lanes * lanes; ++i) s.m[i] = s.mask[i] == 0.0F ? 0.0F : s.mask[i] * s.m[i];
}

/// The state after a prepared chunk.
void ssd_advance(ssd_space& s) {
  float const left = s.from_start(lanes - 1);
  for (index i = 0; i < s.kp * s.vp; ++i) s.state[i] *= left;
  product(s.kp, s.vp, lanes, s.b_end, lanes, 1, s.scaled, s.vp, s.state, s.vp, true);
}

index k_ssd_scratch(index rows, index key, index value, bool gradient) {
  return ssd_space(nullptr, rows, key, value, gradient).used;
}

/// Row by row, in the state's own layout: for a few rows, as in speech.
void ssd_rows(ssd_head const& h, rows_out y, float* last) {
  for (index i = 0; i < h.value * h.key; ++i) last[i] = h.state[i];
  for (index t = 0; t < h.rows; ++t) {
    float const step = h.step.at[t * h.step.step];
    float const left = cpu_kernels::exp1(step * static_cast<float>(h.rate));
    float const* const b = h.b.at + t * h.b.step;
    float const* const c = h.c.at + t * h.c.step;
    for (index i = 0; i < h.value; ++i) {
      float* const row = last + i * h.key;
      float const x = h.x.at[t * h.x.step + i];
      for (index j = 0; j < h.key; ++j) row[j] = left * row[j] + step * x * b[j];
      float const sum = cpu_kernels::fixed_sum(h.key, [row, c](index j) { return row[j] * c[j]; });
      y.at[t * y.step + i] = sum + static_cast<float>(h.skip) * x;
    }
  }
}

void k_ssd(ssd_head const& h, rows_out y, float* last, float* scratch) {
  if (h.rows <= few) return ssd_rows(h, y, last);
  ssd_space s(scratch, h.rows, h.key, h.value, false);
  auto const skip = static_cast<float>(h.skip);
  load_state(h.state, h.value, h.key, s.state, s.vp);
  for (index first = 0; first < h.rows; first += lanes) {
    index const n = h.rows - first < lanes ? h.rows - first : lanes;
    ssd_prepare(s, h, first, n);
    ssd_pairs(s);
    for (index i = 0; i < lanes * s.vp; ++i) s.y[i] = skip * s.x[i];
    product(lanes, s.vp, s.kp, s.c_start, s.kp, 1, s.state, s.vp, s.y, s.vp, true);
    product(lanes, s.vp, lanes, s.m, lanes, 1, s.scaled, s.vp, s.y, s.vp, true);
    ssd_advance(s);
    store_rows(s.y, s.vp, y, first, n, h.value);
  }
  store_state(s.state, s.vp, last, h.value, h.key, false);
}

void k_ssd_gradient(ssd_head const& h, ssd_slopes const& to, rows_in dy, float const* dlast, float* scratch) {
  ssd_space s(scratch, h.rows, h.key, h.value, true);
  index const kp = s.kp;
  index const vp = s.vp;
  auto const skip = static_cast<float>(h.skip);
  load_state(h.state, h.value, h.key, s.state, vp);
  for (index c = 0; c < s.chunks; ++c) {  // the states between chunks
    index const first = c * lanes;
    for (index i = 0; i < kp * vp; ++i) s.states[c * kp * vp + i] = s.state[i];
    if (c + 1 == s.chunks) break;
    ssd_prepare(s, h, first, lanes);
    ssd_advance(s);
  }
  load_state(dlast, h.value, h.key, s.slope, vp);
  double drate = 0;
  double dskip = 0;
  for (index chunk = s.chunks - 1; chunk >= 0; --chunk) {
    index const first = chunk * lanes;
    index const n = h.rows - first < lanes ? h.rows - first : lanes;
    float const* const start = s.states + chunk * kp * vp;
    ssd_prepare(s, h, first, n);
    ssd_pairs(s);
    load_rows(dy, first, n, h.value, s.up, vp);
    transposed(lanes, vp, s.up, vp, s.up_columns, lanes);
    transposed(lanes, vp, s.scaled, vp, s.x_columns, lanes);
    transposed(kp, lanes, s.b_end, lanes, s.b_rows_end, kp);

    // Pairs of rows inside the chunk: em = dY X', F = m o em, d(C B') = L o em.
    product(lanes, lanes, vp, s.up, vp, 1, s.x_columns, lanes, s.em, lanes, false);
    for (index i = 0; i < lanes * lanes; ++i) s.dcb[i] = s.mask[i] == 0.0F ? 0.0F : s.mask[i] * s.em[i];
    for (index i = 0; i < lanes * lanes; ++i) s.em[i] = s.mask[i] == 0.0F ? 0.0F : s.m[i] * s.em[i];
    transposed(lanes, lanes, s.em, lanes, s.f_columns, lanes);

    product(lanes, vp, lanes, s.m, 1, lanes, s.up, vp, s.dx, vp, false);
    product(lanes, vp, kp, s.b_rows_end, kp, 1, s.slope, vp, s.dx, vp, true);

    // The gradients of C and B through the state come first, as the decay needs them alone.
    double of_start[lanes];
    double of_end[lanes];
    product(kp, lanes, vp, start, vp, 1, s.up_columns, lanes, s.by_key, lanes, false);
    transposed(kp, lanes, s.by_key, lanes, s.dc, kp);
    product(kp, lanes, vp, s.slope, vp, 1, s.x_columns, lanes, s.by_key, lanes, false);
    transposed(kp, lanes, s.by_key, lanes, s.db, kp);
    for (index t = 0; t < lanes; ++t) {
      float const from = s.from_start(t);
      float const left = s.to_end(t);
      for (index i = 0; i < kp; ++i) s.dc[t * kp + i] *= from;
      for (index i = 0; i < kp; ++i) s.db[t * kp + i] *= left;
      of_start[t] = static_cast<double>(inner_product(s.c + t * kp, s.dc + t * kp, kp));
      of_end[t] = static_cast<double>(inner_product(s.b + t * kp, s.db + t * kp, kp));
    }
    product(lanes, kp, lanes, s.dcb, lanes, 1, s.b, kp, s.dc, kp, true);
    product(lanes, kp, lanes, s.dcb, 1, lanes, s.c, kp, s.db, kp, true);

    float const left = s.from_start(lanes - 1);
    double const through = static_cast<double>(left * inner_product(s.slope, start, kp * vp));
    for (index i = 0; i < kp * vp; ++i) s.slope[i] *= left;
    product(kp, vp, lanes, s.c_start, 1, kp, s.up, vp, s.slope, vp, true);

    // d(step rate)_t sums, without any subtraction, what spans row t: pairs (i >= t, j < t), the start as seen by
    // rows i >= t, rows j < t as left at the end, and the start as left at the end.
    float spanned[lanes] = {};  // at i: sum of F_ij over j < t
    double ended = 0;
    for (index t = 0; t < n; ++t) {
      if (t > 0) {
        for (index i = 0; i < lanes; ++i) spanned[i] += s.f_columns[(t - 1) * lanes + i];
        ended += of_end[t - 1];
      }
      double slope = ended + through;
      for (index i = t; i < lanes; ++i) slope += static_cast<double>(spanned[i]) + of_start[i];
      double const own = static_cast<double>(inner_product(s.x + t * vp, s.dx + t * vp, vp));
      if (to.step.at != nullptr) {
        float& out = to.step.at[(first + t) * to.step.step];
        auto const value = static_cast<float>(own + h.rate * slope);
        out = to.step.add ? out + value : value;
      }
      drate += s.step[t] * slope;
      dskip += static_cast<double>(inner_product(s.x + t * vp, s.up + t * vp, vp));
      auto const step = static_cast<float>(s.step[t]);
      for (index i = 0; i < vp; ++i) s.dx[t * vp + i] = step * s.dx[t * vp + i] + skip * s.up[t * vp + i];
    }
    store_rows(s.dx, vp, to.x, first, n, h.value);
    store_rows(s.db, kp, to.b, first, n, h.key);
    store_rows(s.dc, kp, to.c, first, n, h.key);
  }
  *to.rate = drate;
  *to.skip = dskip;
  if (to.state.at != nullptr) store_state(s.slope, vp, to.state.at, h.value, h.key, to.state.add);
}

}  // namespace
}  // namespace ouro::cpu_scans
