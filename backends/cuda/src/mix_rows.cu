// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Rows mixed with those before them by several shares, and the gradient: each in one pass over the rows, the sums over them
// by parts.
#include "layout.hpp"
#include "packs.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

constexpr int most_shares = 8;  // whose sums a thread keeps

template <int W, class S>
struct mix_values {
  using real = real_of<S>;
  elements<S, void> y;
  elements<S, void const> x, before;
  real const* shares;
  index packs, across;  // in all, and in a row
  int count;
  __device__ void operator()(index number) const {
    index const at = number * W;
    index const column = number % across * W;
    auto const a = x.template reals<W>(x.template load_raw<W>(at));
    auto const b = before.template reals<W>(before.template load_raw<W>(at));
    for (int q = 0; q < count; ++q) {
      auto const share = load<W>(shares + q * across * W + column);
      pack<real, W> mixed;
      OURO_UNROLL
      for (int e = 0; e < W; ++e) mixed.values[e] = a.values[e] + (b.values[e] - a.values[e]) * share.values[e];
      y.template store_reals<W>(q * packs * W + at, mixed);
    }
  }
};

/// What a destination gets; absent: nothing.
template <class S>
struct mix_target {
  elements<S, void> to;
  bool wanted, adds;

  template <int W>
  __device__ void put_pack(index at, pack<real_of<S>, W> x) const {
    if (!wanted) return;
    if (adds) {
      auto const old = to.template reals<W>(to.template load_raw<W>(at));
      OURO_UNROLL
      for (int e = 0; e < W; ++e) x.values[e] += old.values[e];
    }
    to.template store_reals<W>(at, x);
  }
};
template <class S>
mix_target<S> target_of(destination const& d) {
  if (d.wanted()) return {elements<S, void>(d.out), true, d.accumulate};
  if constexpr (std::is_same_v<S, inner>) return {elements<S, void>(nullptr, false), false, false};
  else return {elements<S, void>(nullptr), false, false};
}

