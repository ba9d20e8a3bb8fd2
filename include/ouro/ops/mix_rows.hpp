// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Rows mixed with those before them, several times by different shares: what an RWKV layer feeds its maps.
#pragma once

#include <vector>

#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/record.hpp>

namespace ouro {

/// y_q = x + (before − x) ⊙ share_q for each of the shares, in one pass where the backend has it: x and before (…,D), shares
/// (Q,D) → Q tensors (…,D) of the type of x. x and before may be bf16 where shares are f32, if the
/// backend takes it.
template <Backend B>
std::vector<tensor<B>> mix_rows(tensor<B> const& x, tensor<B> const& before, tensor<B> const& shares) {
  require(x.rank() >= 1 && x.dims() == before.dims() && shares.rank() == 2 && shares.dim(1) == x.dim(-1), errc::shape,
          "mix_rows", "needs x and before (...,D) and shares (Q,D), got ", x.dims(), ", ", before.dims(), " and ",
          shares.dims());
  dtype const in = computed_in(x.type());
  require(is_real(in) && computed_in(before.type()) == in && shares.type() == in, errc::shape, "mix_rows",
          "dtypes must agree and be real, got ", name_of(x.type()), ", ", name_of(before.type()), " and ",
          name_of(shares.type()));
  std::vector<tensor<B>> mixed;
  if constexpr (MixBackend<B>) {
    auto const a = packed(x), b = packed(before), s = packed(shares);
    shape dims{shares.dim(0)};
    for (int i = 0; i < x.rank(); ++i) dims.push_back(x.dim(i));
    tensor<B> y(dims, x.type());
    B::mix_rows(y.write(), a.read(), b.read(), s.read());
    auto const all =
        recorded<B>("mix_rows", std::move(y), {&x, &before, &shares},
                    [a = a.detach(), b = b.detach(), s = s.detach()](tensor<B> const& dy, gradients<B>& dx) {
                      auto const g = packed(dy);
                      B::mix_rows_gradient(dx.into(0), dx.into(1), dx.into(2), a.read(), b.read(), s.read(), g.read());
                    });
    for (std::int64_t q = 0; q < shares.dim(0); ++q) mixed.push_back(reshape(slice(all, 0, q, 1), x.dims()));
  } else {
    auto const back = before - x;
    for (std::int64_t q = 0; q < shares.dim(0); ++q)
      mixed.push_back(copied(x + back * reshape(slice(shares, 0, q, 1), {x.dim(-1)}), x.type()));
  }
  return mixed;
}

}  // namespace ouro
