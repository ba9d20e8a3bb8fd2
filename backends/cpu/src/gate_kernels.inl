// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate, row by row (contract: ouro/concepts/hormone_gate.hpp). Mean and variance of the projection need only
// D-wide sums: with G1 = Σ_j gate_j and G2 = Σ_j gate_j², Σ_j (gate_j q − m)² = G2 q² − 2 m G1 q + e m².

/// Mean and 1/σ of n values.
void k_moments(float const* x, index n, float eps, float& mean, float& rstd) {
  float const inverse = 1.0F / static_cast<float>(n);
  float const mu = k_sum(x, n) * inverse;
  mean = mu;
  rstd = 1.0F / __builtin_sqrtf(fixed_sum(n, [x, mu](index i) { return (x[i] - mu) * (x[i] - mu); }) * inverse + eps);
}

/// s = Σ_j x_j + h: (D).
void fold(gate_rows const& g, float const* x, float const* h, float* s) {
  index const d = g.width;
  for (index i = 0; i < d; ++i) s[i] = x[i] + h[i];
  for (index j = 1; j < g.folds; ++j)
    for (index i = 0; i < d; ++i) s[i] += x[j * d + i];
}
void standardise(float const* x, float* y, index n, float mean, float rstd) {
  for (index i = 0; i < n; ++i) y[i] = (x[i] - mean) * rstd;
}

void k_gate(gate_rows const& g, float* y, float* stats, float* scratch, index first, index rows) {
  index const d = g.width;
  index const n = d * g.spread;
  float* q = scratch;
  for (index r = first; r < first + rows; ++r) {
    float const* x = g.x + r * d * g.folds;
    float* st = stats + r * 6;
    float* out = y + r * n;
    fold(g, x, g.h + r / g.lane_rows * d, q);
    k_moments(q, d, g.epsilon, st[0], st[1]);
    float const mean = st[0];
    float const rstd = st[1];
    for (index i = 0; i < d; ++i) q[i] = (q[i] - mean) * rstd * g.query_weight[i] + g.query_bias[i];
    float const inverse = 1.0F / static_cast<float>(n);
    float const m = fixed_sum(d, [&](index i) { return g.gate_sum[i] * q[i]; }) * inverse;
    auto const e = static_cast<float>(g.spread);
    float const squares =
        fixed_sum(d, [&](index i) { return g.gate_squares[i] * q[i] * q[i] - 2.0F * m * g.gate_sum[i] * q[i] + e * m * m; });
    float const s = 1.0F / __builtin_sqrtf((squares > 0.0F ? squares : 0.0F) * inverse + g.epsilon);
    st[2] = m;
    st[3] = s;
    for (index j = 0; j < g.spread; ++j) {
      float const* gate = g.gate + j * d;
      float const* w = g.proj_weight + j * d;
      float const* b = g.proj_bias + j * d;
      for (index i = 0; i < d; ++i) out[j * d + i] = tanh1((gate[i] * q[i] - m) * s * w[i] + b[i]);
    }
    if (g.f == nullptr) {
      k_moments(x, d, g.epsilon, st[4], st[5]);
      float const mu = st[4];
      float const t = st[5];
      for (index i = 0; i < d; ++i) out[i] *= (x[i] - mu) * t * g.scale[i] + g.bias[i];
    } else {
      float const* f = g.f + r * n;
      for (index i = 0; i < n; ++i) out[i] *= f[i] + g.bias[i];
    }
    if (g.gelu)
      for (index i = 0; i < n; ++i) out[i] = gelu1(out[i]);
    if (g.drop.threshold > 0)
      k_dropout(out, nullptr, out, g.drop, static_cast<wide>(r * n), n);
    if (g.residual != nullptr)
      for (index i = 0; i < n; ++i) out[i] += g.residual[r * n + i];
  }
}

/// dx (+)= the gradient through x̂ = (x − mean)·rstd, given dx̂; adds to `to` when `add`.
void through_moments(float* to, float const* xhat, float const* dxhat, float rstd, index n, bool add) {
  float const inverse = 1.0F / static_cast<float>(n);
  float const sum = k_sum(dxhat, n) * inverse;
  float const dot = k_dot(xhat, dxhat, n) * inverse;
  if (add) {
    for (index i = 0; i < n; ++i) to[i] += rstd * (dxhat[i] - sum - xhat[i] * dot);
  } else {
    for (index i = 0; i < n; ++i) to[i] = rstd * (dxhat[i] - sum - xhat[i] * dot);
  }
}

// Each pass says that its pointers do not overlap, else the compiler would have to test too many pairs of them.

