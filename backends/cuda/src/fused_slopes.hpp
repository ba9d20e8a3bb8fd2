// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the kernels for the gradient of attention on the tensor cores share.
#pragma once

#include "fused_attention.hpp"

namespace ouro::cuda_kernels {

/// What the gradient knows besides the operands, and where it goes; an unwanted destination has no data.
template <class S>
struct fused_slopes {
  head_rows<S const> y;  // whoever makes the dots needs it
  stored_rows<void const> dy;
  float const* lse;
  float* dots;
  mask_words kept;  // where a kernel leaves the mask for the next
  stored_rows<void> dq, dk, dv;
  bool dq_adds, dk_adds, dv_adds;
};

/// 16 rows of a gradient, from `row` on and from `column` of their head on, times a factor.
template <int Columns, class S>
__device__ void store_gradient(fused_problem<S> const& p, fused_place const& at, stored_rows<void> const& to,
                               bool accumulate, int row, int rows, int column, tile_sums const (&sums)[Columns / 8],
                               float factor) {
  with_stored<float>(to, [&](auto const& d) {
    store_rows<Columns>(at.rows(d, p.width) + row * d.row + column, d.row, rows - row,
                        static_cast<int>(p.width) - column, sums, factor, factor, p.aligned, accumulate);
  });
}
/// Rows of dy from `row` on to a tile.
template <int Width, class S>
__device__ void load_slopes(bf16_pair* to, fused_problem<S> const& p, fused_slopes<S> const& g, fused_place const& at,
                            int row, int rows) {
  with_stored<float>(g.dy, [&](auto const& dy) {
    load_tile<Width>(to, at.rows(dy, p.width) + row * dy.row, dy.row, rows, static_cast<int>(p.width), p.aligned);
  });
}

/// A score and the slope of its weight become the weight after the dropout and, but for the scale, the slope of the score.
__device__ inline void weigh(float& score, float& slope, bool seen, float steepness, float lse, float dot, float keep) {
  float const weight = seen ? power_of_two(score * steepness - lse) : 0.0F;
  slope = weight * (slope * keep - dot);
  score = weight * keep;
}

/// The sums of warps that have the same rows, added in their order to those of the first; `room` is the block's.
template <int N>
__device__ void join_warps(tile_sums (&sums)[N], tile_sums* room, int groups) {
  shared_rows<N> const rows(room, groups);
  rows.leave(sums);
  if (rows.split > 0) return;
  for (int s = 1; s < rows.splits; ++s) {
    OURO_UNROLL
    for (int i = 0; i < 4 * N; ++i) sums[i / 4].at[i % 4] += rows.left(s, i / 4).at[i % 4];
  }
}

/// What these functions are given, for a kernel: the slopes, and whether all rows are aligned.
template <class S>
fused_slopes<S> slopes_of(fused_problem<S>& p, destination const& dq, destination const& dk, destination const& dv,
                          const_view const& y, float const* lse, const_view const& dy) {
  p.aligned = p.aligned && rows_are_aligned(y) && rows_are_aligned(dy) && rows_are_aligned(dq) &&
              rows_are_aligned(dk) && rows_are_aligned(dv);
  return {rows_of<S>(y),      stored_rows_of(dy), lse,           nullptr,       {},           stored_rows_of(dq),
          stored_rows_of(dk), stored_rows_of(dv), dq.accumulate, dk.accumulate, dv.accumulate};
}

template <int N>
__device__ float dot_of(pack<float, N> const& a, pack<float, N> const& b) {
  float sum = 0;
  OURO_UNROLL
  for (int i = 0; i < N; ++i) sum += a.values[i] * b.values[i];
  return sum;
}

/// What a thread knows of its two queries.
struct query_pair {
  int count[2];
  float lse[2];  // as a power of two; zero for who sees nothing
  float dot[2];

