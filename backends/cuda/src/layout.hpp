// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Where the elements of strided operands lie: axes that run on in every operand are joined, so that most calls have one.
#pragma once

#include "device.hpp"

namespace ouro::cuda_kernels {

/// Offsets in N operands of one shape, from the number of an element in row-major order.
template <int N>
struct layout {
  index size = 1;
  int rank = 0;
  index extent[max_rank] = {};
  index step[N][max_rank] = {};

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
  }

  /// The step of an operand along the innermost axis; 0 where there is but one element.
  [[nodiscard]] index innermost(int n) const { return rank > 0 ? step[n][rank - 1] : 0; }

  __device__ void locate(index i, index (&at)[N]) const {
    OURO_UNROLL
    for (int n = 0; n < N; ++n) at[n] = 0;
    if (size <= 0x7FFFFFFF) walk(static_cast<std::uint32_t>(i), at);  // a division of 32 bits is far cheaper
    else walk(i, at);
  }

 private:
  template <class I>
  __device__ void walk(I rest, index (&at)[N]) const {
    for (int axis = rank - 1; axis >= 0; --axis) {
      I const n = static_cast<I>(extent[axis]);
      I const here = axis > 0 ? rest % n : rest;
      if (axis > 0) rest /= n;
      OURO_UNROLL
      for (int k = 0; k < N; ++k) at[k] += static_cast<index>(here) * step[k][axis];
    }
  }
};

inline constexpr int each_threads = 256;

/// f(offsets) for every element.
template <class F, int N>
__global__ void each_kernel(layout<N> l, F f) {
  for (index i = thread_number(); i < l.size; i += thread_count()) {
    index at[N];
    l.locate(i, at);
    f(at);
  }
}
template <class F, int N>
void for_each(char const* name, layout<N> const& l, F const& f) {
  launch(name, each_kernel<F, N>, grid_of(l.size, each_threads, 4 * busy_blocks()), each_threads, 0, l, f);
}

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
