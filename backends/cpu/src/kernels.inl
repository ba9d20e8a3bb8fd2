// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The f32 kernels: branch-free loops that a compiler turns into vectors. Sums run in `lanes` partial sums, so that no
// reassociation of floating point is asked of it and the result does not depend on the instruction set's width.
//
// The polynomials are minimax fits by mpmath's chebyfit at 40 digits: exp(r) = 1 + r + r²·q(r) on ±ln2/2 (error 8e-9),
// erf(x)/x = p(x²), x ≤ 1 (3e-11), erfc(x)·exp(x²) = p(1/x), x ≥ 1 (3e-8).
#include "bf16_products.hpp"
#include "kernels.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ouro::cpu_kernels {
namespace {

constexpr int lanes = 16;

inline float select(bool c, float a, float b) { return c ? a : b; }

inline float exp1(float x) {
  float const low = select(x < -104.0F, -104.0F, x);
  float const c = select(low > 89.0F, 89.0F, low);  // a NaN passes through both
  float const shifted = c * 1.44269504F + 12582912.0F;
  float const n = shifted - 12582912.0F;
  float const r = (c - n * 0.693359375F) + n * 2.12194440e-4F;
  float q = 0.001392625083F;
  q = q * r + 0.008363232884F;
  q = q * r + 0.04166655421F;
  q = q * r + 0.1666657667F;
  q = q * r + 0.5F;
  float const y = (q * r) * r + r + 1.0F;
  // 2ⁿ in two factors, so that results below the normal range and above half the largest number are right.
  int const k = __builtin_bit_cast(int, shifted) - 0x4B400000;
  int const half = k >> 1;
  float const s1 = __builtin_bit_cast(float, (half + 127) << 23);
  float const s2 = __builtin_bit_cast(float, (k - half + 127) << 23);
  float const scaled = y * s1 * s2;
  return select(x != x, x, scaled);
}

inline float magnitude(float x) { return __builtin_bit_cast(float, __builtin_bit_cast(int, x) & 0x7FFFFFFF); }
inline float with_sign(float x, float of) {
  return __builtin_bit_cast(float, __builtin_bit_cast(int, x) | (__builtin_bit_cast(int, of) & static_cast<int>(0x80000000U)));
}

/// tanh(x) = t / (t + 2) with t = e^(2|x|) − 1 = 2ⁿ(eʳ − 1) + (2ⁿ − 1): exact near 0, where n is 0.
inline float tanh1(float x) {
  float const a = 2.0F * magnitude(x);
  float const c = select(a > 20.0F, 20.0F, a);
  float const shifted = c * 1.44269504F + 12582912.0F;
  float const n = shifted - 12582912.0F;
  float const r = (c - n * 0.693359375F) + n * 2.12194440e-4F;
  float q = 0.001392625083F;
  q = q * r + 0.008363232884F;
  q = q * r + 0.04166655421F;
  q = q * r + 0.1666657667F;
  q = q * r + 0.5F;
  float const power = __builtin_bit_cast(float, (__builtin_bit_cast(int, shifted) - 0x4B400000 + 127) << 23);
  float const t = power * ((q * r) * r + r) + (power - 1.0F);
  return select(x != x, x, with_sign(t / (t + 2.0F), x));
}

/// erf(x), given e = exp(−x²).
inline float erf_with(float x, float e) {
  float const a = magnitude(x);
  float const z = x * x;
  float p = -9.667044571e-6F;
  p = p * z + 0.0001126595903F;
  p = p * z - 0.0008484080406F;
  p = p * z + 0.005221031808F;
  p = p * z - 0.02686543073F;
  p = p * z + 0.112837825F;
  p = p * z - 0.3761263847F;
  p = p * z + 1.128379167F;
  float const c = select(a > 4.1F, 4.1F, a);
  float const t = 1.0F / select(c < 0.9F, 0.9F, c);
  float q = -0.007440812113F;
  q = q * t + 0.01879646373F;
  q = q * t + 0.04385300023F;
  q = q * t - 0.264779543F;
  q = q * t + 0.5126067662F;
  q = q * t - 0.4781891932F;
  q = q * t + 0.04362603153F;
  q = q * t + 0.5588291533F;
  q = q * t + 0.0002816988003F;
  float const far = with_sign(1.0F - e * q, x);
  return select(a < 1.0F, x * p, select(x != x, x, far));
}
inline float erf1(float x) { return erf_with(x, exp1(-x * x)); }

inline float sigmoid1(float x) {
  float const e = exp1(-magnitude(x));
  return select(x < 0.0F, e, select(x != x, x, 1.0F)) / (1.0F + e);
}
inline float gelu1(float x) { return 0.5F * x * (1.0F + erf1(x * 0.70710678F)); }
inline float gelu_slope(float x) {
  float const e = exp1(-0.5F * x * x);
  return 0.5F * (1.0F + erf_with(x * 0.70710678F, e)) + x * 0.39894228F * e;
}
inline float silu1(float x) { return x * sigmoid1(x); }
inline float silu_slope(float x) {
  float const g = sigmoid1(x);
  return g * (1.0F + x * (1.0F - g));
}

template <class F>
void each(float* y, float const* x, index n, F f) {
  for (index i = 0; i < n; ++i) y[i] = f(x[i]);
}
template <class F>
void each_gradient(float* dx, float const* s, float const* dy, index n, bool add, F f) {
  if (add) {
    for (index i = 0; i < n; ++i) dx[i] += f(s[i]) * dy[i];
  } else {
    for (index i = 0; i < n; ++i) dx[i] = f(s[i]) * dy[i];
  }
}
template <class F>
void each_pair(float* c, float const* a, float const* b, index n, bool add, F f) {
  if (add) {
    for (index i = 0; i < n; ++i) c[i] += f(a[i], b[i]);
  } else {
    for (index i = 0; i < n; ++i) c[i] = f(a[i], b[i]);
  }
}

/// Σ f(i) in a fixed order.
template <class F>
float fixed_sum(index n, F f) {
  float part[lanes] = {};
  index i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) part[l] += f(i + l);
  for (int l = 0; i + l < n; ++l) part[l] += f(i + l);
  for (int step = lanes / 2; step > 0; step /= 2)
    for (int l = 0; l < step; ++l) part[l] += part[l + step];
  return part[0];
}

