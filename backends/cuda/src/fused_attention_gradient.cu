// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The gradient of attention in bf16 on the tensor cores. The scores are computed again; with w the weights, m the mask and
// its factor, and dot = y · dy of a query,
//   dv = (m w)ᵀ dy,   ds = scale · w (m dy vᵀ − dot),   dq = ds k,   dk = dsᵀ q.
// A warp has 16 keys and goes over the queries, with its products transposed so that they are left factors as they are. Where
// a block has all keys it makes dq as well; else another kernel does, whose warps have 16 queries and go over the keys. Each
// sum has one owner.
#include "fused_attention.hpp"

namespace ouro::cuda_kernels {
namespace {

/// What the gradient knows besides the operands, and where it goes; an unwanted destination has no data.
template <class S>
struct fused_slopes {
  head_rows<S const> y;  // where the kernel makes the dots
  head_rows<S const> dy;
  float const* lse;
  float const* dots;
  head_rows<S> dq, dk, dv;
  bool dq_adds, dk_adds, dv_adds;
};

/// A score and the slope of its weight become the weight after the dropout and, but for the scale, the slope of the score.
__device__ inline void weigh(float& score, float& slope, bool seen, float steepness, float lse, float dot, float keep) {
  float const weight = seen ? power_of_two(score * steepness - lse) : 0.0F;
  slope = weight * (slope * keep - dot);
  score = weight * keep;
}

// Over the keys.

/// What a thread knows of its two queries.
struct query_pair {
  int count[2];
  float lse[2];  // as a power of two
  float dot[2];

  template <class S>
  __device__ query_pair(fused_problem<S> const& p, fused_slopes<S> const& g, int flat, int query) {
    OURO_UNROLL
    for (int h = 0; h < 2; ++h) {
      int const i = query + fragment_line() + 8 * h;
      count[h] = p.count(i);
      lse[h] = i < p.queries ? g.lse[flat * p.queries + i] * log2_of_e : 0.0F;
      dot[h] = i < p.queries ? g.dots[flat * p.queries + i] : 0.0F;
    }
  }
};

template <int Width, class S>
__global__ void __launch_bounds__(most_warps* warp_size, Width <= 64 ? 2 : 1)
    fused_dq_kernel(fused_problem<S> p, fused_slopes<S> g) {
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
  fragment dy[Width / 16];
  int const rows = smaller(queries - first, block_rows);
  load_left<Width>(q, k_tile, at.rows(p.q, p.width) + first * p.q.row, p.q.row, rows, query - first, width, p.aligned);
  load_left<Width>(dy, k_tile, at.rows(g.dy, p.width) + first * g.dy.row, g.dy.row, rows, query - first, width,
                   p.aligned);
  query_pair const own(p, g, at.flat, query);
  tile_sums dq[Width / 8];
  clear(dq);
  for (int j = 0; j < block_sees; j += tile_rows) {
    int const here = smaller(keys - j, tile_rows);
    __syncthreads();  // who is still reading the tiles
    load_tile<Width>(k_tile, k + j * p.k.row, p.k.row, here, width, p.aligned);
    load_tile<Width>(v_tile, v + j * p.v.row, p.v.row, here, width, p.aligned);
    __syncthreads();
    if (j >= warp_sees) continue;
    kept_by_rows mask(p, at.flat, query, j, warp_sees);
    for (int m = 0; j + warp_rows * m < warp_sees && m < 4; ++m) {
      tile_sums score[2];
      tile_sums slope[2];
      multiply_rows<Width>(score, q, k_tile + warp_rows * m * pitch);
      multiply_rows<Width>(slope, dy, v_tile + warp_rows * m * pitch);
      OURO_UNROLL
      for (int e = 0; e < 8; ++e) {
        int const h = e % 4 / 2;
        int const key = j + warp_rows * m + e / 4 * 8 + fragment_column() + e % 2;
        float const keep = mask.keeps(e / 4, e % 4) ? p.factor : 0.0F;
        weigh(score[e / 4].at[e % 4], slope[e / 4].at[e % 4], key < own.count[h], p.steepness(), own.lse[h], own.dot[h],
              keep);
      }
      mask.go_on();
      add_product<Width, pitch>(dq, rounded_left(slope), k_tile + warp_rows * m * pitch);
    }
  }
  store_rows<Width>(at.rows(g.dq, p.width) + query * g.dq.row, g.dq.row, queries - query, width, dq, p.scale, p.scale,
                    p.aligned, g.dq_adds);
}

// Over the queries.

/// Of 16 keys and a tile of queries: element e of the n-th product of the m-th 16 queries.
struct kept_by_columns {
  std::uint32_t bits = everybody;  // a byte for 16 queries

