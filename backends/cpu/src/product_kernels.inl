// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products that are too small for a library call, in register tiles.

typedef float v16 __attribute__((vector_size(64)));
typedef float v16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef int i16 __attribute__((vector_size(64)));

#if defined(__AVX512F__)
constexpr int tile_rows = 8;
constexpr int tile_vectors = 2;
#else
constexpr int tile_rows = 4;
constexpr int tile_vectors = 1;
#endif

inline v16 load(float const* p) { return *reinterpret_cast<v16u const*>(p); }
inline void store(float* p, v16 v) { *reinterpret_cast<v16u*>(p) = v; }

/// c (m,n) (+)= factor · a b; a(i,l) = a[i·ra + l·ca], b and c row-major.
struct small_product {
  float const* a;
  index ra, ca;
  float const* b;
  index ldb;
  float* c;
  index ldc;
  index k;
  float factor;
  bool add;
};

// The loops over a tile are unrolled by name, and what they read is copied first: else the sums go through memory.
template <int R, int V>
inline void tile(small_product const& p, index i, index j) {
  v16 sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[r][v] = v16{};
  index const ra = p.ra;
  float const* a = p.a + i * ra;
  float const* b = p.b + j;
  for (index l = 0, k = p.k, ca = p.ca, ldb = p.ldb; l < k; ++l, a += ca, b += ldb) {
    v16 column[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) column[v] = load(b + 16 * v);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] += a[r * ra] * column[v];
  }
  float* c = p.c + i * p.ldc + j;
  index const ldc = p.ldc;
  float const factor = p.factor;
  if (p.add) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) store(c + r * ldc + 16 * v, load(c + r * ldc + 16 * v) + factor * sum[r][v]);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) store(c + r * ldc + 16 * v, factor * sum[r][v]);
  }
}
template <int V>
void column_tiles(small_product const& p, index m, index j) {
  index i = 0;
  for (; i + tile_rows <= m; i += tile_rows) tile<tile_rows, V>(p, i, j);
  for (; i + 2 <= m; i += 2) tile<2, V>(p, i, j);
  for (; i < m; ++i) tile<1, V>(p, i, j);
}
void multiply(small_product const& p, index m, index n) {
  index j = 0;
  for (; j + 16 * tile_vectors <= n; j += 16 * tile_vectors) column_tiles<tile_vectors>(p, m, j);
  for (; j + 16 <= n; j += 16) column_tiles<1>(p, m, j);
  for (; j < n; ++j)
    for (index i = 0; i < m; ++i) {
      float sum = 0.0F;
      for (index l = 0; l < p.k; ++l) sum += p.a[i * p.ra + l * p.ca] * p.b[l * p.ldb + j];
      float& c = p.c[i * p.ldc + j];
      c = p.add ? c + p.factor * sum : p.factor * sum;
    }
}

#include "transpose16.inl"

/// The sums of each of sixteen vectors' values: value l and l + 8 first, then l and l + 4, and so on.
template <int N>
inline void add_halves(v16 (&x)[16]) {
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = interleaved_low(x[i], x[i + N]) + interleaved_high(x[i], x[i + N]);
}
inline v16 totals(v16 (&x)[16]) {
  add_halves<8>(x);
  add_halves<4>(x);
  add_halves<2>(x);
  add_halves<1>(x);
  return x[0];
}

typedef std::uint16_t h16 __attribute__((vector_size(32)));
typedef std::uint16_t h16u __attribute__((vector_size(32), aligned(2), may_alias));
typedef std::uint32_t u16 __attribute__((vector_size(64)));

/// Sixteen numbers in bf16, the upper halves of f32.
inline v16 load(std::uint16_t const* p) {
  h16 const halves = *reinterpret_cast<h16u const*>(p);
  return reinterpret_cast<v16>(__builtin_convertvector(halves, u16) << 16);
}
inline float number(float x) { return x; }
inline float number(std::uint16_t x) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(x) << 16U); }

/// c (m,n) (+)= factor · a wᵀ for few rows of a: every row of w, in f32 or bf16, is read once.
template <class Weight>
void k_row_products(float* c, index ldc, float const* a, index lda, Weight const* w, index ldw, index m, index n,
                    index k, float factor, bool add) {
  index const whole = k / 16 * 16;
  for (index j = 0; j < n; j += 16) {
    index const some = n - j < 16 ? n - j : 16;
    for (index i = 0; i < m; ++i) {
      float const* const x = a + i * lda;
      v16 sum[16] = {};
      for (index o = 0; o < some; o += 4) {
        Weight const* row[4];
        for (index r = 0; r < 4; ++r) row[r] = w + (j + (o + r < some ? o + r : o)) * ldw;
        v16 four[4] = {};
        for (index l = 0; l < whole; l += 16) {
          v16 const part = load(x + l);
          for (int r = 0; r < 4; ++r) four[r] += part * load(row[r] + l);
        }
        for (int r = 0; r < 4; ++r) sum[o + r] = four[r];
      }
      float value[16];
      store(value, totals(sum));
      for (index o = 0; o < some; ++o) {
        for (index l = whole; l < k; ++l) value[o] += x[l] * number(w[(j + o) * ldw + l]);
        float& to = c[i * ldc + j + o];
        to = add ? to + factor * value[o] : factor * value[o];
      }
    }
  }
}
