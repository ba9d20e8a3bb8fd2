// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Rows of a matrix, a block for each at a time. A thread owns four consecutive columns and keeps their numbers in registers
// from one pass over the row to the next; what is said of the whole row costs one barrier. Rows too wide for that are
// owned in several chunks of four.
#pragma once

#include "device.hpp"

namespace ouro::cuda_kernels {

inline constexpr int own_width = 4;  // consecutive columns
// Of a block whose threads hold much. A multiprocessor has room for one such block at least, which leaves each thread 168
// registers: enough for all kernels, and narrower blocks share the rest.
inline constexpr int most_row_threads = 384;
inline constexpr int most_chunks = 16;

template <class T>
struct quad {
  T of[own_width];
  __device__ T& operator[](int v) { return of[v]; }
  __device__ T const& operator[](int v) const { return of[v]; }
};

/// Four numbers at once, from where a multiple of four begins; nobody writes them while the kernel reads them.
template <class T>
__device__ quad<T> load_quad(T const* from) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == sizeof(float)) {
    float4 const q = __ldg(reinterpret_cast<float4 const*>(from));
    return {{q.x, q.y, q.z, q.w}};
  } else {
    double2 const a = __ldg(reinterpret_cast<double2 const*>(from));
    double2 const b = __ldg(reinterpret_cast<double2 const*>(from) + 1);
    return {{a.x, a.y, b.x, b.y}};
  }
#else
  return {{from[0], from[1], from[2], from[3]}};
#endif
}
template <class T>
__device__ void store_quad(T* to, quad<T> q, bool accumulate) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == sizeof(float)) {
    auto* const place = reinterpret_cast<float4*>(to);
    if (accumulate) {
      float4 const old = *place;
      q = {{old.x + q[0], old.y + q[1], old.z + q[2], old.w + q[3]}};
    }
    *place = float4{q[0], q[1], q[2], q[3]};
  } else {
    auto* const place = reinterpret_cast<double2*>(to);
    if (accumulate) {
      double2 const old[2] = {place[0], place[1]};
      q = {{old[0].x + q[0], old[0].y + q[1], old[1].x + q[2], old[1].y + q[3]}};
    }
    place[0] = double2{q[0], q[1]};
    place[1] = double2{q[2], q[3]};
  }
#else
  for (int v = 0; v < own_width; ++v) put(to[v], q[v], accumulate);
#endif
}
/// Whether four numbers at a time can be read from, or written to, this place on.
inline bool aligned(void const* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

/// The threads of a block for rows of this width, when each owns so many chunks.
inline int row_threads(index width, int chunks, int most) {
  index const warps = divide_up(divide_up(width, own_width * chunks), warp_size);
  return static_cast<int>(warps * warp_size < most ? warps * warp_size : most);
}

/// The columns of a thread: Chunks times four, or with Whole, where the four are a row's or none is and lie aligned, always
/// so many.
template <int Chunks, bool Whole>
class own_columns {
 public:
  static constexpr int count = Chunks;

  __device__ explicit own_columns(index width)
      : width_(static_cast<int>(width)),
        chunks_(Whole ? Chunks : static_cast<int>(divide_up(width, own_width * static_cast<index>(blockDim.x)))) {}

  [[nodiscard]] __device__ int chunks() const { return Whole ? Chunks : chunks_; }
  /// The first column of chunk k.
  [[nodiscard]] __device__ int first(int k) const {
    return own_width * static_cast<int>(threadIdx.x + static_cast<unsigned>(k) * blockDim.x);
  }
  /// Whether the row has column v of chunk k.
  [[nodiscard]] __device__ bool has(int k, int v) const { return first(k) + (Whole ? 0 : v) < width_; }

  /// f(k, v) for every column.
  template <class F>
  __device__ void each(F const& f) const {
    for (int k = 0; k < chunks(); ++k) {
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v)
        if (has(k, v)) f(k, v);
    }
  }
  /// The numbers of chunk k in the row that begins at element `row`; zero where the row has none.
  template <class T>
  [[nodiscard]] __device__ quad<T> load(T const* from, index row, int k) const {
    quad<T> q{};
    T const* const own = from + row + first(k);
    if constexpr (Whole) {
      if (has(k, 0)) q = load_quad(own);
    } else {
      for (int v = 0; v < own_width; ++v)
        if (has(k, v)) q[v] = own[v];
    }
    return q;
  }
  template <class T>
  __device__ void store(T* to, index row, int k, quad<T> q, bool accumulate = false) const {
    T* const own = to + row + first(k);
    if constexpr (Whole) {
      if (!has(k, 0)) return;
      store_quad(own, q, accumulate);
    } else {
      for (int v = 0; v < own_width; ++v)
        if (has(k, v)) put(own[v], q[v], accumulate);
    }
  }
  /// How many of the row's columns the threads of this warp own.
  template <class T>
  [[nodiscard]] __device__ T columns_of_warp() const {
    T mine = 0;
    each([&](int, int) { mine += T(1); });
    return warp_sum(mine);
  }

 private:
  int width_;
  int chunks_;
};

