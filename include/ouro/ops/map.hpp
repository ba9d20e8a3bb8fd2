// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The common form of elementwise functions: y_i = f(x_i), dx_i = f'(x_i) dy_i. Any shape; f64, f32, or bf16 where the backend
// takes it.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

template <Backend B>
tensor<B> map(char const* name, unary f, tensor<B> const& x) {
  require_one_type(name, x);
  tensor<B> y(x.dims(), x.type());
  B::map(f, y.write(), x.read());
  auto saved = gradient_from_result(f) ? y.detach() : x.detach();
  return recorded<B>(name, std::move(y), {&x}, [f, saved = std::move(saved)](tensor<B> const& dy, gradients<B>& dx) {
    B::map_gradient(f, dx.into(0), saved.read(), dy.read());
  });
}

}  // namespace ouro