void k_exp(float const* x, float* y, index n) { each(y, x, n, exp1); }
void k_tanh(float const* x, float* y, index n) { each(y, x, n, tanh1); }
void k_erf(float const* x, float* y, index n) { each(y, x, n, erf1); }

// The order of the cases is that of enum unary.
void k_map(int f, float* y, float const* x, index n) {
  switch (f) {
    case 0: return each(y, x, n, gelu1);
    case 1: return each(y, x, n, tanh1);
    case 2: return each(y, x, n, sigmoid1);
    case 3: return each(y, x, n, silu1);
    case 4: return each(y, x, n, exp1);
    case 5: return each(y, x, n, [](float v) { return v * v; });
    default: return each(y, x, n, [](float v) { return __builtin_sqrtf(v); });
  }
}
void k_map_gradient(int f, float* dx, float const* s, float const* dy, index n, bool add) {
  switch (f) {
    case 0: return each_gradient(dx, s, dy, n, add, gelu_slope);
    case 1: return each_gradient(dx, s, dy, n, add, [](float y) { return 1.0F - y * y; });
    case 2: return each_gradient(dx, s, dy, n, add, [](float y) { return y * (1.0F - y); });
    case 3: return each_gradient(dx, s, dy, n, add, silu_slope);
    case 4: return each_gradient(dx, s, dy, n, add, [](float y) { return y; });
    case 5: return each_gradient(dx, s, dy, n, add, [](float x) { return 2.0F * x; });
    default: return each_gradient(dx, s, dy, n, add, [](float y) { return 0.5F / y; });
  }
}
// The order of the cases is that of enum binary.
void k_combine(int f, float* c, float const* a, float const* b, index n, bool add) {
  switch (f) {
    case 0: return each_pair(c, a, b, n, add, [](float x, float y) { return x + y; });
    case 1: return each_pair(c, a, b, n, add, [](float x, float y) { return x - y; });
    case 2: return each_pair(c, a, b, n, add, [](float x, float y) { return x * y; });
    default: return each_pair(c, a, b, n, add, [](float x, float y) { return x / y; });
  }
}
void k_combine_scalar(int f, float* c, float const* a, float b, index n, bool add) {
  float const factor = f == 2 ? b : 1.0F;
  float const term = f == 0 ? b : f == 1 ? -b : 0.0F;
  if (f == 3) {
    for (index i = 0; i < n; ++i) c[i] = select(add, c[i], 0.0F) + a[i] / b;
  } else if (add) {
    for (index i = 0; i < n; ++i) c[i] += a[i] * factor + term;
  } else {
    for (index i = 0; i < n; ++i) c[i] = a[i] * factor + term;
  }
}
void k_scale(float* y, float const* x, float factor, index n, bool add) {
  if (add) {
    for (index i = 0; i < n; ++i) y[i] += factor * x[i];
  } else {
    for (index i = 0; i < n; ++i) y[i] = factor * x[i];
  }
}
float k_sum(float const* x, index n) {
  return fixed_sum(n, [x](index i) { return x[i]; });
}
/// sum_c += Σ_r term(r, c), eight rows at a time in f32.
template <class F>
inline void sum_rows(double* sum, index rows, index n, F const& term) {
  constexpr index together = 8;
  index r = 0;
  for (; r + together <= rows; r += together)
    for (index c = 0; c < n; ++c) {
      float eight = 0;
      for (index k = 0; k < together; ++k) eight += term(r + k, c);
      sum[c] += static_cast<double>(eight);
    }
  for (; r < rows; ++r)
    for (index c = 0; c < n; ++c) sum[c] += static_cast<double>(term(r, c));
}
void k_column_sums(double* sum, float const* x, index stride, index rows, index n) {
  sum_rows(sum, rows, n, [=](index r, index c) { return x[r * stride + c]; });
}
void k_column_squares(double* sum, float const* x, index stride, float const* mean, index rows, index n) {
  sum_rows(sum, rows, n, [=](index r, index c) {
    float const d = x[r * stride + c] - mean[c];
    return d * d;
  });
}
double k_sum_of_squares(float const* x, index n) {
  double part[lanes] = {};
  index i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) part[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  for (int l = 0; i + l < n; ++l) part[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  double sum = 0;
  for (double p : part) sum += p;
  return sum;
}
float k_dot(float const* a, float const* b, index n) {
  return fixed_sum(n, [a, b](index i) { return a[i] * b[i]; });
}

void k_layer_norm(float* y, float* mean, float* rstd, float const* x, float const* w, float const* b, float eps,
                  index rows, index width) {
  float const inverse = 1.0F / static_cast<float>(width);
  for (index r = 0; r < rows; ++r, x += width, y += width) {
    float const mu = k_sum(x, width) * inverse;
    float const squares = fixed_sum(width, [x, mu](index i) { return (x[i] - mu) * (x[i] - mu); });
    float const s = 1.0F / __builtin_sqrtf(squares * inverse + eps);
    mean[r] = mu;
    rstd[r] = s;
    for (index i = 0; i < width; ++i) y[i] = (x[i] - mu) * s * w[i] + b[i];
  }
}
void k_layer_norm_gradient(float* dx, float* dw, float* db, float const* x, float const* mean, float const* rstd,
                           float const* w, float const* dy, index rows, index width, bool add) {
  float const inverse = 1.0F / static_cast<float>(width);
  for (index r = 0; r < rows; ++r, x += width, dy += width) {
    float const mu = mean[r];
    float const s = rstd[r];
    if (dw != nullptr)
      for (index i = 0; i < width; ++i) dw[i] += dy[i] * (x[i] - mu) * s;
    if (db != nullptr)
      for (index i = 0; i < width; ++i) db[i] += dy[i];
    if (dx == nullptr) continue;
    float const sum = fixed_sum(width, [dy, w](index i) { return dy[i] * w[i]; }) * inverse;
    float const dot = fixed_sum(width, [=](index i) { return dy[i] * w[i] * (x[i] - mu); }) * s * inverse;
    float* out = dx + r * width;
    if (add) {
      for (index i = 0; i < width; ++i) out[i] += s * (dy[i] * w[i] - sum - (x[i] - mu) * s * dot);
    } else {
      for (index i = 0; i < width; ++i) out[i] = s * (dy[i] * w[i] - sum - (x[i] - mu) * s * dot);
    }
  }
}
float k_exp_shifted(float* x, float factor, float shift, index n) {
  for (index i = 0; i < n; ++i) x[i] = exp1(factor * x[i] - shift);
  return k_sum(x, n);
}
float k_maximum(float const* x, index n) {
  float part[lanes];
  for (float& p : part) p = x[0];
  index i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) part[l] = select(x[i + l] > part[l], x[i + l], part[l]);
  for (int l = 0; i + l < n; ++l) part[l] = select(x[i + l] > part[l], x[i + l], part[l]);
  float top = part[0];
  for (float p : part) top = select(p > top, p, top);
  return top;
}

