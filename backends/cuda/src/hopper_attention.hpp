// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention of heads of 64 in bf16 on a device of compute capability 9.0: a warp group has 64 rows of scores, whose products
// are made while it draws the dropout's numbers.
#pragma once

#include "fused_slopes.hpp"
#include "hopper_products.hpp"

namespace ouro::cuda_kernels {

/// Whether these kernels are made for the problem, and for this device. Shorter sequences would leave most of a tile empty.
inline bool suits_hopper(fused_problem<bf16> const& p) {
  return p.width == 64 && p.aligned && p.queries >= 192 && p.keys >= 192 && is_hopper();
}

void hopper_attention(fused_problem<bf16> const& p, head_rows<bf16> const& y, float* lse);
/// Dots are made with dq; where that is not wanted they are made already.
void hopper_attention_gradient(fused_problem<bf16> const& p, fused_slopes<bf16> g);

/// Rows of dy from `row` on to a tile, by the threads of a group.
__device__ inline void load_square_slopes(square_tile to, fused_problem<bf16> const& p, fused_slopes<bf16> const& g,
                                          fused_place const& at, int row) {
  with_stored<float>(g.dy, [&](auto const& dy) {
    square_rows(at.rows(dy, p.width), dy.row, static_cast<int>(p.queries)).copy_to(to, row);
  });
}

/// (Asked of the first lane, so that the compiler knows that the warp agrees on it.)
__device__ inline int group_number() { return __shfl_sync(everybody, fused_warp() / group_warps, 0); }
__device__ inline int group_count() { return fused_warps() / group_warps; }

/// Two tiles of a block's own rows, then for each group two pairs of tiles of the other sequence: those that it works on,
/// and the next.
struct group_tiles {
  bf16_pair* memory = shared_tiles();
  int group = group_number();

  [[nodiscard]] __device__ square_tile own(int n) const { return {memory + n * square_tile::pairs}; }
  [[nodiscard]] __device__ square_tile other(int stage, int n) const {
    return own(2 + (2 * group + stage % 2) * 2 + n);
  }
  static constexpr std::size_t bytes(int groups) {
    return static_cast<std::size_t>(2 + 4 * groups) * square_tile::bytes;
  }
};

/// The shared memory of so many groups, each of which keeps `known` bytes besides.
inline std::size_t group_room(int groups, std::size_t known = 0) {
  return group_tiles::bytes(groups) + static_cast<std::size_t>(groups) * known;
}
/// How many groups of a block share its rows, where there are `blocks`, and `others` rows of the other sequence: one, or a
/// divisor of those that a multiprocessor has registers for, so that all of it has work.
inline int groups_of(index blocks, index others, int resident, std::size_t known = 0) {
  index const tiles = divide_up(others, tile_rows);
  int groups = 1;
  for (int n = 2; n <= resident && n <= tiles && group_room(n, known) <= shared_memory_limit(); ++n)
    if (resident % n == 0 && groups * blocks < resident * multiprocessors()) groups = n;
  return groups;
}

/// The keys and values of a head, as the threads of a group copy them to tiles.
struct group_keys {
  square_rows<bf16> k, v;

  __device__ group_keys(fused_problem<bf16> const& p, fused_place const& at)
      : k(at.rows(p.k, p.width), p.k.row, static_cast<int>(p.keys)),
        v(at.rows(p.v, p.width), p.v.row, static_cast<int>(p.keys)) {}
  /// Those from number `key` on.
  __device__ void load(group_tiles const& tiles, int key, int stage) const {
    k.copy_to(tiles.other(stage, 0), key);
    v.copy_to(tiles.other(stage, 1), key);
  }
};

}  // namespace ouro::cuda_kernels
