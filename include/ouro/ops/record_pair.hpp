// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Recording of operations with two results, such as what a recurrence says and the state it ends in.
#pragma once

#include <utility>

#include <ouro/ops/record.hpp>

namespace ouro {

/// What a recurrence gives: a row for every row, and where it stands after the last.
template <class B>
struct scan_result {
  tensor<B> y;
  tensor<B> state;
};

/// Records (y, state) = op(inputs...) with its vector-Jacobian product `backward(dy, dstate, dx)`, where dstate is
/// absent if nothing depends on the state. The state is a node after y's whose step only leaves its gradient for y's
/// step to find, and makes sure that y's step runs.
template <class B, class F>
scan_result<B> recorded_pair(char const* name, tensor<B> y, tensor<B> state,
                             std::initializer_list<tensor<B> const*> inputs, F&& backward) {
  auto const held = make_owned<boxed<tensor<B>>>();
  y = recorded<B>(name, std::move(y), inputs,
                  [held, run = std::forward<F>(backward)](tensor<B> const& dy, gradients<B>& dx) {
                    tensor<B> const dstate = std::exchange(held->value, {});
                    run(dy, dstate, dx);
                  });
  state = recorded<B>(name, std::move(state), {&y}, [held](tensor<B> const& dstate, gradients<B>& dx) {
    held->value = dstate;
    static_cast<void>(dx.into_zeroed(0));
  });
  return {std::move(y), std::move(state)};
}

/// The tensor itself if its last axis is contiguous (a slice of a packed projection is), else a copy; unwatched.
template <class B>
tensor<B> with_dense_columns(tensor<B> const& x) {
  return x.read().steps[-1] == 1 || x.dim(-1) == 1 ? x.detach() : x.copy();
}

}  // namespace ouro
