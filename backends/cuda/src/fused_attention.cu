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
  int least;  // that any of the queries sees

  template <class S>
  __device__ running_rows(fused_problem<S> const& p, int query) : least(p.count(query)) {
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
    for (int i = 0; i < 32; ++i) element(s, i / 16, i % 16) *= steepness;
    if (key + tile_rows > least) hide(s, key);
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      float best = top[h];
      OURO_UNROLL
      for (int i = 0; i < 16; ++i) best = std::fmax(best, element(s, h, i));
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
  /// Scores of keys that their queries do not see are less than all others.
  __device__ void hide(score_tile& s, int key) const {
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      int const limit = count[h] - key - fragment_column();
      OURO_UNROLL
      for (int i = 0; i < 16; ++i)
        if (i / 2 * 8 + i % 2 >= limit) element(s, h, i) = -std::numeric_limits<float>::infinity();
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
  /// Adds, in their order, what the warps that have the same queries have made of other keys.
  __device__ void join(int groups) {
    constexpr int own = Width / 8;
    tile_sums mine[own + 1];
    OURO_UNROLL
    for (int n = 0; n < own; ++n) mine[n] = out[n];
    mine[own] = {top[0], top[1], sum[0], sum[1]};
    shared_rows<own + 1> const rows(shared_memory<tile_sums>(), groups);
    rows.leave(mine);
    if (rows.split > 0) return;
    for (int s = 1; s < rows.splits; ++s) {
      tile_sums const ends = rows.left(s, own);
      OURO_UNROLL
      for (int h = 0; h < 2; ++h) {
        float const best = std::fmax(top[h], ends.at[h]);
        float const factor = power_of_two(ends.at[h] - best);
        shrink(h, power_of_two(top[h] - best));
        top[h] = best;
        sum[h] += ends.at[2 + h] * factor;
        OURO_UNROLL
        for (int n = 0; n < own; ++n) {
          tile_sums const part = rows.left(s, n);
          out[n].at[2 * h] += part.at[2 * h] * factor;
          out[n].at[2 * h + 1] += part.at[2 * h + 1] * factor;
        }
      }
    }
  }
};

/// The weights of a tile after the dropout, but for its factor.
template <class S>
__device__ void drop(fused_problem<S> const& p, kept_by_rows const& mask, score_tile& s) {
  if (p.threshold == 0) return;
  OURO_UNROLL
  for (int i = 0; i < 32; ++i) {
    float& x = s[i / 8][i / 4 % 2].at[i % 4];
    x = mask.keeps(i / 4, i % 4) ? x : 0.0F;
  }
}

/// A block's warps have `groups` times 16 queries; those that share theirs take turns at the tiles of keys.
template <int Width, class S>
__global__ void __launch_bounds__(most_warps* warp_size, Width <= 64 ? 2 : 1)
    fused_attention_kernel(fused_problem<S> p, head_rows<S> y, float* lse, int groups) {
  constexpr int pitch = tile_pitch<Width>;
  int const split = fused_warp() / groups;
  int const splits = fused_warps() / groups;
  key_tiles<Width> const tiles{.at_once = splits};
  fused_place const at(p);
  int const queries = static_cast<int>(p.queries);
  int const width = static_cast<int>(p.width);
  auto const [first, block_rows, query, block_sees, warp_sees] = query_rows(p, at, groups, fused_warp() % groups);
  auto load_next = [&, seen = block_sees](int key) {
    for (int s = 0; s < splits; ++s)
      if (key + s * tile_rows < seen) load_keys(tiles, p, at, key + s * tile_rows);
  };

  // The queries pass through the room of the tiles that come next.
  load_tile<Width>(tiles.k(splits), at.rows(p.q, p.width) + first * p.q.row, p.q.row, block_rows, width, p.aligned);
  load_next(0);
  finish_loads();
  __syncthreads();
  fragment q[Width / 16];
  load_left<Width>(q, tiles.k(splits) + (query - first) * pitch);
  running_rows<Width> rows(p, query);
  for (int next = 0; next < block_sees; next += splits * tile_rows) {
    finish_loads();
    __syncthreads();  // these tiles are there, and nobody reads those before
    load_next(next + splits * tile_rows);
    int const j = next + split * tile_rows;
    if (j >= warp_sees) continue;
    bf16_pair const* const k_tile = tiles.k(j / tile_rows);
    bf16_pair const* const v_tile = tiles.v(j / tile_rows);
    score_tile s = {};
    OURO_UNROLL
    for (int m = 0; m < 4; ++m)
      if (j + 16 * m < warp_sees) multiply_rows<Width>(s[m], q, k_tile + 16 * m * pitch);
    rows.weigh(s, j, p.steepness());
    drop(p, kept_by_rows(p, at.flat, query, j, warp_sees, 0, 1), s);
    OURO_UNROLL
    for (int m = 0; m < 4; ++m)
      if (j + 16 * m < warp_sees) add_product<Width, pitch>(rows.out, rounded_left(s[m]), v_tile + 16 * m * pitch);
  }
  if (splits > 1) {
    rows.join(groups);
    if (split > 0) return;
  }
  float total[2];
  OURO_UNROLL
  for (int h = 0; h < 2; ++h) {
    total[h] = run_sum<4>(rows.sum[h]);
    int const i = query + fragment_line() + 8 * h;
    if (i < queries && lane_number() % 4 == 0)
      lse[at.flat * p.queries + i] = (rows.top[h] + std::log2(total[h])) / log2_of_e;
  }
  store_rows<Width>(at.rows(y, p.width) + query * y.row, y.row, queries - query, width, rows.out, p.factor / total[0],
                    p.factor / total[1], p.aligned, false);
}

/// How many warps share their queries: more than one where there would be few for the device.
template <class S>
int key_splits(fused_problem<S> const& p, row_split const& split) {
  constexpr index enough = 12;  // warps of a multiprocessor
  index const warps = p.flats() * split.tiles * split.warps;
  int splits = 1;
  while (2 * splits * split.warps <= most_warps && p.keys > splits * tile_rows &&
         splits * warps < enough * multiprocessors())
    splits *= 2;
  return splits;
}

}  // namespace

bool attention_is_fused(const_view const& q, attention_rule const& rule) {
  index const width = q.dims[2] / rule.heads;
  bool const rounds = q.type == dtype::bf16 || (q.type == dtype::f32 && cuda_products() == product_precision::bf16);
  return rounds && q.dims[1] > 1 && width % 16 == 0 && width <= 128;
}

void fused_attention(view const& y, float* lse, const_view const& q, const_view const& k, const_view const& v,
                     attention_rule const& rule) {
  with_fused_storage(q.type, [&]<class S>(std::type_identity<S>) {
    fused_problem<S> p(q, k, v, rule);
    p.aligned = p.aligned && rows_are_aligned(const_view(y));
    row_split const split(p.queries, p.flats(), most_warps, 4);
    int const splits = key_splits(p, split);
    with_fused_width(p.width, [&]<int Width>(std::integral_constant<int, Width>) {
      launch("attention", fused_attention_kernel<Width, S>, p.flats() * split.tiles, splits * split.warps * warp_size,
             key_tiles<Width>::bytes(splits), p, rows_of<S>(destination(y)), lse, split.warps);
    });
  });
}

}  // namespace ouro::cuda_kernels