#include "philox_kernels.inl"

#include "product_kernels.inl"

#include "attention_kernels.inl"
#include "gate_kernels.inl"

void k_adamw(float* p, float* m, float* v, float const* g, adamw_numbers const& s, index n) {
  for (index i = 0; i < n; ++i) {
    float const d = g[i] * s.scale;
    m[i] = s.beta1 * m[i] + s.one_minus_beta1 * d;
    v[i] = s.beta2 * v[i] + s.one_minus_beta2 * d * d;
    float const value = p[i] - s.shrink * p[i];
    p[i] = value - s.rate * (m[i] / s.correction1) / (__builtin_sqrtf(v[i] / s.correction2) + s.epsilon);
  }
}

}  // namespace

#define OURO_TEXT2(x) #x
#define OURO_TEXT(x) OURO_TEXT2(x)
table const& OURO_KERNELS() {
  static constexpr table t{OURO_TEXT(OURO_KERNELS), k_exp, k_tanh, k_erf, k_map, k_map_gradient, k_combine,
                           k_combine_scalar, k_scale, k_sum, k_sum_of_squares, k_column_sums, k_column_squares, k_dot,
                           k_layer_norm, k_layer_norm_gradient, k_exp_shifted, k_maximum, k_dropout,
                           k_row_products<float>, k_row_products<std::uint16_t>, k_attention_scratch, k_attention,
                           k_attention_gradient, k_gate, k_gate_gradient, k_adamw};
  return t;
}

}  // namespace ouro::cpu_kernels
