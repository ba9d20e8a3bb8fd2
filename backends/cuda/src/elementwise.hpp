// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Functions of elements, on operands with any strides: in packs of neighbours where the innermost axis is dense in every
// operand (or an operand repeats one element along it), else one by one.
#pragma once

#include <tuple>

#include "layout.hpp"
#include "packs.hpp"

namespace ouro::cuda_kernels {

/// What a value of S is added to one of T in: what both are computed in, else f64.
template <class T, class S>
using sum_of = std::conditional_t<std::is_same_v<real_of<T>, real_of<S>>, real_of<T>, double>;

/// y (+)= f(x...). F says in `in_flight` how many packs a thread loads before it computes, and by `in_pairs` that it is worth
/// a kernel for pairs, where larger packs do not fit.
template <class F, class To, class... From>
struct elementwise {
  static constexpr int in_flight = F::in_flight;
  static constexpr int operands = 1 + static_cast<int>(sizeof...(From));
  static constexpr auto inputs = std::make_index_sequence<sizeof...(From)>{};

  F f;
  elements<To, void> to;
  std::tuple<elements<From, void const>...> from;
  bool accumulate;

  /// What there is to compute a pack from.
  template <int W>
  struct loaded {
    index at = 0;
    int count = 0;
    typename elements<To, void>::template raw<W> before;
    std::tuple<typename elements<From, void const>::template raw<W>...> x;
  };

  /// Pack number i of rows that are `row` long.
  template <int W, std::size_t... n>
  __device__ loaded<W> load_pack(layout<operands> const& l, index i, index row, std::index_sequence<n...>) const {
    index at[operands];
    index const rest = row - l.locate(i, at) * W;
    loaded<W> p;
    p.at = at[0];
    p.count = rest < W ? static_cast<int>(rest) : W;
    if (accumulate) p.before = to.template load_raw<W>(p.at, p.count);
    ((std::get<n>(p.x) = std::get<n>(from).template load_raw<W>(at[n + 1], p.count, l.innermost(n + 1) == 0)), ...);
    return p;
  }

  template <int W, std::size_t... n>
  __device__ void store_pack(loaded<W> const& p, std::index_sequence<n...>) const {
    using real = real_of<To>;
    std::tuple<pack<real_of<From>, W>...> const x{std::get<n>(from).template reals<W>(std::get<n>(p.x))...};
    auto const before = to.template reals<W>(p.before);
    pack<real, W> y;
    OURO_UNROLL
    for (int e = 0; e < W; ++e) {
      auto const value = f(std::get<n>(x).values[e]...);
      using sum = sum_of<real, std::remove_const_t<decltype(value)>>;
      y.values[e] = accumulate ? static_cast<real>(static_cast<sum>(before.values[e]) + static_cast<sum>(value))
                               : static_cast<real>(value);
    }
    to.template store_reals<W>(p.at, y, p.count);
  }
};

template <int W, class E>
__global__ void elementwise_kernel(layout<E::operands> packs, index row, E e) {
  constexpr int in_flight = E::in_flight;
  typename E::template loaded<W> p[in_flight];
  OURO_UNROLL
  for (int u = 0; u < in_flight; ++u) {
    index const i = thread_number() + u * thread_count();
    if (i < packs.size) p[u] = e.template load_pack<W>(packs, i, row, E::inputs);
  }
  OURO_UNROLL
  for (int u = 0; u < in_flight; ++u)
    if (thread_number() + u * thread_count() < packs.size) e.store_pack(p[u], E::inputs);
}

template <int W, class E>
void launch_elementwise(char const* name, layout<E::operands> const& l, E const& e) {
  auto const packs = l.in_packs(W);
  // A pack for each thread that can be there at once; where there are more, several.
  index const resident = busy_blocks() * (each_threads / 2);
  index const each = divide_up(packs.size, E::in_flight);
  index const threads = packs.size < resident ? packs.size : each < resident ? resident : each;
  launch(name, elementwise_kernel<W, E>, divide_up(threads, each_threads), each_threads, 0, packs, l.row(), e);
}

/// y (+)= f(x...) with elements of these types, which are those of the views or `inner`.
template <class To, class... From, class F, class... View>
void for_elements(char const* name, F const& f, destination const& y, View const&... x) {
  using call = elementwise<F, To, From...>;
  if (y.out.size() > most_located) {
    cut const halves(y.out.dims);
    for_elements<To, From...>(name, f, {halves.front(y.out), y.accumulate}, halves.front(x)...);
    for_elements<To, From...>(name, f, {halves.rest(y.out), y.accumulate}, halves.rest(x)...);
    return;
  }
  layout<call::operands> const l(y.out.dims, {&y.out.steps, &x.steps...});
  call const e{f, elements<To, void>(y.out), {elements<From, void const>(x)...}, y.accumulate};
  constexpr int width = pack_width<To, From...>;
  auto fit = [&](int together) {
    auto fits = [&](int n, auto const& operand) { return l.dense(n, together) && operand.aligned(together); };
    int n = 0;
    return fits(n, e.to) && ((++n, l.innermost(n) == 0 || fits(n, elements<From, void const>(x))) && ...);
  };
  if (fit(width)) return launch_elementwise<width>(name, l, e);
  if constexpr (width > 2 && requires { typename F::in_pairs; })
    if (fit(2)) return launch_elementwise<2>(name, l, e);
  launch_elementwise<1>(name, l, e);
}

}  // namespace ouro::cuda_kernels
