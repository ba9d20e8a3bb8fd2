// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Sums over a block, and sums over the rows of a matrix in two stages and in f64, since they may cancel; the order of every
// sum is fixed.
#pragma once

#include "device.hpp"

namespace ouro::cuda_kernels {

/// The sum over the threads of a block, in every thread; `sums` has room for one number a warp.
template <class T>
__device__ T block_sum(T x, T* sums) {
  int const warps = static_cast<int>(blockDim.x) / warp_size;
  x = warp_sum(x);
  __syncthreads();  // who is still reading what was there before
  if (lane_number() == 0) sums[threadIdx.x / warp_size] = x;
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < warps; ++i) sum += sums[i];
  return sum;
}

/// What column_sums works on: `groups` runs of `rows` rows each, `columns` wide, cut into `chunks` of `chunk` rows.
struct column_shape {
  index groups;
  index rows;
  index columns;
  index chunk;
  index chunks;
};

inline constexpr int column_tile = 32;
inline constexpr int column_walkers = 8;  // rows that a block reads at a time

/// Partial sums (groups, chunks, K, columns) of what f(row, column, values) gives, over the rows of each chunk.
template <class T, int K, class F>
__global__ void column_parts(column_shape s, F f, double* part) {
  __shared__ double sums[column_walkers][K][column_tile];
  int const x = static_cast<int>(threadIdx.x) % column_tile;
  int const walker = static_cast<int>(threadIdx.x) / column_tile;
  index const tiles = divide_up(s.columns, column_tile);
  index const chunk = blockIdx.x / tiles;  // over all groups
  index const column = blockIdx.x % tiles * column_tile + x;
  index const first = chunk / s.chunks * s.rows;
  index const from = chunk % s.chunks * s.chunk;
  index const to = from + s.chunk < s.rows ? from + s.chunk : s.rows;
  double mine[K] = {};
  if (column < s.columns)
    for (index r = from + walker; r < to; r += column_walkers) {
      T values[K];
      f(first + r, column, values);
      OURO_UNROLL
      for (int k = 0; k < K; ++k) mine[k] += static_cast<double>(values[k]);
    }
  OURO_UNROLL
  for (int k = 0; k < K; ++k) sums[walker][k][x] = mine[k];
  __syncthreads();
  for (int k = walker; k < K; k += column_walkers) {
    double sum = 0;
    for (int w = 0; w < column_walkers; ++w) sum += sums[w][k][x];
    if (column < s.columns) part[(chunk * K + k) * s.columns + column] = sum;
  }
}

/// store(group · columns + column, sums) for each group and column, from the parts.
template <class T, int K, class Store>
__global__ void column_finish(column_shape s, double const* part, Store store) {
  for (index i = thread_number(); i < s.groups * s.columns; i += thread_count()) {
    index const group = i / s.columns;
    double total[K] = {};
    for (index c = 0; c < s.chunks; ++c)
      for (int k = 0; k < K; ++k) total[k] += part[((group * s.chunks + c) * K + k) * s.columns + i % s.columns];
    T sums[K];
    OURO_UNROLL
    for (int k = 0; k < K; ++k) sums[k] = static_cast<T>(total[k]);
    store(i, sums);
  }
}

/// K sums over the rows of each group and column: f(row over all groups, column, T (&values)[K]) gives the terms,
/// store(group · columns + column, T const (&sums)[K]) takes the sums.
template <class T, int K, class F, class Store>
void column_sums(char const* name, index groups, index rows, index columns, F const& f, Store const& store) {
  constexpr int threads = column_tile * column_walkers;
  index const tiles = divide_up(columns, column_tile) * (groups > 0 ? groups : 1);
  if (tiles == 0) return;
  // A part for at least 64 rows, and as many as keep the device busy.
  index const wanted = divide_up(busy_blocks(), tiles);
  index chunk = divide_up(rows, wanted);
  if (chunk < 64) chunk = 64;
  column_shape const s{groups, rows, columns, chunk, divide_up(rows, chunk)};
  device_array<double> const part(groups * s.chunks * K * columns);
  launch(name, column_parts<T, K, F>, s.groups * s.chunks * divide_up(columns, column_tile), threads, 0, s, f,
         part.data());
  launch(name, column_finish<T, K, Store>, grid_of(groups * columns, threads, busy_blocks()), threads, 0, s,
         part.data(), store);
}

/// Where K sums go: those without a place are dropped.
template <class T, int K>
struct to_places {
  T* place[K];
  bool accumulate[K];
  __device__ void operator()(index i, T const (&sums)[K]) const {
    OURO_UNROLL
    for (int k = 0; k < K; ++k)
      if (place[k] != nullptr) put(place[k][i], sums[k], accumulate[k]);
  }
};
template <class T>
T* place_of(destination const& d) {
  return d.wanted() ? d.out.as<T>() : nullptr;
}

}  // namespace ouro::cuda_kernels