  /// All but the dots.
  template <class S>
  __device__ query_pair(fused_problem<S> const& p, float const* lse_of_queries, int query) {
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      int const i = query + fragment_line() + 8 * h;
      count[h] = p.count(i);
      lse[h] = count[h] > 0 ? lse_of_queries[i] * log2_of_e : 0.0F;
    }
  }
  /// The dots of the warp's queries, the first of which is given.
  __device__ void fetch_dots(float const* dots) {
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) dot[h] = count[h] > 0 ? dots[fragment_line() + 8 * h] : 0.0F;
  }
  __device__ void leave_dots(float* dots) const {
    OURO_UNROLL
    for (int h = 0; h < 2; ++h)
      if (count[h] > 0 && lane_number() % 4 == 0) dots[fragment_line() + 8 * h] = dot[h];
  }
  /// dot = y · dy of the warp's queries, the first of which is given, and of heads of 64 at multiples of 16 bytes: the four lanes
  /// that have a row have 16 columns each.
  template <class S>
  __device__ void make_dots(fused_problem<S> const& p, fused_slopes<S> const& g, fused_place const& at, int query) {
    with_stored<float>(g.dy, [&](auto const& dy) {
      make_dots(at.rows(g.y, p.width) + query * g.y.row, g.y.row, at.rows(dy, p.width) + query * dy.row, dy.row);
    });
  }

 private:
  template <class S, class G>
  __device__ void make_dots(S const* y, index y_step, G const* dy, index dy_step) {
    elements<S, void const> const values(y);
    elements<G, void const> const slopes(dy);
    typename elements<S, void const>::template raw<8> a[2][2];
    typename elements<G, void const>::template raw<8> b[2][2];
    index const column = lane_number() % 4 * 16;
    OURO_UNROLL
    for (int n = 0; n < 4; ++n) {
      if (count[n / 2] == 0) continue;
      index const row = fragment_line() + n / 2 * 8;
      a[n / 2][n % 2] = values.template load_raw<8>(row * y_step + column + n % 2 * 8);
      b[n / 2][n % 2] = slopes.template load_raw<8>(row * dy_step + column + n % 2 * 8);
    }
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      float sum = 0;
      OURO_UNROLL
      for (int i = 0; i < 2; ++i) sum += dot_of(values.template reals<8>(a[h][i]), slopes.template reals<8>(b[h][i]));
      dot[h] = lanes_sum<4>(sum);
    }
  }
};

/// What a block knows of the queries of a tile.
struct query_tile {
  float lse[tile_rows];  // as powers of two
  float dot[tile_rows];
  int count[tile_rows];

  /// How many keys any of the m-th 16 queries sees, where there are `rows` in all: the last sees the most.
  [[nodiscard]] __device__ int sees(int m, int rows) const { return count[smaller(warp_rows * (m + 1), rows) - 1]; }

  /// dot = y · dy of the first `rows`; the lanes that have a row are neighbours.
  template <int Width, class S, class G>
  __device__ void make_dots(S const* y, index y_step, G const* dy, index dy_step, int rows, int width, bool aligned) {
    constexpr int across = Width / 8;
    constexpr int at_once = 4;
    elements<S, void const> const values(y);
    elements<G, void const> const slopes(dy);
    int const stride = static_cast<int>(blockDim.x) / across;
    int const column = static_cast<int>(threadIdx.x) % across * 8;
    int const here = column < width ? rows : 0;
    for (int first = static_cast<int>(threadIdx.x) / across; first < tile_rows; first += at_once * stride) {
      float sum[at_once] = {};
      if (aligned) {  // nobody looks at what is loaded before all of it has been asked for
        typename elements<S, void const>::template raw<8> a[at_once];
        typename elements<G, void const>::template raw<8> b[at_once];
        OURO_UNROLL
        for (int i = 0; i < at_once; ++i) {
          index const row = first + i * stride;
          if (row >= here) continue;
          a[i] = values.template load_raw<8>(row * y_step + column);
          b[i] = slopes.template load_raw<8>(row * dy_step + column);
        }
        OURO_UNROLL
        for (int i = 0; i < at_once; ++i)
          sum[i] = dot_of(values.template reals<8>(a[i]), slopes.template reals<8>(b[i]));
      } else {
        for (int i = 0; i < at_once; ++i) {
          index const row = first + i * stride;
          for (int c = column; row < here && c < column + 8; ++c)
            sum[i] += static_cast<float>(y[row * y_step + c]) * static_cast<float>(dy[row * dy_step + c]);
        }
      }
      OURO_UNROLL
      for (int i = 0; i < at_once; ++i) {
        float const all = lanes_sum<across>(sum[i]);
        if (column == 0 && first + i * stride < tile_rows) dot[first + i * stride] = all;
      }
    }
  }
};

