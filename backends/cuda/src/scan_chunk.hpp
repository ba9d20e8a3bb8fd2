// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products of the small matrices of a chunk, by a block, in shared memory.
#pragma once

#include "scans.hpp"

namespace ouro::cuda_kernels {

inline constexpr int chunk_threads = 256;

/// Rows of a matrix in shared memory lie an odd number of elements apart, so that a column lies in all banks.
constexpr int odd(int n) { return n | 1; }

/// Element (i,j) of a matrix, which may be a transposed one.
template <class T>
struct chunk_matrix {
  T* at;
  int down, across = 1;

  __device__ T& operator()(int i, int j) const { return at[i * down + j * across]; }
  [[nodiscard]] __device__ chunk_matrix transposed() const { return {at, across, down}; }
  [[nodiscard]] __device__ chunk_matrix from(int row, int column = 0) const {
    return {at + row * down + column * across, down, across};
  }
};

/// take(i, j, Σ_d a(i,d) b(d,j)) for all i < rows and j < columns; a thread has 2 by 4 of them.
template <class T, class F>
__device__ void for_products(int rows, int columns, int depth, chunk_matrix<T> a, chunk_matrix<T> b, F const& take) {
  int const across = (columns + 3) / 4;
  int const tiles = (rows + 1) / 2 * across;
  for (int tile = static_cast<int>(threadIdx.x); tile < tiles; tile += chunk_threads) {
    int const i = tile / across * 2;
    int const j = tile - i / 2 * across;
    int const below = i + 1 < rows ? 1 : 0;
    T const* left = &a(i, 0);
    T const* right[4];
    OURO_UNROLL
    for (int q = 0; q < 4; ++q) right[q] = &b(0, j + q * across < columns ? j + q * across : j);
    T sum[2][4] = {};
    OURO_UNROLL_BY_8
    for (int d = 0; d < depth; ++d) {
      T const upper = left[d * a.across];
      T const lower = left[below * a.down + d * a.across];
      OURO_UNROLL
      for (int q = 0; q < 4; ++q) {
        T const x = right[q][d * b.down];
        sum[0][q] += upper * x;
        sum[1][q] += lower * x;
      }
    }
    for (int q = 0; q < 4; ++q) {
      if (j + q * across >= columns) continue;
      take(i, j + q * across, sum[0][q]);
      if (below != 0) take(i + 1, j + q * across, sum[1][q]);
    }
  }
}

/// f(i, j) for all i < rows and j < columns, a run of threads for each row.
template <class F>
__device__ void for_elements(int rows, int columns, F const& f) {
  for (int e = static_cast<int>(threadIdx.x); e < rows * columns; e += chunk_threads) {
    int const i = e / columns;
    f(i, e - i * columns);
  }
}

/// The chunk of a block: whose it is, which rows it has, the states before and after it, and the gradient of the latter.
template <class T>
struct chunk_place {
  index chunk, flat, h, n, first;
  int rows;
  T const *start, *after, *slope;

  __device__ chunk_place(scan_shape const& s, T const* states, T const* slopes)
      : chunk(blockIdx.x % s.chunks()),
        flat(blockIdx.x / s.chunks()),
        h(flat % s.heads),
        n(flat / s.heads),
        first(chunk * s.length),
        rows(s.rows_of(chunk)),
        start(states + (flat * (s.chunks() + 1) + chunk) * s.state()),
        after(start + s.state()),
        slope(slopes + (flat * (s.chunks() + 1) + chunk) * s.state()) {}
};

/// The rows of an operand that a chunk has, zero from there up to `length`.
template <class T>
__device__ void load_chunk(chunk_matrix<T> to, int length, int columns, scan_rows<T const> const& from,
                           chunk_place<T> const& at, index column) {
  for_elements(length, columns,
               [&](int t, int j) { to(t, j) = t < at.rows ? *from.at(at.n, at.first + t, column + j) : T(0); });
}
template <class T>
__device__ void store_chunk(chunk_matrix<T> from, int columns, scan_rows<T> const& to, chunk_place<T> const& at,
                            index column) {
  if (to.data != nullptr)
    for_elements(at.rows, columns, [&](int t, int j) { to.put_at(at.n, at.first + t, column + j, from(t, j)); });
}

/// Rows of a state in shared memory, as many at a time as there is room for: f(first, rows, matrix) for each of them. The
/// whole block takes part.
template <class T, class F>
__device__ void for_state_rows(chunk_matrix<T> room, int room_rows, scan_shape const& s, T const* state, F const& f) {
  for (int first = 0; first < s.value; first += room_rows) {
    int const rows = s.value - first < room_rows ? s.value - first : room_rows;
    __syncthreads();  // who is still reading the room
    for_elements(rows, s.key, [&](int i, int j) { room(i, j) = state[index{first + i} * s.key + j]; });
    __syncthreads();
    f(first, rows, room);
  }
}
/// Rows of a state that are in shared memory at a time.
constexpr int state_rows_at_once(int value) { return value < 64 ? value : 64; }

/// Counts the elements of matrices of shared memory, or hands them out one after the other; Chunk::share says which there are.
template <class T>
struct chunk_count {
  std::size_t used = 0;

  __host__ __device__ void operator()(chunk_matrix<T>&, int rows, int columns) {
    used += static_cast<std::size_t>(rows) * static_cast<std::size_t>(odd(columns));
  }
};
template <class T>
struct chunk_shares {
  T* next;

  __host__ __device__ void operator()(chunk_matrix<T>& m, int rows, int columns) {
    m = {next, odd(columns)};
    next += rows * odd(columns);
  }
};
template <class T, class Chunk>
std::size_t chunk_bytes(scan_shape const& s) {
  chunk_count<T> count;
  Chunk().share(s, count);
  return count.used * sizeof(T);
}

}  // namespace ouro::cuda_kernels
