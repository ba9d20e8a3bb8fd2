// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention in bf16 on the tensor cores: a warp goes with its 16 queries over the tiles of keys that any of them sees.
#include "fused_attention.hpp"

namespace ouro::cuda_kernels {
namespace {

/// 16 queries and 64 keys: 16 keys, 8 keys, and what the thread has of these.
using score_tile = tile_sums[4][2];
/// Of the thread's row `h` the i-th element.
__device__ inline float& element(score_tile& s, int h, int i) { return s[i / 4][i / 2 % 2].at[2 * h + i % 2]; }

/// The running softmax of 16 queries, in powers of two: `top` is the largest score so far.
template <int Width>
struct running_rows {
  tile_sums out[Width / 8];
  float top[2];
  float sum[2];  // of this thread's keys
  int count[2];

  template <class S>
  __device__ running_rows(fused_problem<S> const& p, int query) {
    clear(out);
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      top[h] = -std::numeric_limits<float>::max() / 2;
      sum[h] = 0;
      count[h] = p.count(query + fragment_line() + 8 * h);
    }
  }

  /// Scores of keys `key` and on to weights; what was summed under a lower top shrinks.
  __device__ void weigh(score_tile& s, int key, float steepness) {
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      int const limit = count[h] - key - fragment_column();
      float best = top[h];
      OURO_UNROLL
      for (int i = 0; i < 16; ++i) {
        float& x = element(s, h, i);
        x = i / 2 * 8 + i % 2 < limit ? x * steepness : -std::numeric_limits<float>::infinity();
        best = x > best ? x : best;
      }
      best = quad_max(best);
      shrink(h, power_of_two(top[h] - best));
      top[h] = best;
      OURO_UNROLL
      for (int i = 0; i < 16; ++i) {
        float& x = element(s, h, i);
        x = power_of_two(x - best);
        sum[h] += x;
      }
    }
  }
  __device__ void shrink(int h, float factor) {
    sum[h] *= factor;
    OURO_UNROLL
    for (int n = 0; n < Width / 8; ++n) {
      out[n].at[2 * h] *= factor;
      out[n].at[2 * h + 1] *= factor;
    }
  }
};

/// The weights of a tile after the dropout.
template <class S>
__device__ void drop(fused_problem<S> const& p, kept_by_rows const& mask, score_tile& s) {
  if (p.threshold == 0) return;
  OURO_UNROLL
  for (int i = 0; i < 32; ++i) {
    float& x = s[i / 8][i / 4 % 2].at[i % 4];
    x = mask.keeps(i / 4, i % 4) ? x * p.factor : 0.0F;
  }
}

template <int Width, class S>
__global__ void __launch_bounds__(most_warps* warp_size, Width <= 64 ? 2 : 1)
    fused_attention_kernel(fused_problem<S> p, head_rows<S> y, float* lse) {
  constexpr int pitch = tile_pitch<Width>;
  bf16_pair* const k_tile = shared_memory<bf16_pair>();
  bf16_pair* const v_tile = k_tile + tile_rows * pitch;
  fused_place const at(p);
  int const queries = static_cast<int>(p.queries);
  int const keys = static_cast<int>(p.keys);
  int const width = static_cast<int>(p.width);
  int const block_rows = fused_warps() * warp_rows;
  int const first = (at.tiles - 1 - at.tile) * block_rows;  // those who see the most begin
  int const query = first + fused_warp() * warp_rows;
  int const block_sees = p.count(smaller(first + block_rows, queries) - 1);
  int const warp_sees = query < queries ? p.count(smaller(query + warp_rows, queries) - 1) : 0;
  S const* const k = at.rows(p.k, p.width);
  S const* const v = at.rows(p.v, p.width);

  fragment q[Width / 16];
  load_left<Width>(q, k_tile, at.rows(p.q, p.width) + first * p.q.row, p.q.row, smaller(queries - first, block_rows),
                   query - first, width, p.aligned);
  running_rows<Width> rows(p, query);
  for (int j = 0; j < block_sees; j += tile_rows) {
    int const here = smaller(keys - j, tile_rows);
    __syncthreads();  // who is still reading the tiles
    load_tile<Width>(k_tile, k + j * p.k.row, p.k.row, here, width, p.aligned);
    load_tile<Width>(v_tile, v + j * p.v.row, p.v.row, here, width, p.aligned);
    __syncthreads();
    if (j >= warp_sees) continue;
    score_tile s = {};
    OURO_UNROLL
    for (int m = 0; m < 4; ++m)
      if (j + 16 * m < warp_sees) multiply_rows<Width>(s[m], q, k_tile + 16 * m * pitch);
    rows.weigh(s, j, p.steepness());
    drop(p, kept_by_rows(p, at.flat, query, j, warp_sees), s);
    OURO_UNROLL
    for (int m = 0; m < 4; ++m)
      if (j + 16 * m < warp_sees) add_product<Width, pitch>(rows.out, rounded_left(s[m]), v_tile + 16 * m * pitch);
  }
  float total[2];
  OURO_UNROLL
  for (int h = 0; h < 2; ++h) {
    total[h] = run_sum<4>(rows.sum[h]);
    int const i = query + fragment_line() + 8 * h;
    if (i < queries && lane_number() % 4 == 0)
      lse[at.flat * p.queries + i] = (rows.top[h] + std::log2(total[h])) / log2_of_e;
  }
  store_rows<Width>(at.rows(y, p.width) + query * y.row, y.row, queries - query, width, rows.out, 1 / total[0],
                    1 / total[1], p.aligned, false);
}

}  // namespace

bool attention_is_fused(const_view const& q, attention_rule const& rule) {
  index const width = q.dims[2] / rule.heads;
  return cuda_products() == product_precision::bf16 && q.type == dtype::f32 && q.dims[1] > 1 && width % 16 == 0 &&
         width <= 128;
}

void fused_attention(view const& y, float* lse, const_view const& q, const_view const& k, const_view const& v,
                     attention_rule const& rule) {
  fused_problem<float> p(q, k, v, rule);
  auto const to = rows_of<float>(destination(y));
  p.aligned = p.aligned && rows_are_aligned(to);
  row_split const split(p.queries, p.flats());
  with_fused_width(p.width, [&]<int Width>(std::integral_constant<int, Width>) {
    launch("attention", fused_attention_kernel<Width, float>, p.flats() * split.tiles, split.warps * warp_size,
           2 * tile_rows * tile_pitch<Width> * sizeof(bf16_pair), p, to, lse);
  });
}

}  // namespace ouro::cuda_kernels
