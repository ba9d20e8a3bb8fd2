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

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::fill(view v, double value) {
  with_any(v.type, [&]<class T>(std::type_identity<T>) {
    for_elements<T>("fill", fill_values<real_of<T>>{static_cast<real_of<T>>(value)}, v);
  });
}

void cuda::copy(view to, const_view from, bool accumulate) {
  with_any(to.type, [&]<class T>(std::type_identity<T>) {
    with_any(from.type, [&]<class S>(std::type_identity<S>) {
      for_elements<T, S>("copy", same_values{}, {to, accumulate}, from);
    });
  });
}

void cuda::scale(destination y, const_view x, double factor) {
  with_real(x.type, "scale", [&]<class T>(std::type_identity<T>) {
    for_elements<T, T>("scale", scale_values<T>{static_cast<T>(factor)}, y, x);
  });
}

void cuda::map(unary f, view y, const_view x) {
  with_real(x.type, "map", [&]<class T>(std::type_identity<T>) { for_elements<T, T>("map", map_values<T>{f}, y, x); });
}

void cuda::map_gradient(unary f, destination dx, const_view saved, const_view dy) {
  if (!dx.wanted()) return;
  with_real(dy.type, "map_gradient", [&]<class T>(std::type_identity<T>) {
    for_elements<T, T, T>("map_gradient", map_slopes<T>{f}, dx, saved, dy);
  });
}

void cuda::combine(binary f, destination c, const_view a, const_view b) {
  with_real(a.type, "combine",
            [&]<class T>(std::type_identity<T>) { for_elements<T, T, T>("combine", combine_values<T>{f}, c, a, b); });
}

}  // namespace ouro
