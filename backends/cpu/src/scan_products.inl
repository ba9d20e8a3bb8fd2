// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Small products of matrices whose extents are multiples of 16, and transposition: what the recurrence kernels are made
// of. Tiles of the result stay in registers; one operand is read in vectors, the other by single numbers, so that it may
// be transposed for nothing.
#pragma once

#include "scan_kernels.hpp"

namespace ouro::cpu_scans {
namespace {

constexpr int lanes = 16;
constexpr index few = 4;  // a chunk costs as much as some rows one by one, whatever is in it
// Vectors as wide as registers: wider ones are taken apart through memory by some compilers.
#if defined(__AVX512F__)
constexpr int vector_width = 16;
#elif defined(__AVX__)
constexpr int vector_width = 8;
#else
constexpr int vector_width = 4;
#endif
constexpr int parts = lanes / vector_width;
using vec = float __attribute__((vector_size(4 * vector_width)));

inline void load(vec& to, float const* p) { __builtin_memcpy(&to, p, sizeof to); }
inline void store(float* p, vec const& x) { __builtin_memcpy(p, &x, sizeof x); }
constexpr index padded(index n) { return (n + lanes - 1) / lanes * lanes; }

template <int Rows, int Vectors>
inline void tile(index depth, float const* a, index ai, index ak, float const* b, index ldb, float* c, index ldc,
                 bool add) {
  vec sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      if (add) load(sum[i][j], c + i * ldc + j * vector_width);
      else sum[i][j] = vec{};
    }
  for (index k = 0; k < depth; ++k, a += ak, b += ldb) {
    vec row[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) load(row[j], b + j * vector_width);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += a[i * ai] * row[j];
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(c + i * ldc + j * vector_width, sum[i][j]);
}

/// c (m,n) = or += a b, where a(i,k) is a[i*ai + k*ak] and b and c are row-major; m and n are multiples of 16.
void product(index m, index n, index depth, float const* a, index ai, index ak, float const* b, index ldb, float* c,
             index ldc, bool add) {
  index j = 0;
#if defined(__AVX512F__)
  for (; j + 2 * lanes <= n; j += 2 * lanes)
    for (index i = 0; i < m; i += 8) tile<8, 2>(depth, a + i * ai, ai, ak, b + j, ldb, c + i * ldc + j, ldc, add);
#endif
  constexpr int height = vector_width == 16  ? 16
                         : vector_width == 8 ? 4
                                             : 2;  // as many sums as there are registers for
  for (; j < n; j += lanes)
    for (index i = 0; i < m; i += height)
      tile<height, parts>(depth, a + i * ai, ai, ak, b + j, ldb, c + i * ldc + j, ldc, add);
}

#if defined(__AVX512F__)
#include "transpose16.inl"

/// y = xᵀ, 16 by 16.
inline void transpose_block(float const* x, index ldx, float* y, index ldy) {
  vec now[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) load(now[i], x + i * ldx);
  transpose16(now);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) store(y + i * ldy, now[i]);
}
#else
inline void transpose_block(float const* x, index ldx, float* y, index ldy) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) y[j * ldy + i] = x[i * ldx + j];
}
#endif

/// y (n,m) = xᵀ of x (m,n); m and n are multiples of 16.
void transposed(index m, index n, float const* x, index ldx, float* y, index ldy) {
  for (index i = 0; i < m; i += lanes)
    for (index j = 0; j < n; j += lanes) transpose_block(x + i * ldx + j, ldx, y + j * ldy + i, ldy);
}

/// x . y over n numbers, a multiple of 16, in 16 partial sums.
float inner_product(float const* x, float const* y, index n) {
  float part[lanes] = {};
  for (index i = 0; i < n; i += lanes)
    for (int l = 0; l < lanes; ++l) part[l] += x[i + l] * y[i + l];
  float total = 0;
  for (float p : part) total += p;
  return total;
}

/// A state (value,key) into its padded transpose, and back.
void load_state(float const* state, index value, index key, float* to, index ld) {
  for (index i = 0; i < value; ++i)
    for (index j = 0; j < key; ++j) to[j * ld + i] = state == nullptr ? 0.0F : state[i * key + j];
}
void store_state(float const* from, index ld, float* state, index value, index key, bool add) {
  for (index i = 0; i < value; ++i)
    for (index j = 0; j < key; ++j) state[i * key + j] = from[j * ld + i] + (add ? state[i * key + j] : 0.0F);
}

/// Up to 16 rows into scratch; rows from `n` on are zero.
void load_rows(rows_in const& from, index first, index n, index width, float* to, index ld) {
  for (index t = 0; t < lanes; ++t) {
    float const* row = from.at + (first + t) * from.step;
    for (index i = 0; i < width; ++i) to[t * ld + i] = t < n ? row[i] : 0.0F;
  }
}
void store_rows(float const* from, index ld, rows_out const& to, index first, index n, index width) {
  if (to.at == nullptr) return;
  for (index t = 0; t < n; ++t) {
    float* row = to.at + (first + t) * to.step;
    if (to.add) {
      for (index i = 0; i < width; ++i) row[i] += from[t * ld + i];
    } else {
      for (index i = 0; i < width; ++i) row[i] = from[t * ld + i];
    }
  }
}

/// Takes scratch from the front of a block; with a null block it only counts.
struct carver {
  float* base;
  index used = 0;
  template <class... Pointers>
  void take(index n, Pointers*&... to) {
    ((to = base == nullptr ? nullptr : base + used, used += padded(n)), ...);
  }
};

}  // namespace
}  // namespace ouro::cpu_scans
