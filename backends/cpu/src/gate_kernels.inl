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

void add(float const* x, float const* h, float* s, index n) {
  for (index i = 0; i < n; ++i) s[i] = x[i] + h[i];
}
/// s = Σ_j y_j.
void fold(float const* __restrict y, float* __restrict s, index d, index count) {
  for (index i = 0; i < d; ++i) s[i] = y[i];
  for (index j = 1; j < count; ++j)
    for (index i = 0; i < d; ++i) s[i] += y[j * d + i];
}
void standardise(float const* x, float* y, index n, float mean, float rstd) {
  for (index i = 0; i < n; ++i) y[i] = (x[i] - mean) * rstd;
}

void k_gate(gate_rows const& g, float* y, float* folded, float* stats, float* scratch, index first, index rows) {
  index const d = g.width;
  index const n = d * g.spread;
  float* q = scratch;
  for (index r = first; r < first + rows; ++r) {
    float const* x = g.x + r * d;
    float* st = stats + r * 6;
    float* out = y + r * n;
    add(x, g.h + r / g.lane_rows * d, q, d);
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
    if (folded != nullptr) fold(out, folded + r * d, d, g.spread);
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

// Passes say that their pointers do not overlap, else the compiler would have to test too many pairs of them.

/// Back through y = act((f + f_bias) ⊙ a), a = tanh(p ⊙ w + b), p = (gate ⊙ q − m) s: p, what is towards it (dp) and towards
/// f (df); the sums of df, of what is towards p ⊙ w + b times p, and of that alone go on.
template <bool Gelu>
void through_gate(float const* __restrict dy, float const* __restrict f, float const* __restrict f_bias,
                  float const* __restrict q, float const* __restrict gate, float const* __restrict w,
                  float const* __restrict b, float m, float s, float* __restrict p, float* __restrict dp,
                  float* __restrict df, float* __restrict sum_f, float* __restrict sum_weight, float* __restrict sum_bias,
                  index d) {
  for (index i = 0; i < d; ++i) {
    float const at = (gate[i] * q[i] - m) * s;
    float const a = tanh1(at * w[i] + b[i]);
    float const value = f[i] + f_bias[i];
    float const slope = Gelu ? dy[i] * gelu_slope(value * a) : dy[i];
    float const t = slope * value * (1.0F - a * a);
    p[i] = at;
    dp[i] = t * w[i];
    df[i] = slope * a;
    sum_f[i] += slope * a;
    sum_weight[i] += t * at;
    sum_bias[i] += t;
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
void k_gate_gradient(gate_rows const& g, gate_slopes const& to, float const* stats, float const* dy,
                     float const* dfolded, float* scratch, index first, index rows) {
  index const d = g.width;
  index const n = d * g.spread;
  float* qhat = scratch;
  float* q = qhat + d;
  float* dq = q + d;
  float* fhat = dq + d;
  float* normal = fhat + d;  // layer norm of x, where it stands for f, without its bias
  float* kept = normal + d;  // (n) all of dy, and as the dropout keeps it
  float* p = kept + n;       // (n) the standardised projection
  float* dp = p + n;         // (n) towards it
  float* own = dp + n;       // (n) df, where it does not go out as it is
  auto const through = g.gelu ? through_gate<true> : through_gate<false>;
  for (index r = first; r < first + rows; ++r) {
    float const* x = g.x + r * d;
    float const* st = stats + r * 6;
    add(x, g.h + r / g.lane_rows * d, qhat, d);
    standardise(qhat, qhat, d, st[0], st[1]);
    for (index i = 0; i < d; ++i) q[i] = qhat[i] * g.query_weight[i] + g.query_bias[i];
    float const m = st[2];
    float const s = st[3];
    float const* f = g.f == nullptr ? normal : g.f + r * n;
    if (g.f == nullptr) {
      standardise(x, fhat, d, st[4], st[5]);
      for (index i = 0; i < d; ++i) normal[i] = fhat[i] * g.scale[i];
    }
    float const* up = dy + r * n;
    if (dfolded != nullptr) {
      for (index j = 0; j < n; j += d) add(up + j, dfolded + r * d, kept + j, d);
      up = kept;
    }
    if (g.drop.threshold > 0) {
      k_dropout(kept, nullptr, up, g.drop, static_cast<wide>(r * n), n);
      up = kept;
    }
    float* df = g.f != nullptr && to.f != nullptr && !to.f_adds ? to.f + r * n : own;
    for (index j = 0; j < n; j += d)
      through(up + j, f + j, g.bias + j, q, g.gate + j, g.proj_weight + j, g.proj_bias + j, m, s, p + j, dp + j, df + j,
              to.bias + j, to.proj_weight + j, to.proj_bias + j, d);
    if (g.f == nullptr) {
      for (index i = 0; i < d; ++i) {
        to.scale[i] += df[i] * fhat[i];
        df[i] *= g.scale[i];
      }
      if (to.x != nullptr) through_moments(to.x + r * d, fhat, df, st[5], d, to.x_adds);
    } else if (to.f != nullptr && to.f_adds) {
      for (index i = 0; i < n; ++i) to.f[r * n + i] += df[i];
    }
    float const inverse = 1.0F / static_cast<float>(n);
    float const sum = k_sum(dp, n) * inverse;
    float const dot = k_dot(dp, p, n) * inverse;
    for (index i = 0; i < d; ++i) dq[i] = 0.0F;
    for (index j = 0; j < n; j += d) through_spread(q, g.gate + j, dp + j, p + j, s, sum, dot, to.gate + j, dq, d);
    for (index i = 0; i < d; ++i) {
      to.query_weight[i] += dq[i] * qhat[i];
      to.query_bias[i] += dq[i];
      dq[i] *= g.query_weight[i];
    }
    through_moments(q, qhat, dq, st[1], d, false);
    for (index i = 0; i < d; ++i) to.h[i] += q[i];
    if (to.x == nullptr) continue;
    float* dx = to.x + r * d;
    if (to.x_adds || g.f == nullptr) {
      for (index i = 0; i < d; ++i) dx[i] += q[i];
    } else {
      for (index i = 0; i < d; ++i) dx[i] = q[i];
    }
  }
}
