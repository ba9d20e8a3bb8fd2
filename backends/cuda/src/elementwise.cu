// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Elementwise primitives, on operands with any strides.
#include "functions.hpp"
#include "layout.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct fill_values {
  T* y;
  T value;
  __device__ void operator()(index const (&at)[1]) const { y[at[0]] = value; }
};

template <class T, class S>
struct copy_values {
  T* y;
  S const* x;
  bool accumulate;
  __device__ void operator()(index const (&at)[2]) const {
    S const value = x[at[1]];
    T& to = y[at[0]];
    to = accumulate ? static_cast<T>(static_cast<double>(to) + static_cast<double>(value)) : static_cast<T>(value);
  }
};

template <class T>
struct scale_values {
  T* y;
  T const* x;
  T factor;
  bool accumulate;
  __device__ void operator()(index const (&at)[2]) const { put(y[at[0]], factor * x[at[1]], accumulate); }
};

template <class T>
struct map_values {
  unary f;
  T* y;
  T const* x;
  __device__ void operator()(index const (&at)[2]) const { y[at[0]] = evaluate(f, x[at[1]]); }
};

template <class T>
struct map_slopes {
  unary f;
  T* dx;
  T const* saved;
  T const* dy;
  bool accumulate;
  __device__ void operator()(index const (&at)[3]) const {
    put(dx[at[0]], derivative(f, saved[at[1]]) * dy[at[2]], accumulate);
  }
};

template <class T>
struct combine_values {
  binary f;
  T* c;
  T const* a;
  T const* b;
  bool accumulate;
  __device__ void operator()(index const (&at)[3]) const {
    T const x = a[at[1]];
    T const y = b[at[2]];
    T const r = f == binary::add ? x + y : f == binary::subtract ? x - y : f == binary::multiply ? x * y : x / y;
    put(c[at[0]], r, accumulate);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::fill(view v, double value) {
  layout<1> const l(v.dims, {&v.steps});
  with_any(v.type, [&]<class T>(std::type_identity<T>) {
    for_each("fill", l, fill_values<T>{v.as<T>(), static_cast<T>(value)});
  });
}

void cuda::copy(view to, const_view from, bool accumulate) {
  layout<2> const l(to.dims, {&to.steps, &from.steps});
  with_any(to.type, [&]<class T>(std::type_identity<T>) {
    with_any(from.type, [&]<class S>(std::type_identity<S>) {
      for_each("copy", l, copy_values<T, S>{to.as<T>(), from.as<S>(), accumulate});
    });
  });
}

void cuda::scale(destination y, const_view x, double factor) {
  layout<2> const l(y.out.dims, {&y.out.steps, &x.steps});
  with_real(x.type, "scale", [&]<class T>(std::type_identity<T>) {
    for_each("scale", l, scale_values<T>{y.out.as<T>(), x.as<T>(), static_cast<T>(factor), y.accumulate});
  });
}

void cuda::map(unary f, view y, const_view x) {
  layout<2> const l(y.dims, {&y.steps, &x.steps});
  with_real(x.type, "map", [&]<class T>(std::type_identity<T>) {
    for_each("map", l, map_values<T>{f, y.as<T>(), x.as<T>()});
  });
}

void cuda::map_gradient(unary f, destination dx, const_view saved, const_view dy) {
  if (!dx.wanted()) return;
  layout<3> const l(dy.dims, {&dx.out.steps, &saved.steps, &dy.steps});
  with_real(dy.type, "map_gradient", [&]<class T>(std::type_identity<T>) {
    for_each("map_gradient", l, map_slopes<T>{f, dx.out.as<T>(), saved.as<T>(), dy.as<T>(), dx.accumulate});
  });
}

void cuda::combine(binary f, destination c, const_view a, const_view b) {
  layout<3> const l(c.out.dims, {&c.out.steps, &a.steps, &b.steps});
  with_real(a.type, "combine", [&]<class T>(std::type_identity<T>) {
    for_each("combine", l, combine_values<T>{f, c.out.as<T>(), a.as<T>(), b.as<T>(), c.accumulate});
  });
}

}  // namespace ouro
