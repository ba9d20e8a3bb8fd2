// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Both factors are packed into chunks of sixteen lanes (rows of a, columns of b): for every two steps along k a word for
// each lane, which holds two bf16 and is what VDPBF16PS takes. Lanes and steps that are not there are zero.
#include "bf16_products.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // the compiler's own intrinsics begin with nothing
#endif
#include <immintrin.h>

namespace ouro::cpu_kernels {

namespace {

using index = std::int64_t;
constexpr index lanes = 16;
constexpr int tile_rows = 8;
constexpr int tile_chunks = 3;

constexpr index chunks(index n) { return (n + lanes - 1) / lanes; }
constexpr index pairs(index k) { return (k + 1) / 2; }

__mmask16 first(index n) { return n >= lanes ? __mmask16(0xFFFF) : __mmask16((1U << n) - 1U); }

/// Words of the lanes' values at two steps, lower half first.
__m512i words(__m512 even, __m512 odd) {
  auto const low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(even)));
  auto const high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(odd)));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

#include "transpose16.inl"

/// One chunk of `n` ≤ 16 lanes from x: lane i at step l is x[i · lane_step + l · step].
void pack_chunk(std::uint32_t* to, float const* x, index lane_step, index step, index n, index k) {
  if (step == 1) {  // a lane lies in a row: sixteen words of each lane, then transposed
    for (index l = 0; l < k; l += 32) {
      __m512 row[16];  // as numbers that are only moved
      auto const low = first(k - l);
      auto const high = k - l > lanes ? first(k - l - lanes) : __mmask16(0);
      for (index i = 0; i < 16; ++i) {
        if (i >= n) {
          row[i] = _mm512_setzero_ps();
          continue;
        }
        float const* const at = x + i * lane_step + l;
        row[i] = reinterpret_cast<__m512>(
            _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, at + lanes), _mm512_maskz_loadu_ps(low, at)));
      }
      transpose16(row);
      for (index p = l / 2; p < pairs(k) && p < l / 2 + 16; ++p) _mm512_store_ps(to + p * lanes, row[p - l / 2]);
    }
    return;
  }
  if (lane_step == 1) {
    auto const mask = first(n);
    for (index l = 0; l < k; l += 2) {
      auto const even = _mm512_maskz_loadu_ps(mask, x + l * step);
      auto const odd = l + 1 < k ? _mm512_maskz_loadu_ps(mask, x + (l + 1) * step) : _mm512_setzero_ps();
      _mm512_store_si512(to + l / 2 * lanes, words(even, odd));
    }
    return;
  }
  for (index l = 0; l < k; l += 2) {
    alignas(64) float even[lanes] = {};
    alignas(64) float odd[lanes] = {};
    for (index i = 0; i < n; ++i) {
      even[i] = x[i * lane_step + l * step];
      if (l + 1 < k) odd[i] = x[i * lane_step + (l + 1) * step];
    }
    _mm512_store_si512(to + l / 2 * lanes, words(_mm512_load_ps(even), _mm512_load_ps(odd)));
  }
}

void pack(std::uint32_t* to, float const* x, index lane_step, index step, index n, index k) {
  for (index i = 0; i < n; i += lanes, to += pairs(k) * lanes)
    pack_chunk(to, x + i * lane_step, lane_step, step, n - i < lanes ? n - i : lanes, k);
}

/// Rows i … i + tile_rows of c and V chunks of columns from j: eight rows of one chunk of a by V chunks of b.
template <int V>
void tile(float* c, index ldc, std::uint32_t const* a, std::uint32_t const* b, index rows, index columns, index steps,
          float factor, bool add) {
  __m512 sum[tile_rows][V];
#pragma GCC unroll 8
  for (auto& row : sum)
#pragma GCC unroll 3
    for (auto& s : row) s = _mm512_setzero_ps();
  index const chunk = steps * lanes;
  for (index p = 0; p < steps; ++p) {
    __m512bh column[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) column[v] = reinterpret_cast<__m512bh>(_mm512_load_si512(b + v * chunk + p * lanes));
#pragma GCC unroll 8
    for (int r = 0; r < tile_rows; ++r) {
      auto const left = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[p * lanes + r])));
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], left, column[v]);
    }
  }
  auto const scale = _mm512_set1_ps(factor);
#pragma GCC unroll 8
  for (int r = 0; r < tile_rows; ++r) {
    if (r >= rows) break;
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      auto const mask = first(columns - v * lanes);
      float* const at = c + r * ldc + v * lanes;
      auto const before = add ? _mm512_maskz_loadu_ps(mask, at) : _mm512_setzero_ps();
      _mm512_mask_storeu_ps(at, mask, _mm512_fmadd_ps(scale, sum[r][v], before));
    }
  }
}

}  // namespace

index bf16_product_room(index m, index n, index k) { return (chunks(m) + chunks(n)) * lanes * pairs(k) + lanes; }

void bf16_product(float* c, index ldc, matrix a, matrix b, index m, index n, index k, float factor, bool add,
                  float* room) {
  index const steps = pairs(k);
  auto* const left = reinterpret_cast<std::uint32_t*>((reinterpret_cast<std::uintptr_t>(room) + 63) / 64 * 64);
  auto* const right = left + chunks(m) * lanes * steps;
  pack(left, a.data, a.row_step, a.column_step, m, k);
  pack(right, b.data, b.column_step, b.row_step, n, k);
  for (index j = 0; j < n; j += tile_chunks * lanes) {
    index const columns = n - j < tile_chunks * lanes ? n - j : tile_chunks * lanes;
    auto const* const own = right + j * steps;
    for (index i = 0; i < m; i += tile_rows) {
      index const rows = m - i < tile_rows ? m - i : tile_rows;
      auto const* const at = left + i / lanes * lanes * steps + i % lanes;
      float* const to = c + i * ldc + j;
      if (columns > 2 * lanes) tile<3>(to, ldc, at, own, rows, columns, steps, factor, add);
      else if (columns > lanes) tile<2>(to, ldc, at, own, rows, columns, steps, factor, add);
      else tile<1>(to, ldc, at, own, rows, columns, steps, factor, add);
    }
  }
}

}  // namespace ouro::cpu_kernels