/// What the dropout keeps of a tile of queries and the keys of a block: a word for each query and 32 keys.
struct kept_tile {
  std::uint32_t* words;  // (groups, 64)
  int first;             // group
  int groups;

  /// Drawn, for the queries from number `query` on, by `threads` of which this is number `thread`.
  template <class S>
  __device__ void draw(fused_problem<S> const& p, int flat, int query, int thread, int threads) const {
    if (p.kept.all()) return;
    for (int n = thread; n < groups * tile_rows; n += threads)
      words[n] = p.keeps(flat, query + n % tile_rows, first + n / tile_rows);
  }
  /// Copied by the device on its own, from where a kernel before has left it.
  __device__ void fetch(mask_words const& left, int flat, int query, int thread) const {
    constexpr int pieces = tile_rows / 4;
    if (thread >= groups * pieces) return;
    int const group = thread / pieces;
    int const row = thread % pieces * 4;
    load_later(words + group * tile_rows + row, left.of(flat, first + group, query + row), true);
  }
};

/// What is to be known of the queries from number `query` on, by `threads`, at least as many as a tile has rows, of which this is
/// number `thread`: the device's memory is asked before the mask is drawn, if it is, and waited for after. Dots are fetched if
/// they are made already.
template <bool MakesDots, class S>
__device__ void know_queries(query_tile& queries, kept_tile const& mask, fused_problem<S> const& p,
                             fused_slopes<S> const& g, int flat, int query, int thread, int threads) {
  int const row = thread % tile_rows;
  int const count = p.count(query + row);
  index const at = flat * p.queries + query + row;
  float lse = 0;
  float dot = 0;
  if (count > 0) {
    lse = g.lse[at];
    if constexpr (!MakesDots) dot = g.dots[at];
  }
  if (g.kept.words == nullptr) mask.draw(p, flat, query, thread, threads);
  if (thread >= tile_rows) return;
  queries.count[row] = count;
  queries.lse[row] = lse * log2_of_e;
  if constexpr (!MakesDots) queries.dot[row] = dot;
}

/// What it keeps of 16 keys and a tile of queries: element e of the n-th product of the m-th 16 queries.
struct kept_by_columns {
  std::uint32_t bits = everybody;  // a byte for 16 queries

  template <class S>
  __device__ kept_by_columns(fused_problem<S> const& p, kept_tile const& mask, int key) {
    if (p.kept.all()) return;
    int const octet = key / 8 + lane_number() / 16;
    std::uint32_t const* const words = mask.words + (octet / 4 - mask.first) * tile_rows + lane_number() % 16;
    std::uint32_t mine = 0;  // eight keys of a query of each m
    OURO_UNROLL
    for (int m = 0; m < 4; ++m) mine |= (words[warp_rows * m] >> (octet % 4 * 8) & 0xFFU) << (8 * m);
    bits = 0;
    OURO_UNROLL
    for (int s = 0; s < 8; ++s) {
      int const lane = s / 4 * 16 + s / 2 % 2 * 8 + fragment_column() + s % 2;
      bits |= (__shfl_sync(everybody, mine, lane) >> fragment_line() & 0x01010101U) << s;
    }
  }
  [[nodiscard]] __device__ bool keeps(int m, int n, int e) const {
    return (bits >> (8 * m) >> (e / 2 * 4 + 2 * n + e % 2) & 1U) != 0;
  }
};

}  // namespace ouro::cuda_kernels
