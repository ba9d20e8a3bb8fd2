// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention in bf16 on the tensor cores: a warp goes with its 16 queries over the tiles of keys that any of them sees.
#include "hopper_attention.hpp"
#include "running_rows.hpp"

namespace ouro::cuda_kernels {
namespace {

/// A block's warps have `groups` times 16 queries; those that share theirs take turns at the tiles of keys.
template <int Width, class S>
__global__ void __launch_bounds__(most_warps* warp_size, Width <= 64 ? 2 : 1)
    fused_attention_kernel(fused_problem<S> p, head_rows<S> y, float* lse, int groups) {
  constexpr int pitch = tile_pitch<Width>;
  int const split = fused_warp() / groups;
  int const splits = fused_warps() / groups;
  key_tiles<Width> const tiles{.at_once = splits};
  fused_place const at(p);
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
    int const parts = smaller(tile_parts, (warp_sees - j + 15) / 16);
    square_sums s;
    OURO_UNROLL
    for (int m = 0; m < tile_parts; ++m)
      if (m < parts) multiply_rows<Width>(s[m], q, k_tile + 16 * m * pitch);
    rows.weigh(s, parts, j, p.steepness());
    drop(p, kept_by_rows(p, at.flat, query, j), s, parts);
    OURO_UNROLL
    for (int m = 0; m < tile_parts; ++m)
      if (m < parts) add_product<Width, pitch>(rows.out, rounded_left(s[m]), v_tile + 16 * m * pitch);
  }
  if (splits > 1) {
    rows.join(groups);
    if (split > 0) return;
  }
  store_attention<Width>(p, at, y, lse, query, rows);
}

/// How many warps share their queries: more than one where there would be few for the device.
template <int Width, class S>
int key_splits(fused_problem<S> const& p, row_split const& split) {
  constexpr index enough = 12;  // warps of a multiprocessor
  index const warps = p.flats() * split.tiles * split.warps;
  int splits = 1;
  while (2 * splits * split.warps <= most_warps && p.keys > splits * tile_rows &&
         splits * warps < enough * multiprocessors() && key_tiles<Width>::bytes(2 * splits) <= shared_memory_limit())
    splits *= 2;
  return splits;
}

}  // namespace

bool attention_is_fused(const_view const& q, attention_rule const& rule) {
  index const width = q.dims[2] / rule.heads;
  bool const rounds = q.type == dtype::bf16 || (q.type == dtype::f32 && cuda_products() == product_precision::bf16);
  return rounds && q.dims[1] > 1 && width % 16 == 0 && width <= 128 && rule.scale > 0;
}

void fused_attention(view const& y, float* lse, const_view const& q, const_view const& k, const_view const& v,
                     attention_rule const& rule) {
  with_fused_storage(q.type, [&]<class S>(std::type_identity<S>) {
    fused_problem<S> p(q, k, v, rule);
    p.aligned = p.aligned && rows_are_aligned(const_view(y));
    if constexpr (std::is_same_v<S, bf16>) {
      if (suits_hopper(p)) return hopper_attention(p, rows_of<S>(destination(y)), lse);
    }
    row_split const split(p.queries, p.flats(), most_warps, 4);
    with_fused_width(p.width, [&]<int Width>(std::integral_constant<int, Width>) {
      int const splits = key_splits<Width>(p, split);
      launch("attention", fused_attention_kernel<Width, S>, p.flats() * split.tiles, splits * split.warps * warp_size,
             key_tiles<Width>::bytes(splits), p, rows_of<S>(destination(y)), lse, split.warps);
    });
  });
}

}  // namespace ouro::cuda_kernels
