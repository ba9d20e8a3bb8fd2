// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Sums and means over one axis or over everything.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

namespace detail {
template <class B>
tensor<B> reduce(char const* name, tensor<B> const& x, shape const& dims, double factor) {
  require_one_type(name, x);
  tensor<B> y(dims, x.type());
  B::reduce_sum(y.write(), x.read(), factor);
  return recorded<B>(name, std::move(y), {&x}, [factor](tensor<B> const& dy, gradients<B>& dx) {
    auto d = dx.into(0);
    if (d.wanted()) B::scale(d, dy.read().expand(d.out.dims), factor);
  });
}
inline shape ones(shape dims) {
  for (int i = 0; i < dims.rank(); ++i) dims[i] = 1;
  return dims;
}
}  // namespace detail

/// The sum over one axis, which keeps its place with extent 1: (…,N,…) → (…,1,…).
template <Backend B>
tensor<B> sum(tensor<B> const& x, int axis) {
  axis = axis_of(x.dims(), axis, "sum");
  return detail::reduce("sum", x, x.dims().with(axis, 1), 1.0);
}
/// The mean over one axis, which keeps its place with extent 1.
template <Backend B>
tensor<B> mean(tensor<B> const& x, int axis) {
  axis = axis_of(x.dims(), axis, "mean");
  require(x.dim(axis) > 0, errc::shape, "mean", "the axis must not be empty, got ", x.dims());
  return detail::reduce("mean", x, x.dims().with(axis, 1), 1.0 / static_cast<double>(x.dim(axis)));
}
/// The sum of all elements, every extent 1.
template <Backend B>
tensor<B> sum(tensor<B> const& x) {
  return detail::reduce("sum", x, detail::ones(x.dims()), 1.0);
}
/// The mean of all elements, every extent 1.
template <Backend B>
tensor<B> mean(tensor<B> const& x) {
  require(x.size() > 0, errc::shape, "mean", "needs at least one element, got ", x.dims());
  return detail::reduce("mean", x, detail::ones(x.dims()), 1.0 / static_cast<double>(x.size()));
}

}  // namespace ouro
