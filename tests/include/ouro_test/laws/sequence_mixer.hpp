// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of a SequenceMixer (ouro/concepts/sequence_mixer.hpp).
#pragma once

#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro_test/laws/lives.hpp>

namespace ouro_test {

/// Which rows a mixer looks at: all it may see, or (a recurrence, in the order of the rows) only those before.
enum class looks : bool { at_all, back };

template <class B, class Mixer>
void sequence_mixer_laws(Mixer const& mixer, std::int64_t width, ouro::dtype type, looks where = looks::at_all) {
  using tensor = ouro::tensor<B>;
  static_assert(ouro::SequenceMixer<Mixer, ouro::context<B>, tensor>);
  ouro::context<B> cx;
  double const near = reordered(type);
  auto forward = [&](tensor const& x, ouro::segments s) {
    typename Mixer::carry c;
    return mixer.forward(cx, x, s, c);
  };
  auto rows = [](tensor const& x, std::int64_t from, std::int64_t count) {
    return ouro::slice(x, 1, from, count).copy();
  };

  // Order, and causality as its case without a prefix: put other rows in one by one, and see which rows of y change by
  // a bit. What may not be seen changes nothing; what may, does (rows after itself only if the mixer looks ahead).
  for (ouro::segments s : {ouro::segments{.input = 6},
                           {.mem = 2, .read = 2, .input = 3, .write = 2},
                           {.mem = 3, .read = 1, .input = 4},
                           {.mem = 1, .read = 2, .input = 1, .write = 2}}) {
    auto const total = s.total();
    auto const x = noise<B>({3, total, width}, type);
    auto const y = forward(x, s);
    REQUIRE(y.dims() == x.dims());
    REQUIRE(same_bits(forward(x, s), y));
    for (std::int64_t j = 0; j < total; ++j) {
      auto const z =
          forward(ouro::concat<B>({rows(x, 0, j), noise<B>({3, 1, width}, type), rows(x, j + 1, total - j - 1)}, 1), s);
      for (std::int64_t i = 0; i < total; ++i) {
        INFO("row " << i << " of y, row " << j << " of x, mem " << s.mem << ", read " << s.read << ", input "
                    << s.input);
        bool const depends = !same_bits(rows(z, i, 1), rows(y, i, 1));
        bool const visible = j < s.sees().count(i, total);
        if (!visible) CHECK_FALSE(depends);
        else if (j <= i || where == looks::at_all) CHECK(depends);
      }
    }
    for (s.skip = 1; s.skip < total; ++s.skip) {
      INFO("skip " << s.skip);
      CHECK(relative_error(forward(x, s), rows(y, s.skip, total - s.skip)) < near);
    }
    s.skip = 0;
    for (std::int64_t b = 0; b < 3; ++b) CHECK(relative_error(forward(lanes_of(x, {b}), s), lanes_of(y, {b})) < near);
    CHECK(relative_error(lanes_of(y, {0}), lanes_of(y, {2})) > 1e-2);  // or this would show nothing
  }

  // Step = chunk: a chunk of every length, whatever of it is read, then step by step with its carry; a carry is a value.
  std::int64_t const total = 6;
  auto const x = noise<B>({2, total, width}, type);
  auto const y = forward(x, {.input = total});
  for (std::int64_t split = 0; split <= total; ++split)
    for (std::int64_t skip = 0; skip < std::max<std::int64_t>(split, 1); ++skip) {
      INFO("after " << split << " rows, " << skip << " skipped");
      typename Mixer::carry c;
      if (split > 0)
        CHECK(relative_error(mixer.forward(cx, rows(x, 0, split), {.input = split, .skip = skip}, c),
                             rows(y, skip, split - skip)) < near);
      for (std::int64_t t = split; t < total; ++t) {
        auto fork = c;
        auto const now = mixer.step(cx, rows(x, t, 1), fork);
        CHECK(relative_error(now, rows(y, t, 1)) < near);
        CHECK(same_bits(mixer.step(cx, rows(x, t, 1), c), now));
      }
    }
}

}  // namespace ouro_test
