// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Dropout with a mask that is computed, never stored.
#pragma once

#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/record.hpp>

namespace ouro {

/// Sets each element to 0 with probability `rate`, divides the others by 1 − rate (Srivastava et al., 2014). The mask
/// is a function of the draw and is computed again for the gradient, never stored. A rate of 0 returns x.
template <Backend B>
tensor<B> dropout(tensor<B> const& x, double rate, random_draw draw) {
  require(rate >= 0 && rate < 1, errc::argument, "dropout", "rate must be in [0, 1), got ", rate);
  require_one_type("dropout", x);
  if (rate == 0) return x;
  auto const flat = packed(x);
  tensor<B> y(x.dims(), x.type());
  B::dropout(y.write(), flat.read(), rate, draw);
  return recorded<B>("dropout", std::move(y), {&x}, [rate, draw](tensor<B> const& dy, gradients<B>& dx) {
    auto const g = packed(dy);
    if (dx.wants(0)) B::dropout(dx.into(0), g.read(), rate, draw);
  });
}

/// x + dropout(y) of one shape: in one pass where the backend has it.
template <Backend B>
tensor<B> add_dropped(tensor<B> const& x, tensor<B> const& y, double rate, random_draw draw) {
  require_one_type("add_dropped", x, {&y});
  if constexpr (AddDroppedBackend<B>)
    if (rate > 0 && rate < 1 && x.dims() == y.dims() && x.contiguous() && y.contiguous() && x.size() > 0) {
      tensor<B> sum(x.dims(), wider(x.type(), y.type()));
      B::add_dropped(sum.write(), x.read(), y.read(), rate, draw);
      return recorded<B>("add_dropped", std::move(sum), {&x, &y}, [rate, draw](tensor<B> const& dy, gradients<B>& dx) {
        auto const g = packed(dy);
        if (dx.wants(1)) B::dropout(dx.into(1), g.read(), rate, draw);
        dx.give(0, g);
      });
    }
  return x + dropout(y, rate, draw);
}

}  // namespace ouro
