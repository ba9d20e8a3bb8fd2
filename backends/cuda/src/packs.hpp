// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Neighbouring elements that one thread loads, computes and stores together, by accesses of sixteen bytes, and sums of
// them. Storage types are converted here, to what they are computed in.
#pragma once

#include <bit>
#include <type_traits>

#include "tensor_cores.hpp"

namespace ouro::cuda_kernels {

/// Stands for elements of f32 or bf16, which of them a kernel learns when it runs: one kernel for every choice of types.
struct inner {};

/// What a stored element is computed in.
template <class S>
using real_of = std::conditional_t<std::is_same_v<S, bf16> || std::is_same_v<S, inner>, float, S>;

/// What f32 and bf16 are loaded as where the rest is computed in T.
template <class T>
using stored_beside = std::conditional_t<std::is_same_v<T, float>, inner, T>;

/// How many elements of the widest of these types go into one access.
template <class... S>
inline constexpr int pack_width = [] {
  auto bytes = []<class Each>(std::type_identity<Each>) {
    return std::is_same_v<Each, inner> ? sizeof(float) : sizeof(Each);
  };
  std::size_t widest = 1;
  ((widest = bytes(std::type_identity<S>{}) > widest ? bytes(std::type_identity<S>{}) : widest), ...);
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
  S const all = one_for_all ? x[0] : S{};
  OURO_UNROLL
  for (int e = 0; e < W; ++e)
    if (one_for_all) p.values[e] = all;
    else if (e < count) p.values[e] = x[e];
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

/// Whether packs may be loaded at each of these places.
template <class... T>
bool packs_fit(T const*... place) {
  return (aligned_for(place, pack_width<T>) && ...);
}

/// The elements of an operand: packs as they lie in memory, and the reals that they stand for. What is loaded is not
/// looked at before `reals`, so that a thread can have several loads on their way.
template <class S, class Void>
struct elements {
  template <int W>
  using raw = pack<S, W>;

  Void* data;

  __device__ explicit elements(Void* d) : data(d) {}
  explicit elements(basic_view<Void> const& v) : data(v.data) {
    require(v.type == dtype_of<S>, errc::shape, "elements", "an operand has ", name_of(v.type), " instead of ",
            name_of(dtype_of<S>));
  }
  [[nodiscard]] bool aligned(int width) const { return aligned_for(static_cast<S const*>(data), width); }

  template <int W>
  __device__ raw<W> load_raw(index at, int count = W, bool one_for_all = false) const {
    return load<W>(static_cast<S const*>(data) + at, count, one_for_all);
  }
  template <int W>
  __device__ raw<W> reals(raw<W> const& p) const {
    return p;
  }
  template <int W>
  __device__ void store_reals(index at, raw<W> const& p, int count = W) const {
    store<W>(static_cast<S*>(data) + at, p, count);
  }
};

/// W words of f32, or of bf16 two in each of the first words.
template <int W>
struct inner_words {
  std::uint32_t words[W] = {};
};

template <class Void>
struct elements<inner, Void> {
  template <int W>
  using raw = inner_words<W>;

  Void* data;
  bool narrow;

  __host__ __device__ elements(Void* d, bool is_narrow) : data(d), narrow(is_narrow) {}
  explicit elements(basic_view<Void> const& v) : elements(v.data, v.type == dtype::bf16) {
    require(computed_in(v.type) == dtype::f32, errc::shape, "elements", "an operand has ", name_of(v.type),
            " instead of f32 or bf16");
  }
  [[nodiscard]] bool aligned(int width) const {
    return narrow ? aligned_for(static_cast<bf16 const*>(data), width)
                  : aligned_for(static_cast<float const*>(data), width);
  }

  template <int W>
  __device__ raw<W> load_raw(index at, int count = W, bool one_for_all = false) const {
    raw<W> p;
    if (!narrow) {
      auto const wide = load<W>(static_cast<std::uint32_t const*>(data) + at, count, one_for_all);
      OURO_UNROLL
      for (int e = 0; e < W; ++e) p.words[e] = wide.values[e];
      return p;
    }
    auto const* const from = static_cast<std::uint16_t const*>(data) + at;
    if (W > 1 && count == W && !one_for_all) {
      constexpr int pairs = (W + 1) / 2;
      auto const loaded = load<pairs>(reinterpret_cast<bf16_pair const*>(from));
      OURO_UNROLL
      for (int i = 0; i < pairs; ++i) p.words[i] = loaded.values[i];
      return p;
    }
    std::uint32_t const all = one_for_all ? from[0] * 0x10001U : 0U;
    OURO_UNROLL
    for (int e = 0; e < W; ++e)
      if (one_for_all) p.words[e / 2] = all;
      else if (e < count) p.words[e / 2] |= static_cast<std::uint32_t>(from[e]) << (16 * (e % 2));
    return p;
  }
  template <int W>
  __device__ pack<float, W> reals(raw<W> const& p) const {
    pack<float, W> x;
    OURO_UNROLL
    for (int e = 0; e < W; ++e) {
      bf16_pair const pair = p.words[e / 2];
      x.values[e] = !narrow ? std::bit_cast<float>(p.words[e]) : e % 2 == 0 ? first_of(pair) : second_of(pair);
    }
    return x;
  }
  template <int W>
  __device__ void store_reals(index at, pack<float, W> const& p, int count = W) const {
    if (!narrow) return store<W>(static_cast<float*>(data) + at, p, count);
    constexpr int pairs = (W + 1) / 2;
    pack<bf16_pair, pairs> rounded;
    OURO_UNROLL
    for (int i = 0; i < pairs; ++i)
      rounded.values[i] = rounded_pair(p.values[2 * i], W > 1 ? p.values[(2 * i + 1) % W] : 0.0F);
    auto* const to = static_cast<std::uint16_t*>(data) + at;
    if (W > 1 && count == W) return store<pairs>(reinterpret_cast<bf16_pair*>(to), rounded);
    OURO_UNROLL
    for (int e = 0; e < W; ++e)
      if (e < count) to[e] = static_cast<std::uint16_t>(rounded.values[e / 2] >> (16 * (e % 2)));
  }
};

/// Of bf16 in any case.
template <class Void>
struct elements<bf16, Void> : elements<inner, Void> {
  __device__ explicit elements(Void* d) : elements<inner, Void>(d, true) {}
};

/// Calls f(std::type_identity<S>{}) with what elements of a type are loaded as: f64, or inner for f32 and bf16.
template <class F>
void with_inner(dtype type, char const* where, F&& f) {
  if (type == dtype::f64) return f(std::type_identity<double>{});
  require(is_real(type), errc::shape, where, "needs f32, bf16 or f64, got ", name_of(type));
  f(std::type_identity<inner>{});
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
/// time. Eight of bf16 are summed in f32 first, which has 16 bits more than they, and so few that need a wide conversion.
template <int W, class Place>
__device__ void add_packs(double (&sum)[W], index from, index end, index step, Place const& place) {
  constexpr int in_flight = 8;
  using stored = std::remove_cvref_t<decltype(*place(from))>;
  using memory = elements<stored, void const>;
  using partial = std::conditional_t<std::is_same_v<stored, bf16>, float, double>;
  OURO_ROLLED
  for (index i = from; i < end; i += in_flight * step) {
    typename memory::template raw<W> x[in_flight];
    OURO_UNROLL
    for (int u = 0; u < in_flight; ++u)
      if (i + u * step < end) x[u] = memory(place(i + u * step)).template load_raw<W>(0);
    partial part[W] = {};
    OURO_UNROLL
    for (int u = 0; u < in_flight; ++u) {
      auto const terms = memory(nullptr).template reals<W>(x[u]);
      OURO_UNROLL
      for (int e = 0; e < W; ++e) part[e] += static_cast<partial>(terms.values[e]);
    }
    OURO_UNROLL
    for (int e = 0; e < W; ++e) sum[e] += static_cast<double>(part[e]);
  }
}

inline constexpr int pack_threads = 256;

/// Calls take(lane, e, total) for the e-th sums over the walkers of a block, thread = walker · lanes + lane: each total in
/// one thread.
template <int W, class Take>
__device__ void walkers_sum(double const (&sum)[W], int lanes, Take const& take) {
  __shared__ double sums[W][pack_threads];
  int const thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // who is still reading what was there before
  OURO_UNROLL
  for (int e = 0; e < W; ++e) sums[e][thread] = sum[e];
  __syncthreads();
  for (int n = thread; n < lanes * W; n += pack_threads) {
    int const lane = n % lanes;
    int const e = n / lanes;
    double total = 0;
    for (int other = lane; other < pack_threads; other += lanes) total += sums[e][other];
    take(lane, e, total);
  }
}

}  // namespace ouro::cuda_kernels
