// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of a Hypothalamus (ouro/concepts/hypothalamus.hpp).
#pragma once

#include <ouro/concepts/hypothalamus.hpp>
#include <ouro_test/laws/lives.hpp>

namespace ouro_test {

/// `life` has three lanes or more of any content; its rows are those of Mem and of State, so of two numbers.
template <class B, class T>
void hypothalamus_laws(T const& gland, ouro::state<B> const& life) {
  static_assert(ouro::Hypothalamus<T, B>);
  for (bool awake : {true, false}) {
    auto secrete = [&](ouro::context<B>& cx, ouro::state<B> const& s) {
      return gland(cx, awake ? s.working : s.mem, s.oscillator, s.hormone);
    };
    check_pure(
        tensors(life), [&](auto& cx) { return secrete(cx, life); },
        [&](auto& cx) { return secrete(cx, another(life)); });

    ouro::context<B> cx;
    ouro::context<B> training{.training = true, .dropout = 0.2};
    auto const y = secrete(cx, life);
    CHECK(y.dims() == life.hormone.dims());
    CHECK(same_bits(secrete(training, life), y));  // "only": not on the context either

    // Lanes share nothing (system/state.hpp): each alone gives the same as among all.
    for (std::int64_t b = 0; b < life.lanes(); ++b)
      CHECK(relative_error(secrete(cx, lanes_of(life, {b})), lanes_of(y, {b})) < reordered(y.type()));
    CHECK(relative_error(lanes_of(y, {0}), lanes_of(y, {2})) > 1e-2);  // or this would show nothing
  }
}

}  // namespace ouro_test
