// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Sums, differences, products and quotients with broadcasting (extents agree or one is 1, aligned at the last axis). Of
// f32 and bf16, where the backend takes both, the result is f32.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

namespace detail {

/// Adds dy, summed over the axes along which the input was repeated, to the input's gradient.
template <class B>
void sum_to(gradients<B>& dx, std::size_t input, shape const& dims, const_view dy, double factor) {
  destination d = dx.into(input);
  if (!d.wanted()) return;
  shape padded;
  for (int i = dims.rank(); i < dy.dims.rank(); ++i) padded.push_back(1);
  for (int i = 0; i < dims.rank(); ++i) padded.push_back(dims[i]);
  d.out = d.out.reshape(padded);
  if (padded == dy.dims) {
    B::scale(d, dy, factor);
  } else {
    B::reduce_sum(d, dy, factor);
  }
}

template <class B>
tensor<B> combine(char const* name, binary f, tensor<B> const& a, tensor<B> const& b) {
  require(!b.empty(), errc::argument, name, "an operand is absent");
  require_one_type(name, a, {&b});
  shape const dims = broadcast(a.dims(), b.dims(), name);
  tensor<B> y(dims, wider(a.type(), b.type()));
  B::combine(f, y.write(), a.read().expand(dims), b.read().expand(dims));
  return y;
}

/// A number as an operand beside x.
template <class B>
tensor<B> number_beside(tensor<B> const& x, double c) {
  return tensor<B>::full({1}, x.type(), c);
}

}  // namespace detail

/// a + b.
template <Backend B>
tensor<B> add(tensor<B> const& a, tensor<B> const& b) {
  return recorded<B>("add", detail::combine("add", binary::add, a, b), {&a, &b},
                     [as = a.dims(), bs = b.dims()](tensor<B> const& dy, gradients<B>& dx) {
                       if (as == dy.dims()) dx.give(0, dy);
                       else detail::sum_to(dx, 0, as, dy.read(), 1.0);
                       if (bs == dy.dims()) dx.give(1, dy);
                       else detail::sum_to(dx, 1, bs, dy.read(), 1.0);
                     });
}

/// a − b.
template <Backend B>
tensor<B> subtract(tensor<B> const& a, tensor<B> const& b) {
  return recorded<B>("subtract", detail::combine("subtract", binary::subtract, a, b), {&a, &b},
                     [as = a.dims(), bs = b.dims()](tensor<B> const& dy, gradients<B>& dx) {
                       detail::sum_to(dx, 0, as, dy.read(), 1.0);
                       detail::sum_to(dx, 1, bs, dy.read(), -1.0);
                     });
}

/// a ⊙ b.
template <Backend B>
tensor<B> multiply(tensor<B> const& a, tensor<B> const& b) {
  return recorded<B>("multiply", detail::combine("multiply", binary::multiply, a, b), {&a, &b},
                     [a = a.detach(), b = b.detach()](tensor<B> const& dy, gradients<B>& dx) {
                       auto contribute = [&](std::size_t input, tensor<B> const& own, tensor<B> const& other) {
                         if (!dx.wants(input)) return;
                         if (own.dims() == dy.dims()) {
                           B::combine(binary::multiply, dx.into(input), dy.read(), other.read().expand(dy.dims()));
                         } else {
                           tensor<B> product(dy.dims(), dy.type());
                           B::combine(binary::multiply, product.write(), dy.read(), other.read().expand(dy.dims()));
                           detail::sum_to(dx, input, own.dims(), product.read(), 1.0);
                         }
                       };
                       contribute(0, a, b);
                       contribute(1, b, a);
                     });
}

/// a / b.
template <Backend B>
tensor<B> divide(tensor<B> const& a, tensor<B> const& b) {
  auto y = detail::combine("divide", binary::divide, a, b);
  return recorded<B>("divide", y, {&a, &b},
                     [as = a.dims(), b = b.detach(), y = y.detach()](tensor<B> const& dy, gradients<B>& dx) {
                       tensor<B> da(dy.dims(), dy.type());
                       B::combine(binary::divide, da.write(), dy.read(), b.read().expand(dy.dims()));
                       detail::sum_to(dx, 0, as, da.read(), 1.0);
                       if (!dx.wants(1)) return;
                       B::combine(binary::multiply, da.write(), da.copy().read(), y.read());
                       detail::sum_to(dx, 1, b.dims(), da.read(), -1.0);
                     });
}

/// factor · x.
template <Backend B>
tensor<B> scale(tensor<B> const& x, double factor) {
  require_one_type("scale", x);
  tensor<B> y(x.dims(), x.type());
  B::scale(y.write(), x.read(), factor);
  return recorded<B>("scale", std::move(y), {&x},
                     [factor](tensor<B> const& dy, gradients<B>& dx) { B::scale(dx.into(0), dy.read(), factor); });
}

template <Backend B>
tensor<B> operator+(tensor<B> const& a, tensor<B> const& b) {
  return add(a, b);
}
template <Backend B>
tensor<B> operator-(tensor<B> const& a, tensor<B> const& b) {
  return subtract(a, b);
}
template <Backend B>
tensor<B> operator*(tensor<B> const& a, tensor<B> const& b) {
  return multiply(a, b);
}
template <Backend B>
tensor<B> operator/(tensor<B> const& a, tensor<B> const& b) {
  return divide(a, b);
}
template <Backend B>
tensor<B> operator*(double factor, tensor<B> const& x) {
  return scale(x, factor);
}
template <Backend B>
tensor<B> operator*(tensor<B> const& x, double factor) {
  return scale(x, factor);
}
template <Backend B>
tensor<B> operator-(tensor<B> const& x) {
  return scale(x, -1.0);
}
template <Backend B>
tensor<B> operator+(tensor<B> const& x, double c) {
  return add(x, detail::number_beside(x, c));
}
template <Backend B>
tensor<B> operator+(double c, tensor<B> const& x) {
  return add(x, detail::number_beside(x, c));
}
template <Backend B>
tensor<B> operator-(tensor<B> const& x, double c) {
  return subtract(x, detail::number_beside(x, c));
}
template <Backend B>
tensor<B> operator-(double c, tensor<B> const& x) {
  return subtract(detail::number_beside(x, c), x);
}
template <Backend B>
tensor<B> operator/(tensor<B> const& x, double c) {
  return divide(x, detail::number_beside(x, c));
}
template <Backend B>
tensor<B> operator/(double c, tensor<B> const& x) {
  return divide(detail::number_beside(x, c), x);
}

}  // namespace ouro
