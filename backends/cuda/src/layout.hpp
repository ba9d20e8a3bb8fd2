// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Where the elements of strided operands lie: axes that run on in every operand are joined, so that most calls have one.
#pragma once

#include <bit>

#include "device.hpp"

namespace ouro::cuda_kernels {

/// How many elements of a call have places in 32 bits, in which a division is cheap; larger calls are cut in two.
#if defined(__CUDACC__)
inline constexpr index most_located = 0x7FFFFFFF;
#else
inline constexpr index most_located = 1 << 16;  // that the tests see the cuts
#endif

/// An axis with the most elements, and how many of them the first of two calls takes: packs stay aligned if there are many.
struct cut {
  int axis = 0;
  index first = 0;
  index second = 0;
  explicit cut(shape const& dims) {
    for (int i = 1; i < dims.rank(); ++i)
      if (dims[i] > dims[axis]) axis = i;
    first = dims[axis] / 2;
    if (first >= 16) first = first / 16 * 16;
    second = dims[axis] - first;
  }
  template <class View>
  [[nodiscard]] View front(View const& v) const {
    return v.slice(axis, 0, first);
  }
  template <class View>
  [[nodiscard]] View rest(View const& v) const {
    return v.slice(axis, first, second);
  }
};

/// Division of numbers below 2³¹ by one of them, by a multiplication (Granlund & Montgomery, "Division by invariant integers
/// using multiplication", 1994).
struct divider {
  std::uint32_t multiplier = 1;
  std::uint32_t shift = 0;

  divider() = default;
  explicit divider(index n) {
    if (n < 1) return;  // nothing to divide
    shift = static_cast<std::uint32_t>(std::bit_width(static_cast<std::uint64_t>(n - 1)));
    multiplier = static_cast<std::uint32_t>((((index(1) << shift) - n) << 32) / n + 1);
  }
  __device__ std::uint32_t operator()(std::uint32_t x) const {
    auto const high = static_cast<std::uint32_t>((static_cast<std::uint64_t>(x) * multiplier) >> 32U);
    return (high + x) >> shift;
  }
};

/// Offsets in N operands of one shape, from the number of an element in row-major order.
template <int N>
struct layout {
  index size = 1;
  int rank = 0;
  index extent[max_rank] = {};
  index step[N][max_rank] = {};
  divider by[max_rank];

  layout(shape const& dims, shape const* const (&steps)[N]) {
    for (int i = 0; i < dims.rank(); ++i) {
      size *= dims[i];
      if (dims[i] == 1) continue;
      bool joins = rank > 0;
      for (int n = 0; n < N && joins; ++n) joins = step[n][rank - 1] == (*steps[n])[i] * dims[i];
      if (joins) extent[rank - 1] *= dims[i];
      else extent[rank++] = dims[i];
      for (int n = 0; n < N; ++n) step[n][rank - 1] = (*steps[n])[i];
    }
    for (int axis = 0; axis < rank; ++axis) by[axis] = divider(extent[axis]);
  }

  /// The step of an operand along the innermost axis; 0 where there is but one element.
  __host__ __device__ index innermost(int n) const { return rank > 0 ? step[n][rank - 1] : 0; }
  /// The extent of the innermost axis.
  [[nodiscard]] index row() const { return rank > 0 ? extent[rank - 1] : 1; }

  /// Whether every `width` elements of an operand along the innermost axis are neighbours, at multiples of `width`.
  [[nodiscard]] bool dense(int n, index width) const {
    return innermost(n) == 1 && row() >= width && multiples(n, width, rank - 1);
  }
  /// Whether every step of an operand is a multiple of `width`, along the first `axes` axes or along all.
  [[nodiscard]] bool multiples(int n, index width, int axes = max_rank) const {
    for (int axis = 0; axis < rank && axis < axes; ++axis)
      if (step[n][axis] % width != 0) return false;
    return true;
  }
  /// The places of every `width` elements along the innermost axis; the last ones of a row may be fewer.
  [[nodiscard]] layout in_packs(index width) const {
    layout packs = *this;
    if (rank == 0 || width == 1) return packs;
    index& packs_of_row = packs.extent[rank - 1];
    packs_of_row = divide_up(packs_of_row, width);
    packs.by[rank - 1] = divider(packs_of_row);
    packs.size = 1;
    for (int axis = 0; axis < rank; ++axis) packs.size *= packs.extent[axis];
    for (int n = 0; n < N; ++n) packs.step[n][rank - 1] *= width;
    return packs;
  }

  /// The offsets of element i, which is below `most_located`; returns its place along the innermost axis.
  __device__ index locate(index i, index (&at)[N]) const {
    OURO_UNROLL
    for (int n = 0; n < N; ++n) at[n] = 0;
    auto rest = static_cast<std::uint32_t>(i);
    std::uint32_t place = 0;
    for (int axis = rank - 1; axis >= 0; --axis) {
      std::uint32_t const rows = axis > 0 ? by[axis](rest) : 0;
      std::uint32_t const here = rest - rows * static_cast<std::uint32_t>(extent[axis]);
      if (axis == rank - 1) place = here;
      OURO_UNROLL
      for (int n = 0; n < N; ++n) at[n] += static_cast<index>(here) * step[n][axis];
      rest = rows;
    }
    return place;
  }
};

inline constexpr int each_threads = 256;

/// f(i) for every i below n.
template <class F>
__global__ void count_kernel(index n, F f) {
  for (index i = thread_number(); i < n; i += thread_count()) f(i);
}
template <class F>
void for_count(char const* name, index n, F const& f) {
  launch(name, count_kernel<F>, grid_of(n, each_threads, 4 * busy_blocks()), each_threads, 0, n, f);
}

}  // namespace ouro::cuda_kernels
