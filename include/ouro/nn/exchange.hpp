// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The values the five components hand to each other.
#pragma once

#include <ouro/tensor/tensor.hpp>

namespace ouro {

/// The part of a state that Sensor and Brain read.
template <class B>
struct state_view {
  tensor<B> const& mem;      // (B,M,D)
  tensor<B> const& working;  // (B,R,D)
  tensor<B> const& self;     // (B,1,D)
};

/// What a Brain makes of one step.
template <class B>
struct brain_result {
  tensor<B> thought;         // (B,L,D); absent asleep
  tensor<B> working;         // (B,R,D)
  tensor<B> self;            // (B,1,D)
  tensor<B> predicted_loss;  // (1); absent asleep, or for a Brain that predicts none
};

/// What an Actor acts on.
template <class B>
struct impression {
  tensor<B> now;             // (B,S,D) this step's thought
  tensor<B> before;          // (B,1,D) the last row of the step before; absent in a newborn
  tensor<B> hormone;         // (B,1,W)
  tensor<B> predicted_loss;  // (1) or absent
};

/// The mean loss over what counts. Nothing counts: live is 0 and value absent.
template <class B>
struct actor_loss {
  tensor<B> value;  // (1)
  std::int64_t live = 0;
};

}  // namespace ouro
