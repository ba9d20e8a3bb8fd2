// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The gradient of attention in bf16 on the tensor cores. The scores are computed again; with w the weights, m the mask and
// its factor, and dot = y · dy of a query,
//   dv = (m w)ᵀ dy,   ds = scale · w (m dy vᵀ − dot),   dq = ds k,   dk = dsᵀ q.
// A warp has 16 keys and goes over the queries, with its products transposed so that they are left factors as they are. Where
// a block has all keys it makes dq as well; else another kernel does, whose warps have 16 queries and go over the keys. Each
// sum has one owner.
#include "fused_slopes.hpp"
#include "hopper_attention.hpp"

namespace ouro::cuda_kernels {
namespace {

// Over the keys.

/// A block's warps have `groups` times 16 queries; those that share theirs take turns at the keys.
template <int Width, class S>
__global__ void __launch_bounds__(most_warps* warp_size, Width <= 64 ? 2 : 1)
    fused_dq_kernel(fused_problem<S> p, fused_slopes<S> g, int groups) {
  constexpr int pitch = tile_pitch<Width>;
  key_tiles<Width> const tiles;
  fused_place const at(p);
  int const queries = static_cast<int>(p.queries);
  auto const [first, rows, query, block_sees, warp_sees] = query_rows(p, at, groups, fused_warp() % groups);
  int const split = fused_warp() / groups;
  int const splits = fused_warps() / groups;

  // The block's rows pass through the room of the tiles.
  load_tile<Width>(tiles.k(0), at.rows(p.q, p.width) + first * p.q.row, p.q.row, rows, static_cast<int>(p.width),
                   p.aligned);
  load_slopes<Width>(tiles.k(1), p, g, at, first, rows);
  finish_loads();
  __syncthreads();
  fragment q[Width / 16];
  fragment dy[Width / 16];
  load_left<Width>(q, tiles.k(0) + (query - first) * pitch);
  load_left<Width>(dy, tiles.k(1) + (query - first) * pitch);
  __syncthreads();
  load_keys(tiles, p, at, 0);
  index const own_place = at.flat * p.queries;
  query_pair own(p, g.lse + own_place, query);
  own.fetch_dots(g.dots + own_place + query);
  tile_sums dq[Width / 8];
  clear(dq);
  for (int j = 0; j < block_sees; j += tile_rows) {
    finish_loads();
    __syncthreads();  // this tile is there, and nobody reads the one before
    if (j + tile_rows < block_sees) load_keys(tiles, p, at, j + tile_rows);
    if (j >= warp_sees) continue;
    bf16_pair const* const k_tile = tiles.k(j / tile_rows);
    bf16_pair const* const v_tile = tiles.v(j / tile_rows);
    kept_by_rows const all(p, at.flat, query, j);
    for (int m = split; j + warp_rows * m < warp_sees && m < 4; m += splits) {
      kept_by_rows const mask = all.from(m);
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
      add_product<Width, pitch>(dq, rounded_left(slope), k_tile + warp_rows * m * pitch);
    }
  }
  if (splits > 1) join_warps(dq, shared_memory<tile_sums>(), groups);
  if (split == 0) store_gradient<Width>(p, at, g.dq, g.dq_adds, query, queries, 0, dq, p.scale);
}

// Over the queries.

inline constexpr int slope_pitch = tile_pitch<tile_rows>;

/// Tiles of queries that a block has room for: one that makes dq and has all queries at once needs no second.
constexpr int tiles_at_once(index queries, bool makes_dq) { return makes_dq && queries <= tile_rows ? 1 : 2; }

/// The shared memory of the kernel over the queries: two tiles of these, or one where there are no more; and where it makes
/// dq the block's keys and, by keys, the slopes of a tile, for which the values make room.
template <int Width>
struct key_room {
  int groups;  // of keys that share words of the mask
  query_tile* queries;
  std::uint32_t* kept;
  bf16_pair* q;
  bf16_pair* dy;
  bf16_pair* k;
  bf16_pair* slopes;

  __device__ key_room(int keys, int tiles)
      : groups(groups_of(keys)),
        queries(shared_memory<query_tile>()),
        kept(reinterpret_cast<std::uint32_t*>(queries + tiles)),
        q(kept + tiles * groups * tile_rows),
        dy(q + tiles * tile_room<Width>),
        k(dy + tiles * tile_room<Width>),
        slopes(k + keys * tile_pitch<Width>) {}
  /// Of a multiple of 16 keys, of which the first is a multiple of their number.
  static __host__ __device__ int groups_of(int keys) { return (keys + 16) / 32; }
  static std::size_t bytes(int keys, int tiles, bool makes_dq) {
    int const pitch = tile_pitch<Width>;
    int const own = pitch + (pitch > slope_pitch ? pitch : slope_pitch);
    int const pairs = 2 * tiles * tile_room<Width> + (makes_dq ? keys * own : 0);
    std::size_t const known =
        sizeof(query_tile) + static_cast<std::size_t>(groups_of(keys) * tile_rows) * sizeof(std::uint32_t);
    return static_cast<std::size_t>(pairs) * sizeof(bf16_pair) + static_cast<std::size_t>(tiles) * known;
  }
  /// The mask of the tile of queries from number `query` on, for the keys from `key` on.
  [[nodiscard]] __device__ kept_tile mask(int query, int key) const {
    return {kept + query / tile_rows % 2 * groups * tile_rows, key / 32, groups};
  }

