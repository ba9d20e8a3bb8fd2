// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of a Brain (ouro/concepts/brain.hpp).
#pragma once

#include <ouro/concepts/brain.hpp>
#include <ouro_test/laws/lives.hpp>

namespace ouro_test {

/// `life` has three lanes or more of any content; disturbances and dreams are random, of `rows` rows.
template <class B, class T>
void brain_laws(T const& brain, ouro::state<B> const& life, std::int64_t rows) {
  static_assert(ouro::Brain<T, B>);
  auto const type = life.working.type();
  ouro::shape const dims{life.lanes(), rows, life.working.dim(2)};
  auto const x = noise<B>(dims, type);

  for (bool awake : {true, false}) {
    INFO((awake ? "awake" : "asleep"));
    auto think = [&](ouro::context<B>& cx, ouro::tensor<B> const& d, ouro::state<B> const& s) {
      return awake ? brain(cx, d, seen_of(s), s.hormone) : brain.dream(cx, d, seen_of(s), s.hormone);
    };
    auto list = [](ouro::brain_result<B> const& r) {
      return std::vector<ouro::tensor<B>>{r.thought, r.working, r.self, r.predicted_loss};
    };

    auto given = tensors(life);  // Mem among them
    given.push_back(x);
    check_pure(
        given, [&](auto& cx) { return list(think(cx, x, life)); },
        [&](auto& cx) { return list(think(cx, noise<B>(dims, type), another(life))); });

    ouro::context<B> cx;
    auto const r = think(cx, x, life);
    CHECK(r.working.dims() == life.working.dims());
    CHECK(r.self.dims() == life.self.dims());
    if (awake) CHECK(r.thought.dims() == dims);
    if (r.predicted_loss) CHECK(r.predicted_loss.size() == 1);

    // Lanes share nothing (system/state.hpp): each alone gives the same as among all.
    for (std::int64_t b = 0; b < life.lanes(); ++b) {
      auto const alone = think(cx, lanes_of(x, {b}), lanes_of(life, {b}));
      CHECK(relative_error(alone.working, lanes_of(r.working, {b})) < reordered(type));
      CHECK(relative_error(alone.self, lanes_of(r.self, {b})) < reordered(type));
      if (r.thought) CHECK(relative_error(alone.thought, lanes_of(r.thought, {b})) < reordered(type));
    }
    CHECK(relative_error(lanes_of(r.working, {0}), lanes_of(r.working, {2})) > 1e-2);  // or this would show nothing
  }
}

}  // namespace ouro_test