/// Neighbouring threads take neighbouring packs of columns, `team` of them; a block has a part of the rows of a tile of
/// columns. Its sums go to part (parts,Q,D).
template <int W, class S>
struct mix_slopes {
  using real = real_of<S>;
  elements<S, void const> x, before, dy;
  real const* shares;
  mix_target<S> dx, dbefore;
  real* part;  // absent: the shares want no gradient
  index rows, across;
  int count, team, parts;
};
template <int W, class S>
__global__ void __launch_bounds__(pack_threads) mix_slopes_kernel(mix_slopes<W, S> p) {
  using real = real_of<S>;
  index const tile = blockIdx.x / static_cast<unsigned>(p.parts);
  index const number = blockIdx.x % static_cast<unsigned>(p.parts);
  int const walkers = pack_threads / p.team;
  index const pack_column = tile * p.team + static_cast<int>(threadIdx.x) % p.team;
  bool const mine = pack_column < p.across;
  index const end = p.rows * (number + 1) / p.parts;
  pack<real, W> share[most_shares];
  real sum[most_shares][W] = {};
  OURO_UNROLL
  for (int q = 0; q < most_shares; ++q)
    if (mine && q < p.count) share[q] = load<W>(p.shares + (q * p.across + pack_column) * W);
  index const first = p.rows * number / p.parts + static_cast<int>(threadIdx.x) / p.team;
  for (index row = first; mine && row < end; row += walkers) {
    index const at = (row * p.across + pack_column) * W;
    auto const raw_x = p.x.template load_raw<W>(at);
    auto const raw_before = p.before.template load_raw<W>(at);
    typename elements<S, void const>::template raw<W> raw_dy[most_shares];
    OURO_UNROLL
    for (int q = 0; q < most_shares; ++q)
      if (q < p.count) raw_dy[q] = p.dy.template load_raw<W>(q * p.rows * p.across * W + at);
    auto const a = p.x.template reals<W>(raw_x);
    auto const b = p.before.template reals<W>(raw_before);
    pack<real, W> to_x;
    pack<real, W> to_before;
    OURO_UNROLL
    for (int q = 0; q < most_shares; ++q) {
      if (q >= p.count) continue;
      auto const g = p.dy.template reals<W>(raw_dy[q]);
      OURO_UNROLL
      for (int e = 0; e < W; ++e) {
        real const back = g.values[e] * share[q].values[e];
        to_before.values[e] += back;
        to_x.values[e] += g.values[e] - back;
        sum[q][e] += g.values[e] * (b.values[e] - a.values[e]);
      }
    }
    p.dx.template put_pack<W>(at, to_x);
    p.dbefore.template put_pack<W>(at, to_before);
  }
  if (p.part == nullptr) return;
  OURO_UNROLL
  for (int q = 0; q < most_shares; ++q) {
    if (q >= p.count) continue;
    double wide[W];
    OURO_UNROLL
    for (int e = 0; e < W; ++e) wide[e] = static_cast<double>(sum[q][e]);
    walkers_sum(wide, p.team, [&](int lane, int e, double total) {
      index const column = tile * p.team + lane;
      if (column < p.across) p.part[((number * p.count + q) * p.across + column) * W + e] = static_cast<real>(total);
    });
  }
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::mix_rows(view y, const_view x, const_view before, const_view shares) {
  if (y.size() == 0) return;
  with_inner(x.type, "mix_rows", [&]<class S>(std::type_identity<S>) {
    using real = real_of<S>;
    elements<S, void> const to(y);
    elements<S, void const> const a(x), b(before);
    auto const* share = shares.as<real>();
    index const columns = shares.dims[1];
    constexpr int width = pack_width<S>;
    bool const packed =
        columns % width == 0 && to.aligned(width) && a.aligned(width) && b.aligned(width) && aligned_for(share, width);
    with_width<S>(packed, [&]<int W>(width_of<W>) {
      index const packs = x.size() / W;
      for_count("mix_rows", packs,
                mix_values<W, S>{to, a, b, share, packs, columns / W, static_cast<int>(shares.dims[0])});
    });
  });
}

void cuda::mix_rows_gradient(destination dx, destination dbefore, destination dshares, const_view x, const_view before,
                             const_view shares, const_view dy) {
  constexpr auto name = "mix_rows_gradient";
  require(shares.dims[0] <= most_shares, errc::shape, name, "up to 8 shares, got ", shares.dims[0]);
  index const columns = shares.dims[1];
  if (x.size() == 0) {
    if (dshares.wanted() && !dshares.accumulate) fill(dshares.out, 0.0);
    return;
  }
  with_inner(x.type, name, [&]<class S>(std::type_identity<S>) {
    using real = real_of<S>;
    mix_target<S> const to_x = target_of<S>(dx), to_before = target_of<S>(dbefore);
    elements<S, void const> const a(x), b(before), g(dy);
    auto const* share = shares.as<real>();
    constexpr int width = pack_width<S>;
    bool const packed = columns % width == 0 && to_x.to.aligned(width) && to_before.to.aligned(width) &&
                        a.aligned(width) && b.aligned(width) && g.aligned(width) && aligned_for(share, width);
    with_width<S>(packed, [&]<int W>(width_of<W>) {
      mix_slopes<W, S> p{a,           b,
                         g,           share,
                         to_x,        to_before,
                         nullptr,     x.size() / columns,
                         columns / W, static_cast<int>(shares.dims[0]),
                         warp_size,   1};
      while (p.team > 1 && p.team / 2 >= p.across) p.team /= 2;
      constexpr index rows_each = 8;
      index const tiles = divide_up(p.across, p.team);
      index const most = divide_up(p.rows, rows_each * (pack_threads / p.team));
      p.parts = static_cast<int>(most * tiles <= busy_blocks() ? most : divide_up(busy_blocks(), tiles));
      device_array<real> const part(dshares.wanted() ? p.parts * shares.size() : 0);
      if (dshares.wanted()) p.part = part.data();
      launch(name, mix_slopes_kernel<W, S>, tiles * p.parts, pack_threads, 0, p);
      if (dshares.wanted())
        reduce_sum({dshares.out.reshape({1, shares.size()}), dshares.accumulate},
                   const_view(part.data(), shares.type, {p.parts, shares.size()}), 1.0);
    });
  });
}

}  // namespace ouro