/// The numbers that a thread owns in E rows one after another, held in registers; without E, read whenever asked for.
template <class T, int E, class Own>
struct wide_numbers {
  quad<T> held[E][Own::count];
  __device__ wide_numbers(Own const& own, T const* from, index row, index width) {
    OURO_UNROLL
    for (int j = 0; j < E; ++j) {
      OURO_UNROLL
      for (int k = 0; k < Own::count; ++k)
        held[j][k] = from == nullptr ? quad<T>{} : own.load(from, row + j * width, k);
    }
  }
  __device__ quad<T> const& operator()(int j, int k) const { return held[j][k]; }
};
template <class T, class Own>
struct wide_numbers<T, 0, Own> {
  Own const& own;
  T const* from;
  index row;
  index width;
  __device__ wide_numbers(Own const& o, T const* f, index r, index w) : own(o), from(f), row(r), width(w) {}
  __device__ quad<T> operator()(int j, int k) const {
    return from == nullptr ? quad<T>{} : own.load(from, row + j * width, k);
  }
};

/// The sums over the threads of a block, in every thread. Of two calls in a row the slots, 0 or 1, must differ: then the
/// second's barrier tells that everybody has read what the first one left.
template <class T, int N>
__device__ void block_sums(T (&x)[N], int slot) {
  __shared__ T left[2][32][N];
  int const warps = static_cast<int>(blockDim.x) / warp_size;
  OURO_UNROLL
  for (int n = 0; n < N; ++n) x[n] = warp_sum(x[n]);
  if (warps == 1) return;
  if (lane_number() == 0)
    for (int n = 0; n < N; ++n) left[slot][threadIdx.x / warp_size][n] = x[n];
  __syncthreads();
  OURO_UNROLL
  for (int n = 0; n < N; ++n) x[n] = 0;
  for (int w = 0; w < warps; ++w) {
    OURO_UNROLL
    for (int n = 0; n < N; ++n) x[n] += left[slot][w][n];
  }
}

template <class T>
struct moments {
  T mean;
  T rstd;
};
/// Mean, and the sum of the squares of what differs from it.
template <class T>
struct scatter {
  T mean;
  T squares;
};
/// Of the `count` numbers of a warp: each(f) calls f with every number of a thread.
template <class T, class Each>
__device__ scatter<T> warp_scatter(T count, Each const& each) {
  T sum = 0;
  each([&](T x) { sum += x; });
  T const mean = warp_sum(sum) / count;
  T squares = 0;
  each([&](T x) { squares += (x - mean) * (x - mean); });
  return {mean, warp_sum(squares)};
}
/// Mean and 1/σ of a row's n numbers, from those of the warps: two passes within a warp, and one barrier. Slots as above.
template <class T, int N>
__device__ void block_moments(moments<T> (&m)[N], scatter<T> const (&own)[N], T count, T n, T eps, int slot) {
  __shared__ T counts[2][32];
  __shared__ scatter<T> left[2][32][N];
  int const warps = static_cast<int>(blockDim.x) / warp_size;
  T const inverse = T(1) / n;
  if (warps == 1) {
    for (int i = 0; i < N; ++i) m[i] = {own[i].mean, T(1) / std::sqrt(own[i].squares * inverse + eps)};
    return;
  }
  if (lane_number() == 0) {
    unsigned const warp = threadIdx.x / warp_size;
    counts[slot][warp] = count;
    for (int i = 0; i < N; ++i) left[slot][warp][i] = own[i];
  }
  __syncthreads();
  OURO_UNROLL
  for (int i = 0; i < N; ++i) {
    T sum = 0;
    for (int w = 0; w < warps; ++w) sum += counts[slot][w] * left[slot][w][i].mean;
    T const mean = sum * inverse;
    T squares = 0;
    for (int w = 0; w < warps; ++w) {
      T const apart = left[slot][w][i].mean - mean;
      squares += left[slot][w][i].squares + counts[slot][w] * apart * apart;
    }
    m[i] = {mean, T(1) / std::sqrt(squares * inverse + eps)};
  }
}

/// Blocks that take any number of rows each.
template <class... P>
index row_blocks(void (*kernel)(P...), index rows, int threads) {
  return rows <= multiprocessors() ? rows : grid_of(rows, 1, resident_blocks(kernel, threads));
}

}  // namespace ouro::cuda_kernels