/// p = (gate ⊙ q − m) s, a = tanh(p ⊙ w + b).
void project(float const* __restrict q, float const* __restrict gate, float const* __restrict w, float const* __restrict b,
             float m, float s, float* __restrict p, float* __restrict a, index d) {
  for (index i = 0; i < d; ++i) {
    float const at = (gate[i] * q[i] - m) * s;
    p[i] = at;
    a[i] = tanh1(at * w[i] + b[i]);
  }
}
/// From y = f ⊙ a, a = tanh(p ⊙ w + b): dy (in `slope`) becomes df, f becomes dp; sums of db, dw and dbias go on.
void through_gate(gate_rows const& g, gate_slopes const& to, float* __restrict f, float* __restrict slope,
                  float const* __restrict p, float const* __restrict a, index n) {
  float* __restrict bias = to.bias;
  float* __restrict proj_weight = to.proj_weight;
  float* __restrict proj_bias = to.proj_bias;
  float const* __restrict w = g.proj_weight;
  for (index i = 0; i < n; ++i) {
    float const df = slope[i] * a[i];
    float const t = slope[i] * f[i] * (1.0F - a[i] * a[i]);
    slope[i] = df;
    bias[i] += df;
    proj_weight[i] += t * p[i];
    proj_bias[i] += t;
    f[i] = t * w[i];
  }
}
/// From p = standardised (gate ⊙ q): dgate and dq go on.
void through_spread(float const* __restrict q, float const* __restrict gate, float const* __restrict dp,
                    float const* __restrict p, float s, float sum, float dot, float* __restrict dgate, float* __restrict dq,
                    index d) {
  for (index i = 0; i < d; ++i) {
    float const du = s * (dp[i] - sum - p[i] * dot);
    dgate[i] += du * q[i];
    dq[i] += du * gate[i];
  }
}

// Sums over rows go to `to`, which the caller has cleared and adds up in a fixed order.
void k_gate_gradient(gate_rows const& g, gate_slopes const& to, float const* stats, float const* dy, float* scratch,
                     index first, index rows) {
  index const d = g.width;
  index const n = d * g.spread;
  float* qhat = scratch;
  float* q = qhat + d;
  float* dq = q + d;
  float* slope = dq + d;   // (n) dL/d(gated value)
  float* f = slope + n;    // (n) f + bias
  float* fhat = f + n;     // (d)
  float* p = fhat + d;     // (n) the standardised projection
  float* a = p + n;        // (n) the gate
  for (index r = first; r < first + rows; ++r) {
    float const* x = g.x + r * d * g.folds;
    float const* st = stats + r * 6;
    fold(g, x, g.h + r / g.lane_rows * d, qhat);
    standardise(qhat, qhat, d, st[0], st[1]);
    for (index i = 0; i < d; ++i) q[i] = qhat[i] * g.query_weight[i] + g.query_bias[i];
    float const m = st[2];
    float const s = st[3];
    if (g.f == nullptr) {
      standardise(x, fhat, d, st[4], st[5]);
      for (index i = 0; i < d; ++i) f[i] = fhat[i] * g.scale[i] + g.bias[i];
    } else {
      for (index i = 0; i < n; ++i) f[i] = g.f[r * n + i] + g.bias[i];
    }
    for (index j = 0; j < g.spread; ++j)
      project(q, g.gate + j * d, g.proj_weight + j * d, g.proj_bias + j * d, m, s, p + j * d, a + j * d, d);
    // The gradient at the gated value, back through what follows it.
    if (g.drop.threshold > 0)
      k_dropout(slope, nullptr, dy + r * n, g.drop, static_cast<wide>(r * n), n);
    else
      for (index i = 0; i < n; ++i) slope[i] = dy[r * n + i];
    if (g.gelu)
      for (index i = 0; i < n; ++i) slope[i] *= gelu_slope(f[i] * a[i]);
    through_gate(g, to, f, slope, p, a, n);  // slope is towards f now, f towards the projection
    if (g.f == nullptr) {
      for (index i = 0; i < d; ++i) {
        to.scale[i] += slope[i] * fhat[i];
        slope[i] *= g.scale[i];
      }
      if (to.x != nullptr) through_moments(to.x + r * d, fhat, slope, st[5], d, to.x_adds);
    } else if (to.f != nullptr) {
      float* df = to.f + r * n;
      if (to.f_adds) {
        for (index i = 0; i < n; ++i) df[i] += slope[i];
      } else {
        for (index i = 0; i < n; ++i) df[i] = slope[i];
      }
    }
    float const inverse = 1.0F / static_cast<float>(n);
    float const sum = k_sum(f, n) * inverse;
    float const dot = k_dot(f, p, n) * inverse;
    for (index i = 0; i < d; ++i) dq[i] = 0.0F;
    for (index j = 0; j < g.spread; ++j) through_spread(q, g.gate + j * d, f + j * d, p + j * d, s, sum, dot, to.gate + j * d, dq, d);
    for (index i = 0; i < d; ++i) {
      to.query_weight[i] += dq[i] * qhat[i];
      to.query_bias[i] += dq[i];
      dq[i] *= g.query_weight[i];
    }
    through_moments(q, qhat, dq, st[1], d, false);
    for (index i = 0; i < d; ++i) to.h[i] += q[i];
    if (to.x == nullptr) continue;
    bool const adds = to.x_adds || g.f == nullptr;
    for (index j = 0; j < g.folds; ++j) {
      float* dx = to.x + (r * g.folds + j) * d;
      if (adds) {
        for (index i = 0; i < d; ++i) dx[i] += q[i];
      } else {
        for (index i = 0; i < d; ++i) dx[i] = q[i];
      }
    }
  }
}