  /// Only m with m mod `every` = `which` are asked for, and queries that see `key`.
  template <class S>
  __device__ kept_by_columns(fused_problem<S> const& p, int flat, int query, int rows, int key, int which, int every) {
    if (p.threshold == 0) return;
    std::uint32_t mine = 0;  // a lane makes a block of each m
    for (int m = which; warp_rows * m < rows; m += every) {
      if (p.count(query + smaller(warp_rows * (m + 1), rows) - 1) <= key) continue;
      int const row = query + warp_rows * m + lane_number() % 16;
      mine |= kept_keys(p, flat, row, key / 8 + lane_number() / 16) << (8 * m);
    }
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

/// What a block knows of the queries of a tile.
struct query_tile {
  float lse[tile_rows];  // as powers of two
  float dot[tile_rows];
  int count[tile_rows];

  /// All but the dots, and these too where they are made already.
  template <class S>
  __device__ void load(fused_problem<S> const& p, fused_slopes<S> const& g, int flat, int query) {
    for (int r = static_cast<int>(threadIdx.x); r < tile_rows; r += static_cast<int>(blockDim.x)) {
      int const i = query + r;
      count[r] = p.count(i);
      lse[r] = i < p.queries ? g.lse[flat * p.queries + i] * log2_of_e : 0.0F;
      if (g.dots != nullptr) dot[r] = i < p.queries ? g.dots[flat * p.queries + i] : 0.0F;
    }
  }

  /// dot = y · dy of the first `rows`; the lanes that have a row are neighbours.
  template <int Width, class S>
  __device__ void make_dots(S const* y, index y_step, S const* dy, index dy_step, int rows, int width, bool aligned) {
    constexpr int across = Width / 4;
    constexpr int at_once = 4;
    int const stride = static_cast<int>(blockDim.x) / across;
    int const column = static_cast<int>(threadIdx.x) % across * 4;
    for (int first = static_cast<int>(threadIdx.x) / across; first < tile_rows; first += at_once * stride) {
      float sum[at_once] = {};
      OURO_UNROLL
      for (int i = 0; i < at_once; ++i) {
        int const row = first + i * stride;
        if (row >= rows || column >= width) continue;
        auto const a = load_neighbours<S, 4>(y + row * y_step + column, aligned);
        auto const b = load_neighbours<S, 4>(dy + row * dy_step + column, aligned);
        for (int c = 0; c < 4; ++c) sum[i] += a.at[c] * b.at[c];
      }
      OURO_UNROLL
      for (int i = 0; i < at_once; ++i) {
        float const all = run_sum<across>(sum[i]);
        if (column == 0 && first + i * stride < tile_rows) dot[first + i * stride] = all;
      }
    }
  }
};

inline constexpr int slope_pitch = tile_pitch<tile_rows>;

/// The shared memory of the kernel over the queries.
template <int Width>
struct key_room {
  query_tile* queries;
  bf16_pair* q;
  bf16_pair* dy;
  bf16_pair* k;       // the block's keys, and
  bf16_pair* slopes;  // the slopes of a tile by keys, where it makes dq

  __device__ explicit key_room(int keys)
      : queries(shared_memory<query_tile>()),
        q(reinterpret_cast<bf16_pair*>(queries + 1)),
        dy(q + tile_rows * tile_pitch<Width>),
        k(dy + tile_rows * tile_pitch<Width>),
        slopes(k + keys * tile_pitch<Width>) {}
  static std::size_t bytes(int keys, bool makes_dq) {
    int const pairs = 2 * tile_rows * tile_pitch<Width> + (makes_dq ? keys * (tile_pitch<Width> + slope_pitch) : 0);
    return static_cast<std::size_t>(pairs) * sizeof(bf16_pair) + sizeof(query_tile);
  }
};

/// dq of a tile of queries: 16 of them and 32 columns at a time for each warp.
template <int Width, class S>
__device__ void make_dq(fused_problem<S> const& p, fused_slopes<S> const& g, fused_place const& at,
                        key_room<Width> const& room, int query, int rows) {
  constexpr int parts = Width / 32;
  for (int u = fused_warp(); u < (rows + warp_rows - 1) / warp_rows * parts; u += fused_warps()) {
    int const row = u / parts * warp_rows;
    int const column = u % parts * 32;
    int const sees = p.count(query + smaller(row + warp_rows, rows) - 1);
    tile_sums sums[4];
    clear(sums);
    for (int j = 0; j < sees; j += warp_rows) {
      fragment const left =
          load_squares_transposed(room.slopes + j * slope_pitch + row / 2 + squares_across(slope_pitch));
      add_product<32, tile_pitch<Width>>(sums, left, room.k + j * tile_pitch<Width> + column / 2);
    }
    store_rows<32>(at.rows(g.dq, p.width) + (query + row) * g.dq.row + column, g.dq.row, rows - row,
                   static_cast<int>(p.width) - column, sums, p.scale, p.scale, p.aligned, g.dq_adds);
  }
}

/// The sums of warps that have the same keys, added in their order to those of the first; `room` is the block's.
template <int N>
__device__ void join_warps(tile_sums (&sums)[N], tile_sums* room, int groups) {
  int const split = fused_warp() / groups;
  int const splits = fused_warps() / groups;
  __syncthreads();
  auto place = [&](int s, int n) {
    return room + (((s - 1) * groups + fused_warp() % groups) * N + n) * warp_size + lane_number();
  };
  OURO_UNROLL
  for (int n = 0; n < N; ++n)
    if (split > 0) *place(split, n) = sums[n];
  __syncthreads();
  if (split > 0) return;
  for (int s = 1; s < splits; ++s) {
    OURO_UNROLL
    for (int i = 0; i < 4 * N; ++i) sums[i / 4].at[i % 4] += place(s, i / 4)->at[i % 4];
  }
}

/// A block's warps have `groups` times 16 keys; those that share theirs take turns at the queries.
/// (More threads than a block has are named so that the compiler keeps to registers for two blocks of six warps.)
template <int Width, bool MakesDq, class S>
__global__ void __launch_bounds__(Width <= 64 ? 384 : most_warps * warp_size, 1)
    fused_dkv_kernel(fused_problem<S> p, fused_slopes<S> g, int groups) {
  constexpr int pitch = tile_pitch<Width>;
  fused_place const at(p);
  int const queries = static_cast<int>(p.queries);
  int const keys = static_cast<int>(p.keys);
  int const width = static_cast<int>(p.width);
  int const first = at.tile * groups * warp_rows;
  int const group = fused_warp() % groups;
  int const split = fused_warp() / groups;
  int const splits = fused_warps() / groups;
  int const key = first + group * warp_rows;
  key_room<Width> const room(groups * warp_rows);
  S const* const q = at.rows(p.q, p.width);
  S const* const dy = at.rows(g.dy, p.width);

  fragment k[Width / 16];
  fragment v[Width / 16];
  int const here = smaller(keys - first, groups * warp_rows);
  load_left<Width>(v, room.q, at.rows(p.v, p.width) + first * p.v.row, p.v.row, here, key - first, width, p.aligned);
  load_left<Width>(k, MakesDq ? room.k : room.q, at.rows(p.k, p.width) + first * p.k.row, p.k.row, here, key - first,
                   width, p.aligned);
  tile_sums dk[Width / 8];
  tile_sums dv[Width / 8];
  clear(dk);
  clear(dv);
  for (int i = 0; i < queries; i += tile_rows) {
    int const rows = smaller(queries - i, tile_rows);
    if (p.count(i + rows - 1) <= first) continue;  // none of them sees these keys
    __syncthreads();                               // who is still reading the tiles
    load_tile<Width>(room.q, q + i * p.q.row, p.q.row, rows, width, p.aligned);
    load_tile<Width>(room.dy, dy + i * g.dy.row, g.dy.row, rows, width, p.aligned);
    room.queries->load(p, g, at.flat, i);
    if constexpr (MakesDq)
      room.queries->template make_dots<Width>(at.rows(g.y, p.width) + i * g.y.row, g.y.row, dy + i * g.dy.row, g.dy.row,
                                              rows, width, p.aligned);
    __syncthreads();
    if constexpr (MakesDq)
      load_left<Width>(k, room.k + group * warp_rows * pitch);  // registers for the rest of the time
    kept_by_columns const mask(p, at.flat, i, rows, key, split, splits);
    for (int m = split; warp_rows * m < rows; m += splits) {
      int const row = warp_rows * m;
      if (p.count(i + smaller(row + warp_rows, rows) - 1) <= key) continue;
      tile_sums weight[2];
      tile_sums slope[2];
      multiply_rows<Width>(weight, k, room.q + row * pitch);
      multiply_rows<Width>(slope, v, room.dy + row * pitch);
      OURO_UNROLL
      for (int e = 0; e < 8; ++e) {
        int const r = row + e / 4 * 8 + fragment_column() + e % 2;
        bool const seen = key + fragment_line() + e % 4 / 2 * 8 < room.queries->count[r];
        float const keep = mask.keeps(m, e / 4, e % 4) ? p.factor : 0.0F;
        weigh(weight[e / 4].at[e % 4], slope[e / 4].at[e % 4], seen, p.steepness(), room.queries->lse[r],
              room.queries->dot[r], keep);
      }
      fragment const slopes = rounded_left(slope);
      if constexpr (MakesDq) {
        OURO_UNROLL
        for (int s = 0; s < 4; ++s)
          room.slopes[(group * warp_rows + fragment_line() + s % 2 * 8) * slope_pitch +
                      (row + s / 2 * 8 + fragment_column()) / 2] = slopes.square[s];
      }
      add_product<Width, pitch>(dv, rounded_left(weight), room.dy + row * pitch);
      add_product<Width, pitch>(dk, slopes, room.q + row * pitch);
    }
    if constexpr (MakesDq) {
      __syncthreads();
      make_dq(p, g, at, room, i, rows);
    }
  }
  if (splits > 1) {
    auto* const sums = shared_memory<tile_sums>();
    join_warps(dk, sums, groups);
    join_warps(dv, sums, groups);
    if (split > 0) return;
  }
  if (g.dk.data != nullptr)
    store_rows<Width>(at.rows(g.dk, p.width) + key * g.dk.row, g.dk.row, keys - key, width, dk, p.scale, p.scale,
                      p.aligned, g.dk_adds);
  if (g.dv.data != nullptr)
    store_rows<Width>(at.rows(g.dv, p.width) + key * g.dv.row, g.dv.row, keys - key, width, dv, 1.0F, 1.0F, p.aligned,
                      g.dv_adds);
}

using stored = float;

fused_slopes<stored> slopes_of(destination const& dq, destination const& dk, destination const& dv, float const* lse,
                               const_view const& dy) {
  return {{},
          rows_of<stored>(dy),
          lse,
          nullptr,
          rows_of<stored>(dq),
          rows_of<stored>(dk),
          rows_of<stored>(dv),
          dq.accumulate,
          dk.accumulate,
          dv.accumulate};
}
template <class S>
bool slopes_are_aligned(fused_slopes<S> const& g) {
  return rows_are_aligned(g.y) && rows_are_aligned(g.dy) && rows_are_aligned(g.dq) && rows_are_aligned(g.dk) &&
         rows_are_aligned(g.dv);
}

/// Blocks for all keys: a warp for 16, and more where there are few keys.
template <int Width, bool MakesDq>
void launch_dkv(char const* name, fused_problem<stored> const& p, fused_slopes<stored> const& g,
                row_split const& split) {
  int const warps = split.warps < 3 ? 4 : split.warps;
  launch(name, fused_dkv_kernel<Width, MakesDq, stored>, p.flats() * split.tiles, warps * warp_size,
         key_room<Width>::bytes(split.warps * warp_rows, MakesDq), p, g, split.warps);
}

}  // namespace

bool fused_gradient_is_one_pass(destination const& dq, destination const& dk, destination const& dv,
                                const_view const& k) {
  return dq.wanted() && (dk.wanted() || dv.wanted()) && k.dims[1] <= most_warps * warp_rows;
}

void fused_attention_gradient_in_one_pass(destination const& dq, destination const& dk, destination const& dv,
                                          const_view const& q, const_view const& k, const_view const& v,
                                          const_view const& y, float const* lse, const_view const& dy,
                                          attention_rule const& rule) {
  fused_problem<stored> p(q, k, v, rule);
  auto g = slopes_of(dq, dk, dv, lse, dy);
  g.y = rows_of<stored>(y);
  p.aligned = p.aligned && slopes_are_aligned(g);
  with_fused_width(p.width, [&]<int Width>(std::integral_constant<int, Width>) {
    launch_dkv<Width, true>("attention_gradient", p, g, row_split::whole(p.keys));
  });
}

void fused_attention_gradient(destination const& dq, destination const& dk, destination const& dv, const_view const& q,
                              const_view const& k, const_view const& v, float const* lse, float const* dots,
                              const_view const& dy, attention_rule const& rule) {
  fused_problem<stored> p(q, k, v, rule);
  auto g = slopes_of(dq, dk, dv, lse, dy);
  g.dots = dots;
  p.aligned = p.aligned && slopes_are_aligned(g);
  with_fused_width(p.width, [&]<int Width>(std::integral_constant<int, Width>) {
    if (dq.wanted()) {
      row_split const split(p.queries, p.flats());
      launch("attention_gradient of q", fused_dq_kernel<Width, stored>, p.flats() * split.tiles,
             split.warps * warp_size, 2 * tile_rows * tile_pitch<Width> * sizeof(bf16_pair), p, g);
    }
    if (dk.wanted() || dv.wanted())
      launch_dkv<Width, false>("attention_gradient of k and v", p, g, row_split(p.keys, p.flats()));
  });
}

}  // namespace ouro::cuda_kernels
