// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Neighbouring elements that one thread loads, computes and stores together, by accesses of sixteen bytes, and sums of
// them. Storage types are converted here, to what they are computed in.
#pragma once

#include <type_traits>

#include "device.hpp"

namespace ouro::cuda_kernels {

/// What a stored element is computed in.
template <class S>
using real_of = std::conditional_t<std::is_same_v<S, bf16>, float, S>;

/// How many elements of the widest of these types go into one access.
template <class... S>
inline constexpr int pack_width = [] {
  std::size_t widest = 1;
  ((widest = sizeof(S) > widest ? sizeof(S) : widest), ...);
  return static_cast<int>(16 / widest);
}();

template <class S, int W>
struct alignas(W * sizeof(S) < 16 ? W * sizeof(S) : 16) pack {
  S values[W] = {};
};

/// The pack at an aligned place; where there are but `count` elements, or one for all, element by element.
template <int W, class S>
__device__ pack<S, W> load(S const* x, int count = W, bool one_for_all = false) {
  if (count == W && !one_for_all) return *reinterpret_cast<pack<S, W> const*>(x);
  pack<S, W> p;
  OURO_UNROLL
  for (int e = 0; e < W; ++e)
    if (e < count) p.values[e] = x[one_for_all ? 0 : e];
  return p;
}
template <int W, class S>
__device__ void store(S* y, pack<S, W> const& p, int count = W) {
  if (count == W) {
    *reinterpret_cast<pack<S, W>*>(y) = p;
    return;
  }
  OURO_UNROLL
  for (int e = 0; e < W; ++e)
    if (e < count) y[e] = p.values[e];
}

/// Whether packs of `width` elements may be loaded at `data`.
template <class S>
bool aligned_for(S const* data, int width) {
  return reinterpret_cast<std::uintptr_t>(data) % (static_cast<std::size_t>(width) * sizeof(S)) == 0;
}

/// Calls f(width_of<W>()) with as many elements of S as one access holds, or one.
template <int W>
using width_of = std::integral_constant<int, W>;
template <class S, class F>
void with_width(bool packed, F&& f) {
  if (packed) f(width_of<pack_width<S>>{});
  else f(width_of<1>{});
}

/// Adds the packs at place(i) for i = from, from + step, ... below end, in that order; eight loads are on their way at a
/// time.
template <int W, class Place>
__device__ void add_packs(double (&sum)[W], index from, index end, index step, Place const& place) {
  constexpr int in_flight = 8;
  using S = std::remove_cvref_t<decltype(*place(from))>;
  OURO_ROLLED
  for (index i = from; i < end; i += in_flight * step) {
    pack<S, W> x[in_flight];
    OURO_UNROLL
    for (int u = 0; u < in_flight; ++u)
      if (i + u * step < end) x[u] = load<W>(place(i + u * step));
    OURO_UNROLL
    for (int u = 0; u < in_flight; ++u)
      for (int e = 0; e < W; ++e) sum[e] += static_cast<double>(x[u].values[e]);
  }
}

inline constexpr int pack_threads = 256;

/// The sums over the walkers of a block, who are `lanes` threads apart, for the first of them: thread = walker · lanes +
/// lane.
template <int W>
__device__ void walkers_sum(double (&sum)[W], int lanes) {
  __shared__ double sums[W][pack_threads];
  int const thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // who is still reading what was there before
  OURO_UNROLL
  for (int e = 0; e < W; ++e) sums[e][thread] = sum[e];
  __syncthreads();
  if (thread >= lanes) return;
  for (int other = thread + lanes; other < pack_threads; other += lanes) {
    OURO_UNROLL
    for (int e = 0; e < W; ++e) sum[e] += sums[e][other];
  }
}

}  // namespace ouro::cuda_kernels
