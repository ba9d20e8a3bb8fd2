// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The running softmax of a warp's 16 queries over tiles of 64 keys, as fragments of the tensor cores hold it.
#pragma once

#include <limits>

#include "fused_attention.hpp"

namespace ouro::cuda_kernels {

inline constexpr int tile_parts = tile_rows / 16;

/// Of the thread's row `h` the i-th element.
__device__ inline float& element(square_sums& s, int h, int i) { return s[i / 4][i / 2 % 2].at[2 * h + i % 2]; }
/// f(i) for the elements i of the first 16 · parts keys.
template <class F>
__device__ void each_of(int parts, F const& f) {
  OURO_UNROLL
  for (int m = 0; m < tile_parts; ++m) {
    if (m >= parts) break;
    OURO_UNROLL
    for (int i = 4 * m; i < 4 * m + 4; ++i) f(i);
  }
}

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

  /// Scores of 16 · parts keys, from `key` on, times the steepness (more than zero), to weights; what was summed under a
  /// lower top shrinks.
  __device__ void weigh(square_sums& s, int parts, int key, float steepness) {
    if (key + 16 * parts > least) hide(s, parts, key);
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      float best = -std::numeric_limits<float>::infinity();
      each_of(parts, [&](int i) { best = std::fmax(best, element(s, h, i)); });
      best = std::fmax(top[h], quad_max(best) * steepness);
      shrink(h, power_of_two(top[h] - best));
      top[h] = best;
      float sums[2] = {};  // neither waits for the other
      each_of(parts, [&](int i) {
        float& x = element(s, h, i);
        x = power_of_two(x * steepness - best);
        sums[i % 2] += x;
      });
      sum[h] += sums[0] + sums[1];
    }
  }
  /// Scores of keys that their queries do not see are less than all others.
  __device__ void hide(square_sums& s, int parts, int key) const {
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      int const limit = count[h] - key - fragment_column();
      each_of(parts, [&](int i) {
        if (i / 2 * 8 + i % 2 >= limit) element(s, h, i) = -std::numeric_limits<float>::infinity();
      });
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

/// The weights of 16 · parts keys after the dropout, but for its factor.
template <class S>
__device__ void drop(fused_problem<S> const& p, kept_by_rows const& mask, square_sums& s, int parts) {
  if (p.kept.all()) return;
  OURO_UNROLL
  for (int h = 0; h < 2; ++h)
    each_of(parts, [&](int i) {
      float& x = element(s, h, i);
      x = mask.keeps(i / 2, 2 * h + i % 2) ? x : 0.0F;
    });
}

/// What a warp's queries have come to, from `query` on.
template <int Width, class S>
__device__ void store_attention(fused_problem<S> const& p, fused_place const& at, head_rows<S> const& y, float* lse,
                                int query, running_rows<Width> const& rows) {
  int const queries = static_cast<int>(p.queries);
  float total[2];
  OURO_UNROLL
  for (int h = 0; h < 2; ++h) {
    total[h] = lanes_sum<4>(rows.sum[h]);
    int const i = query + fragment_line() + 8 * h;
    if (i < queries && lane_number() % 4 == 0)
      lse[at.flat * p.queries + i] = (rows.top[h] + std::log2(total[h])) / log2_of_e;
  }
  store_rows<Width>(at.rows(y, p.width) + query * y.row, y.row, queries - query, static_cast<int>(p.width), rows.out,
                    p.factor / total[0], p.factor / total[1], p.aligned, false);
}

}  // namespace ouro::cuda_kernels
