// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Sums over rows beside a pass over the rows: each block sums those of its rows in registers and leaves a part; one launch
// sums the parts of all, in f64 since they may cancel, and in a fixed order.
#pragma once

#include <initializer_list>

#include "row_blocks.hpp"
#include "sums.hpp"

namespace ouro::cuda_kernels {

/// The rows of the blocks: block b has piece b mod `pieces` of run b / `pieces`. A run is a lane or several whole lanes, so
/// that no piece has parts of two.
struct row_shares {
  index rows;
  index run;
  index piece;
  index pieces;

  [[nodiscard]] index blocks() const { return divide_up(rows, run) * pieces; }
  [[nodiscard]] __device__ index from() const {
    index const b = blockIdx.x;
    return b / pieces * run + b % pieces * piece;
  }
  [[nodiscard]] __device__ index to() const {
    index const run_end = (blockIdx.x / pieces + 1) * run;
    index const end = from() + piece < run_end ? from() + piece : run_end;
    return end < rows ? end : rows;
  }
};
/// Enough pieces for the blocks of a kernel that there is room for, but of at least 4 rows, for a part costs as much to
/// write and to read as some rows (though seldom does anybody wait for the sums), and of at most 512, for a block sums them one
/// after another.
template <class... P>
row_shares share_rows(void (*kernel)(P...), int threads, index rows, index lane_rows, std::size_t shared_bytes = 0) {
  constexpr index least = 4;
  constexpr index most = 512;
  if (rows == 0) return {0, 1, 1, 1};
  index each = least;
  if (rows > least * multiprocessors()) each = divide_up(rows, resident_blocks(kernel, threads, shared_bytes));
  each = each < least ? least : each > most ? most : each;
  if (each >= lane_rows) {
    index const run = each / lane_rows * lane_rows;
    return {rows, run, run, 1};
  }
  index const pieces = divide_up(lane_rows, each);
  return {rows, lane_rows, divide_up(lane_rows, pieces), pieces};
}

/// One of the sums: `columns` numbers for each of `groups` runs of blocks one after another.
template <class T>
struct row_sum_place {
  T* place;  // none: not wanted
  bool accumulate;
  index columns;
  index groups;
  index at;  // where its columns begin in the part of a block
};

/// N sums over rows, and the parts (blocks, stride) of them.
template <class T, int N>
struct row_sums {
  row_sum_place<T> sum[N];
  T* part;
  index stride;
  index blocks;

  /// Takes what this block has summed of sum s in chunk k of `row`, which is the first of some columns. A block alone needs
  /// no part.
  template <class Own>
  __device__ void leave(int s, int row, Own const& own, int k, quad<T> const& total) const {
    if (sum[s].place == nullptr) return;
    if (blocks == 1) own.store(sum[s].place, row, k, total, sum[s].accumulate);
    else own.store(part + static_cast<index>(blockIdx.x) * stride + sum[s].at, row, k, total);
  }
};

inline constexpr int sum_columns = 32;
inline constexpr int sum_walkers = 16;

template <class T, int N>
__global__ void finish_row_sums(row_sums<T, N> s) {
  __shared__ double sums[sum_walkers][sum_columns];
  int const x = static_cast<int>(threadIdx.x) % sum_columns;
  int const walker = static_cast<int>(threadIdx.x) / sum_columns;
  index tile = blockIdx.x;
  row_sum_place<T> to{};
  OURO_UNROLL
  for (int n = 0; n < N; ++n) {
    index const tiles = s.sum[n].place == nullptr ? 0 : s.sum[n].groups * divide_up(s.sum[n].columns, sum_columns);
    if (to.place != nullptr) continue;
    if (tile < tiles) to = s.sum[n];
    else tile -= tiles;
  }
  index const tiles = divide_up(to.columns, sum_columns);
  index const group = tile / tiles;
  index const column = tile % tiles * sum_columns + x;
  index const parts = s.blocks / to.groups;
  double mine = 0;
  if (column < to.columns) {
    T const* const part = s.part + group * parts * s.stride + to.at + column;
    OURO_UNROLL_BY_8
    for (index p = walker; p < parts; p += sum_walkers) mine += static_cast<double>(part[p * s.stride]);
  }
  sums[walker][x] = mine;
  __syncthreads();
  if (walker != 0 || column >= to.columns) return;
  double sum = 0;
  for (int w = 0; w < sum_walkers; ++w) sum += sums[w][x];
  put(to.place[group * to.columns + column], static_cast<T>(sum), to.accumulate);
}

/// Whether everything that is wanted of these may be written on the branch.
inline bool all_beside(std::initializer_list<destination> list) {
  for (auto const& d : list)
    if (d.wanted() && !d.on_branch) return false;
  return true;
}

/// Sums the parts that the blocks have left: on the branch, if that may be.
template <class T, int N>
void finish(char const* name, row_sums<T, N> const& s, bool on_branch) {
  if (s.blocks == 1) return;
  index tiles = 0;
  for (auto const& sum : s.sum)
    if (sum.place != nullptr) tiles += sum.groups * divide_up(sum.columns, sum_columns);
  branch_scope<cuda> const branch(on_branch);
  launch(name, finish_row_sums<T, N>, tiles, sum_columns * sum_walkers, 0, s);
}

}  // namespace ouro::cuda_kernels