  /// What there is to know of the queries from number `query` on, as the tiles of that number, and of the keys from `key` on.
  template <bool MakesDots, class S>
  __device__ void load_queries(fused_problem<S> const& p, fused_slopes<S> const& g, fused_place const& at, int query,
                               int key) const {
    int const rows = smaller(static_cast<int>(p.queries) - query, tile_rows);
    int const width = static_cast<int>(p.width);
    int const tile = query / tile_rows % 2;
    load_tile<Width>(q + tile * tile_room<Width>, at.rows(p.q, p.width) + query * p.q.row, p.q.row, rows, width,
                     p.aligned);
    load_slopes<Width>(dy + tile * tile_room<Width>, p, g, at, query, rows);
    know_queries<MakesDots>(queries[tile], mask(query, key), p, g, at.flat, query, static_cast<int>(threadIdx.x),
                            static_cast<int>(blockDim.x));
    if constexpr (MakesDots)
      with_stored<float>(g.dy, [&](auto const& slopes_of_y) {
        queries[tile].template make_dots<Width>(at.rows(g.y, p.width) + query * g.y.row, g.y.row,
                                                at.rows(slopes_of_y, p.width) + query * slopes_of_y.row,
                                                slopes_of_y.row, rows, width, p.aligned);
      });
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
    store_gradient<32>(p, at, g.dq, g.dq_adds, query + row, query + rows, column, sums, p.scale);
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
  key_room<Width> const room(groups * warp_rows, tiles_at_once(p.queries, MakesDq));

  bf16_pair* const k_room = MakesDq ? room.k : room.dy;  // before the first tile comes there
  bf16_pair* const v_room = MakesDq ? room.slopes : room.q;
  int const here = smaller(keys - first, groups * warp_rows);
  load_tile<Width>(k_room, at.rows(p.k, p.width) + first * p.k.row, p.k.row, here, width, p.aligned);
  load_tile<Width>(v_room, at.rows(p.v, p.width) + first * p.v.row, p.v.row, here, width, p.aligned);
  int seeing = 0;  // the first tile of queries of which any sees these keys
  while (seeing < queries && p.count(smaller(seeing + tile_rows, queries) - 1) <= first) seeing += tile_rows;
  if constexpr (MakesDq) room.template load_queries<true>(p, g, at, seeing, first);
  finish_loads();
  __syncthreads();
  fragment k[Width / 16];
  fragment v[Width / 16];
  load_left<Width>(k, k_room + (key - first) * pitch);
  load_left<Width>(v, v_room + (key - first) * pitch);
  if constexpr (!MakesDq) {
    __syncthreads();
    if (seeing < queries) room.template load_queries<false>(p, g, at, seeing, first);
  }
  tile_sums dk[Width / 8];
  tile_sums dv[Width / 8];
  clear(dk);
  clear(dv);
  for (int i = seeing; i < queries; i += tile_rows) {
    int const rows = smaller(queries - i, tile_rows);
    finish_loads();
    __syncthreads();  // this tile is there, and nobody reads the one before
    if (i + tile_rows < queries) room.template load_queries<MakesDq>(p, g, at, i + tile_rows, first);
    query_tile const& known = room.queries[i / tile_rows % 2];
    bf16_pair const* const q_tile = room.q + i / tile_rows % 2 * tile_room<Width>;
    bf16_pair const* const dy_tile = room.dy + i / tile_rows % 2 * tile_room<Width>;
    if constexpr (MakesDq)
      load_left<Width>(k, room.k + group * warp_rows * pitch);  // registers for the rest of the time
    kept_by_columns const mask(p, room.mask(i, first), key);
    for (int m = split; warp_rows * m < rows; m += splits) {
      int const row = warp_rows * m;
      if (known.sees(m, rows) <= key) continue;
      tile_sums weight[2];
      tile_sums slope[2];
      multiply_rows<Width>(weight, k, q_tile + row * pitch);
      multiply_rows<Width>(slope, v, dy_tile + row * pitch);
      OURO_UNROLL
      for (int e = 0; e < 8; ++e) {
        int const r = row + e / 4 * 8 + fragment_column() + e % 2;
        bool const seen = key + fragment_line() + e % 4 / 2 * 8 < known.count[r];
        float const keep = mask.keeps(m, e / 4, e % 4) ? p.factor : 0.0F;
        weigh(weight[e / 4].at[e % 4], slope[e / 4].at[e % 4], seen, p.steepness(), known.lse[r], known.dot[r], keep);
      }
      fragment const slopes = rounded_left(slope);
      if constexpr (MakesDq) {
        OURO_UNROLL
        for (int s = 0; s < 4; ++s)
          room.slopes[(group * warp_rows + fragment_line() + s % 2 * 8) * slope_pitch +
                      (row + s / 2 * 8 + fragment_column()) / 2] = slopes.square[s];
      }
      add_product<Width, pitch>(dv, rounded_left(weight), dy_tile + row * pitch);
      add_product<Width, pitch>(dk, slopes, q_tile + row * pitch);
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
  if (g.dk.data != nullptr) store_gradient<Width>(p, at, g.dk, g.dk_adds, key, keys, 0, dk, p.scale);
  if (g.dv.data != nullptr) store_gradient<Width>(p, at, g.dv, g.dv_adds, key, keys, 0, dv, 1.0F);
}

/// The warps of a block: one for 16 rows, and more where these would be few.
int warps_of(row_split const& split) { return split.warps < 3 ? 4 : split.warps; }

template <int Width>
std::size_t room_of(row_split const& split, index queries, bool makes_dq) {
  return key_room<Width>::bytes(split.warps * warp_rows, tiles_at_once(queries, makes_dq), makes_dq);
}

template <int Width, bool MakesDq, class S>
void launch_dkv(char const* name, fused_problem<S> const& p, fused_slopes<S> const& g, row_split const& split) {
  launch(name, fused_dkv_kernel<Width, MakesDq, S>, p.flats() * split.tiles, warps_of(split) * warp_size,
         room_of<Width>(split, p.queries, MakesDq), p, g, split.warps);
}

}  // namespace

bool fused_gradient_is_one_pass(destination const& dq, destination const& dk, destination const& dv,
                                const_view const& q, const_view const& k, attention_rule const& rule) {
  if (!dq.wanted() || !(dk.wanted() || dv.wanted()) || k.dims[1] > most_warps * warp_rows) return false;
  bool fits = false;
  with_fused_width(q.dims[2] / rule.heads, [&]<int Width>(std::integral_constant<int, Width>) {
    fits = room_of<Width>(row_split::whole(k.dims[1]), q.dims[1], true) <= shared_memory_limit();
  });
  return fits;
}

void fused_attention_gradient_in_one_pass(destination const& dq, destination const& dk, destination const& dv,
                                          const_view const& q, const_view const& k, const_view const& v,
                                          const_view const& y, float const* lse, const_view const& dy,
                                          attention_rule const& rule) {
  with_fused_storage(q.type, [&]<class S>(std::type_identity<S>) {
    fused_problem<S> p(q, k, v, rule);
    auto const g = slopes_of(p, dq, dk, dv, y, lse, dy);
    with_fused_width(p.width, [&]<int Width>(std::integral_constant<int, Width>) {
      launch_dkv<Width, true>("attention_gradient", p, g, row_split::whole(p.keys));
    });
  });
}

void fused_attention_gradient(destination const& dq, destination const& dk, destination const& dv, const_view const& q,
                              const_view const& k, const_view const& v, const_view const& y, float const* lse,
                              const_view const& dy, attention_rule const& rule) {
  with_fused_storage(q.type, [&]<class S>(std::type_identity<S>) {
    fused_problem<S> p(q, k, v, rule);
    auto g = slopes_of(p, dq, dk, dv, y, lse, dy);
    device_array<float> const dots(p.flats() * p.queries);
    g.dots = dots.data();
    bool hopper = false;
    if constexpr (std::is_same_v<S, bf16>) hopper = suits_hopper(p);
    if (!hopper || !dq.wanted()) attention_dots(dots.data(), y, dy, rule.heads);  // else the kernel for dq makes them
    if constexpr (std::is_same_v<S, bf16>) {
      if (hopper) return hopper_attention_gradient(p, g);
    }
    with_fused_width(p.width, [&]<int Width>(std::integral_constant<int, Width>) {
      if (dq.wanted()) {
        branch_scope<cuda> const branch;
        row_split const split(p.queries, p.flats(), most_warps, 2);
        launch("attention_gradient of q", fused_dq_kernel<Width, S>, p.flats() * split.tiles,
               warps_of(split) * warp_size, key_tiles<Width>::bytes(1), p, g, split.warps);
      }
      if (dk.wanted() || dv.wanted())
        launch_dkv<Width, false>("attention_gradient of k and v", p, g, row_split(p.keys, p.flats(), 4, 2));
      join_branch();
    });
  });
}

}  // namespace ouro::cuda_kernels
