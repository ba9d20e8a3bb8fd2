// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of a Hippocampus (ouro/concepts/hippocampus.hpp).
#pragma once

#include <ouro/concepts/hippocampus.hpp>
#include <ouro_test/laws/lives.hpp>

namespace ouro_test {

/// `life` is of any content and any number of lanes.
template <class B, class T>
void hippocampus_laws(T const& hippocampus, ouro::state<B> const& life) {
  static_assert(ouro::Hippocampus<T, B>);
  for (bool dreams : {true, false}) {
    INFO((dreams ? "inception" : "consolidate"));
    // What comes out, and the stream behind it.
    auto sleep = [&](ouro::context<B>& cx, ouro::state<B> const& s, std::uint64_t seed) {
      ouro::random_stream random{ouro::seed{seed}};
      std::vector<ouro::tensor<B>> out;
      if (dreams) {
        out = {hippocampus.inception(cx, s.mem, s.working, s.oscillator, random)};
      } else {
        auto e = hippocampus.consolidate(cx, s.mem, s.working, random);
        out = {e.mem, e.working};
      }
      return std::pair(out, random);
    };

    check_pure(
        tensors(life), [&](auto& cx) { return sleep(cx, life, 1); },
        [&](auto& cx) { return sleep(cx, another(life), 2); });

    ouro::context<B> cx;
    auto const r = sleep(cx, life, 1);
    if (dreams) {
      REQUIRE(r.first[0].rank() == 3);  // (B,L,D)
      CHECK(r.first[0].dim(0) == life.lanes());
      CHECK(r.first[0].dim(2) == life.mem.dim(2));
    } else {
      CHECK(r.first[0].dims() == life.mem.dims());
      CHECK(r.first[1].dims() == life.working.dims());
    }

    // Noise comes from the stream only, not from dropout's; and it moves on, or the next sleep would have the same.
    ouro::context<B> masked{.masks = ouro::random_stream(ouro::seed{5})};
    CHECK(same_bits(sleep(masked, life, 1), r));
    CHECK((same_bits(sleep(cx, life, 2).first, r.first) || r.second.counter > 0));
  }
}

}  // namespace ouro_test
