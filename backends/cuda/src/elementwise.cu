// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Elementwise primitives, on operands with any strides.
#include "elementwise.hpp"
#include "functions.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct fill_values {
  static constexpr int in_flight = 4;
  T value;
  __device__ T operator()() const { return value; }
};

struct same_values {
  static constexpr int in_flight = 4;
  using in_pairs = void;  // rows of logits, when they are rounded
  template <class S>
  __device__ S operator()(S x) const {
    return x;
  }
};

template <class T>
struct scale_values {
  static constexpr int in_flight = 4;
  T factor;
  __device__ T operator()(T x) const { return factor * x; }
};

template <class T>
struct map_values {
  static constexpr int in_flight = 1;  // every function is there for every element
  unary f;
  __device__ T operator()(T x) const { return evaluate(f, x); }
};

template <class T>
struct map_slopes {
  static constexpr int in_flight = 1;
  unary f;
  __device__ T operator()(T saved, T dy) const { return derivative(f, saved) * dy; }
};

template <class T>
struct combine_values {
  static constexpr int in_flight = 2;
  binary f;
  __device__ T operator()(T x, T y) const {
    return f == binary::add ? x + y : f == binary::subtract ? x - y : f == binary::multiply ? x * y : x / y;
  }
};

/// Calls f(std::type_identity<S>{}) with what elements of a type are loaded as.
template <class F>
void with_stored(dtype type, F&& f) {
  if (type == dtype::i32) return f(std::type_identity<std::int32_t>{});
  if (type == dtype::u16) return f(std::type_identity<std::uint16_t>{});
  with_inner(type, "elements", f);
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::fill(view v, double value) {
  with_stored(v.type, [&]<class S>(std::type_identity<S>) {
    for_elements<S>("fill", fill_values<real_of<S>>{static_cast<real_of<S>>(value)}, v);
  });
}

void cuda::copy(view to, const_view from, bool accumulate) {
  with_stored(to.type, [&]<class To>(std::type_identity<To>) {
    with_stored(from.type, [&]<class From>(std::type_identity<From>) {
      for_elements<To, From>("copy", same_values{}, {to, accumulate}, from);
    });
  });
}

void cuda::scale(destination y, const_view x, double factor) {
  with_inner(x.type, "scale", [&]<class S>(std::type_identity<S>) {
    for_elements<S, S>("scale", scale_values<real_of<S>>{static_cast<real_of<S>>(factor)}, y, x);
  });
}

void cuda::map(unary f, view y, const_view x) {
  with_inner(x.type, "map",
             [&]<class S>(std::type_identity<S>) { for_elements<S, S>("map", map_values<real_of<S>>{f}, y, x); });
}

void cuda::map_gradient(unary f, destination dx, const_view saved, const_view dy) {
  if (!dx.wanted()) return;
  with_inner(dy.type, "map_gradient", [&]<class S>(std::type_identity<S>) {
    for_elements<S, S, S>("map_gradient", map_slopes<real_of<S>>{f}, dx, saved, dy);
  });
}

void cuda::combine(binary f, destination c, const_view a, const_view b) {
  with_inner(a.type, "combine", [&]<class S>(std::type_identity<S>) {
    for_elements<S, S, S>("combine", combine_values<real_of<S>>{f}, c, a, b);
  });
}

}  // namespace ouro
