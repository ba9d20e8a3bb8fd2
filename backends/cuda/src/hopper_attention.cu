// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A block has 64 queries; each of its groups goes with them over the tiles of keys that any of them sees, and takes turns at
// these with the others.
#include "hopper_attention.hpp"
#include "running_rows.hpp"

namespace ouro::cuda_kernels {
namespace {

constexpr int most_groups = 4;

__global__ void __launch_bounds__(most_groups* group_size, 1)
    hopper_attention_kernel(fused_problem<bf16> p, head_rows<bf16> y, float* lse) {
  group_tiles const tiles;
  fused_place const at(p);
  group_keys const keys(p, at);
  int const group = tiles.group;
  int const groups = group_count();
  auto const [first, block_rows, query, block_sees, warp_sees] =
      query_rows(p, at, group_warps, fused_warp() % group_warps);

  if (group == 0) square_rows(at.rows(p.q, p.width), p.q.row, static_cast<int>(p.queries)).copy_to(tiles.own(0), first);
  if (group * tile_rows < block_sees) keys.load(tiles, group * tile_rows, 0);
  running_rows<64> rows(p, query);
  int stage = 0;
  for (int j = group * tile_rows; j - group * tile_rows < block_sees; j += groups * tile_rows, ++stage) {
    finish_tiles();
    __syncthreads();  // these tiles are there, and nobody reads those before
    if (j >= block_sees) continue;
    square_sums s;
    begin_product(s, tiles.own(0), tiles.other(stage, 0));
    if (int const next = j + groups * tile_rows; next < block_sees) keys.load(tiles, next, stage + 1);
    kept_by_rows const mask(p, at.flat, query, j);
    finish_products(s);
    rows.weigh(s, tile_parts, j, p.steepness());
    drop(p, mask, s, tile_parts);
    fragment const weights[4] = {rounded_left(s[0]), rounded_left(s[1]), rounded_left(s[2]), rounded_left(s[3])};
    begin_addition(rows.out, weights, tiles.other(stage, 1));
    finish_products(rows.out);
  }
  if (groups > 1) {
    rows.join(group_warps);
    if (group > 0) return;
  }
  store_attention(p, at, y, lse, query, rows);
}

}  // namespace

void hopper_attention(fused_problem<bf16> const& p, head_rows<bf16> const& y, float* lse) {
  index const blocks = p.flats() * divide_up(p.queries, tile_rows);
  int const groups = groups_of(blocks, p.keys, most_groups);
  launch("attention", hopper_attention_kernel, blocks, groups * group_size, group_room(groups), p, y, lse);
}

}  // namespace ouro::cuda_kernels
