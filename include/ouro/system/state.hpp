// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Everything of a life that persists from step to step, as one value. It is passed in and returned; nothing of it
// hides anywhere else.
#pragma once

#include <optional>
#include <vector>

#include <ouro/meta/module.hpp>
#include <ouro/tensor/random.hpp>
#include <ouro/tensor/tensor.hpp>

namespace ouro {

/// B lanes are B lives side by side; they share the clock and the random stream, nothing else.
template <class B>
struct state {
  using backend = B;
  tensor<B> mem;                     // (B,M,D) long-term
  tensor<B> working;                 // (B,R,D) short-term: the State of the theory
  std::optional<tensor<B>> thought;  // (B,≥1,D) the last step's brain output
  tensor<B> oscillator;              // (B,2)
  tensor<B> hormone;                 // (B,1,D/4)
  tensor<B> self;                    // (B,1,D)
  std::int64_t clock = 0;            // steps lived
  random_stream random;              // the noise of the dynamics
  OURO_MODULE(state, mem, working, thought, oscillator, hormone, self, clock, random);

  /// Errors (argument): it is empty.
  [[nodiscard]] std::int64_t lanes() const {
    require(!mem.empty(), errc::argument, "state", "it is empty: the first one is a newborn's");
    return mem.dim(0);
  }

  /// f(name, tensor) for all that there are.
  template <class F>
  void for_each_tensor(F&& f) const {
    meta::for_each_member(*this, [&](char const* name, auto const& member) {
      if constexpr (requires { member.dims(); }) f(name, member);
      else if constexpr (requires { member->dims(); })
        if (member) f(name, *member);
    });
  }
  /// Its tensors; an absent thought is an absent tensor.
  [[nodiscard]] std::vector<tensor<B>> tensors() const {
    return {mem, working, oscillator, hormone, self, thought ? *thought : tensor<B>()};
  }
  /// The same values, seen by no tape: what is carried into the next update.
  [[nodiscard]] state detach() const {
    state s = *this;
    for (auto* t : {&s.mem, &s.working, &s.oscillator, &s.hormone, &s.self}) *t = t->detach();
    if (s.thought) s.thought = s.thought->detach();
    return s;
  }
};

}  // namespace ouro
