// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Rows of a matrix, a warp for each: lanes take every 32nd element, sums are those of the lanes.
#pragma once

#include "device.hpp"

namespace ouro::cuda_kernels {

inline constexpr int row_warps = 4;  // rows that a block has at a time

/// f(row, lane) for every row.
template <class F>
__global__ void row_kernel(index rows, F f) {
  index const step = thread_count() / warp_size;
  for (index r = warp_number(); r < rows; r += step) f(r, lane_number());
}
template <class F>
void for_rows(char const* name, index rows, F const& f) {
  launch(name, row_kernel<F>, grid_of(rows, row_warps, 2 * busy_blocks()), row_warps * warp_size, 0, rows, f);
}

/// Σ_i f(i) over i below n, the same bits in each lane.
template <class T, class F>
__device__ T row_sum(index n, int lane, F const& f) {
  T sum = 0;
  for (index i = lane; i < n; i += warp_size) sum += f(i);
  return warp_sum(sum);
}

/// log Σ_i exp(x_i). Then every lane may overwrite what it has of x.
template <class T>
__device__ T row_log_sum_exp(T const* x, index n, int lane) {
  T top = x[0];
  for (index i = lane; i < n; i += warp_size) top = x[i] > top ? x[i] : top;
  top = warp_max(top);
  T const sum = row_sum<T>(n, lane, [&](index i) { return std::exp(x[i] - top); });
  __syncwarp();  // every lane has read the first
  return top + std::log(sum);
}

}  // namespace ouro::cuda_kernels
