// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The gradient of attention as in fused_attention_gradient.cu, 64 rows at a time: a kernel for dq, whose blocks have 64
// queries, and one for dk and dv, whose blocks have 64 keys, and which knows from the first the dots and what the dropout keeps.
// The groups of a block take turns at the other sequence.
#include <limits>
#include <optional>

#include "hopper_attention.hpp"

namespace ouro::cuda_kernels {
namespace {

__device__ inline int own_warp() { return fused_warp() % group_warps; }
/// The column of the thread's i-th score.
__device__ inline int column_of(int i) { return i / 4 * 8 + fragment_column() + i % 2; }
/// Scores that are not `seen` are less than all others.
template <class F>
__device__ void hide(square_sums& scores, F const& seen) {
  OURO_UNROLL
  for (int i = 0; i < 32; ++i)
    if (!seen(i)) sum_at(scores, i) = -std::numeric_limits<float>::infinity();
}

// Over the keys.

constexpr int most_groups_of_queries = 4;

__global__ void __launch_bounds__(most_groups_of_queries* group_size, 1)
    hopper_dq_kernel(fused_problem<bf16> p, fused_slopes<bf16> g) {
  group_tiles const tiles;
  fused_place const at(p);
  group_keys const keys(p, at);
  int const group = tiles.group;
  int const groups = group_count();
  auto const [first, block_rows, query, block_sees, warp_sees] = query_rows(p, at, group_warps, own_warp());

  if (group == 0) {
    square_rows(at.rows(p.q, p.width), p.q.row, static_cast<int>(p.queries)).copy_to(tiles.own(0), first);
    load_square_slopes(tiles.own(1), p, g, at, first);
  }
  if (group * tile_rows < block_sees) keys.load(tiles, group * tile_rows, 0);
  index const own_place = at.flat * p.queries;
  query_pair own(p, g.lse + own_place, query);
  own.make_dots(p, g, at, query);
  if (group == 0) own.leave_dots(g.dots + own_place + query);
  int const least = p.count(query);
  square_columns dq;
  clear(dq);
  int stage = 0;
  for (int j = group * tile_rows; j - group * tile_rows < block_sees; j += groups * tile_rows, ++stage) {
    finish_tiles();
    __syncthreads();  // these tiles are there, and nobody reads those before
    if (j >= block_sees) continue;
    square_sums score;
    square_sums slope;
    begin_product(score, tiles.own(0), tiles.other(stage, 0));
    begin_product(slope, tiles.own(1), tiles.other(stage, 1));
    if (int const next = j + groups * tile_rows; next < block_sees) keys.load(tiles, next, stage + 1);
    kept_by_rows const mask(p, at.flat, query, j, g.kept);
    finish_products(score, slope);
    if (j + tile_rows > least) hide(score, [&](int i) { return j + column_of(i) < own.count[i % 4 / 2]; });
    OURO_UNROLL
    for (int i = 0; i < 32; ++i) {
      int const h = i % 4 / 2;
      float const keep = mask.keeps(i / 4, i % 4) ? p.factor : 0.0F;
      weigh(sum_at(score, i), sum_at(slope, i), true, p.steepness(), own.lse[h], own.dot[h], keep);
    }
    fragment const slopes[4] = {rounded_left(slope[0]), rounded_left(slope[1]), rounded_left(slope[2]),
                                rounded_left(slope[3])};
    begin_addition(dq, slopes, tiles.other(stage, 0));
    finish_products(dq);
  }
  if (groups > 1) join_warps(dq, shared_memory<tile_sums>(), group_warps);
  if (group == 0) store_gradient<64>(p, at, g.dq, g.dq_adds, query, static_cast<int>(p.queries), 0, dq, p.scale);
}

// Over the queries.

constexpr int most_groups_of_keys = 3;

/// After the tiles, for each group: what there is to know of the queries of both its stages, and their masks.
struct query_room {
  query_tile queries[2];
  alignas(16) std::uint32_t kept[2][2 * tile_rows];
};
__device__ query_room& room_of_group(group_tiles const& tiles) {
  return reinterpret_cast<query_room*>(tiles.memory + (2 + 4 * group_count()) * square_tile::pairs)[tiles.group];
}

__global__ void __launch_bounds__(most_groups_of_keys* group_size, 1)
    hopper_dkv_kernel(fused_problem<bf16> p, fused_slopes<bf16> g) {
  group_tiles const tiles;
  fused_place const at(p);
  int const group = tiles.group;
  int const groups = group_count();
  int const queries = static_cast<int>(p.queries);
  int const keys = static_cast<int>(p.keys);
  int const first = at.tile * tile_rows;
  int const key = first + own_warp() * warp_rows;
  square_rows const asking(at.rows(p.q, p.width), p.q.row, queries);
  query_room& room = room_of_group(tiles);
  int const thread = static_cast<int>(threadIdx.x) % group_size;
  auto mask_of = [&](int stage) { return kept_tile{room.kept[stage % 2], first / 32, 2}; };
  auto load = [&](int query, int stage) {
    asking.copy_to(tiles.other(stage, 0), query);
    load_square_slopes(tiles.other(stage, 1), p, g, at, query);
    if (g.kept.words != nullptr) mask_of(stage).fetch(g.kept, at.flat, query, thread);
  };
  static_assert(tile_rows <= group_size);
  auto know = [&](int query, int stage) {
    know_queries<false>(room.queries[stage % 2], mask_of(stage), p, g, at.flat, query, thread, group_size);
  };
  if (group == 0) {
    square_rows(at.rows(p.k, p.width), p.k.row, keys).copy_to(tiles.own(0), first);
    square_rows(at.rows(p.v, p.width), p.v.row, keys).copy_to(tiles.own(1), first);
  }
  int seeing = 0;  // the first tile of queries of which any sees these keys
  while (seeing < queries && p.count(smaller(seeing + tile_rows, queries) - 1) <= first) seeing += tile_rows;
  seeing += group * tile_rows;
  if (seeing < queries) {
    load(seeing, 0);
    know(seeing, 0);
  }
  square_columns dk;
  square_columns dv;
  clear(dk);
  clear(dv);
  int stage = 0;
  for (int i = seeing; i - group * tile_rows < queries; i += groups * tile_rows, ++stage) {
    finish_tiles();
    __syncthreads();  // these tiles are there, and nobody reads those before
    if (i >= queries) continue;
    square_sums weight;
    square_sums slope;
    begin_product(weight, tiles.own(0), tiles.other(stage, 0));
    begin_product(slope, tiles.own(1), tiles.other(stage, 1));
    if (int const next = i + groups * tile_rows; next < queries) {
      load(next, stage + 1);
      know(next, stage + 1);
    }
    kept_by_columns const mask(p, mask_of(stage), key);
    finish_products(weight, slope);
    query_tile const& known = room.queries[stage % 2];
    if (i + tile_rows > queries || first + tile_rows > known.count[0])
      hide(weight, [&](int e) { return key + fragment_line() + e % 4 / 2 * 8 < known.count[column_of(e)]; });
    OURO_UNROLL
    for (int e = 0; e < 32; ++e) {
      int const r = column_of(e);
      float const keep = mask.keeps(e / 8, e / 4 % 2, e % 4) ? p.factor : 0.0F;
      weigh(sum_at(weight, e), sum_at(slope, e), true, p.steepness(), known.lse[r], known.dot[r], keep);
    }
    fragment const weights[4] = {rounded_left(weight[0]), rounded_left(weight[1]), rounded_left(weight[2]),
                                 rounded_left(weight[3])};
    fragment const slopes[4] = {rounded_left(slope[0]), rounded_left(slope[1]), rounded_left(slope[2]),
                                rounded_left(slope[3])};
    begin_addition(dv, weights, tiles.other(stage, 1));
    begin_addition(dk, slopes, tiles.other(stage, 0));
    finish_products(dv, dk);
  }
  if (groups > 1) {
    join_warps(dk, shared_memory<tile_sums>(), group_warps);
    join_warps(dv, shared_memory<tile_sums>(), group_warps);
    if (group > 0) return;
  }
  if (g.dk.data != nullptr) store_gradient<64>(p, at, g.dk, g.dk_adds, key, keys, 0, dk, p.scale);
  if (g.dv.data != nullptr) store_gradient<64>(p, at, g.dv, g.dv_adds, key, keys, 0, dv, 1.0F);
}

}  // namespace

void hopper_attention_gradient(fused_problem<bf16> const& p, fused_slopes<bf16> g) {
  bool const makes_dkv = g.dk.data != nullptr || g.dv.data != nullptr;
  std::optional<device_array<std::uint32_t>> mask;
  if (g.dq.data != nullptr) {
    if (makes_dkv && !p.kept.all()) {
      g.kept = mask_words(p);
      mask.emplace(g.kept.size(p.flats()));
      g.kept.words = mask->data();
    }
    index const blocks = p.flats() * divide_up(p.queries, tile_rows);
    int const groups = groups_of(blocks, p.keys, most_groups_of_queries);
    launch("attention_gradient of q", hopper_dq_kernel, blocks, groups * group_size, group_room(groups), p, g);
  }
  if (makes_dkv) {
    index const blocks = p.flats() * divide_up(p.keys, tile_rows);
    int const groups = groups_of(blocks, p.queries, most_groups_of_keys, sizeof(query_room));
    launch("attention_gradient of k and v", hopper_dkv_kernel, blocks, groups * group_size,
           group_room(groups, sizeof(query_room)), p, g);
  }
}

}  // namespace ouro::cuda_kernels
