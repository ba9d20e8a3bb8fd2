// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Counter-based random numbers: Philox4x32-10, and for the masks of dropouts Philox4x32-7, which passes the same tests
// (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011, table 2). The i-th number of a draw
// depends only on the draw's key and i, so every backend and any number of threads give the same bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ouro {

/// A seed, spelled out where a bare integer would say nothing.
struct seed {
  std::uint64_t value = 0;
};

struct philox {
  using block = std::array<std::uint32_t, 4>;

  static constexpr int rounds = 10;
  static constexpr int mask_rounds = 7;
  /// What is added to the halves of the key from a round to the next.
  static constexpr std::uint32_t steps[2] = {0x9E3779B9U, 0xBB67AE85U};

  static constexpr block counter(std::uint64_t high, std::uint64_t low) {
    return {static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(low >> 32U), static_cast<std::uint32_t>(high),
            static_cast<std::uint32_t>(high >> 32U)};
  }
  static constexpr block round(block const& c, std::uint32_t k0, std::uint32_t k1) {
    std::uint64_t const p0 = 0xD2511F53ULL * c[0];
    std::uint64_t const p1 = 0xCD9E8D57ULL * c[2];
    return {static_cast<std::uint32_t>(p1 >> 32U) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
            static_cast<std::uint32_t>(p0 >> 32U) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
  }
  /// Four random words for a 128-bit counter under a 64-bit key.
  static constexpr block words(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low,
                               int count = rounds) {
    auto k0 = static_cast<std::uint32_t>(key);
    auto k1 = static_cast<std::uint32_t>(key >> 32U);
    block c = counter(counter_high, counter_low);
    for (int r = 0; r < count; ++r) {
      c = round(c, k0, k1);
      k0 += steps[0];
      k1 += steps[1];
    }
    return c;
  }
  /// The same for the masks of dropouts.
  static constexpr block mask_words(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low) {
    return words(key, counter_high, counter_low, mask_rounds);
  }
};

/// One draw: an endless numbered sequence of random numbers, fixed by two words. A value; cheap to copy.
struct random_draw {
  std::uint64_t key = 0;
  std::uint64_t site = 0;

  [[nodiscard]] constexpr std::uint32_t word(std::uint64_t i) const { return philox::words(key, site, i / 4)[i % 4]; }
  /// Uniform in the open interval (0, 1), 32 bits.
  [[nodiscard]] constexpr double uniform(std::uint64_t i) const { return uniform_of(word(i)); }
  [[nodiscard]] static constexpr double uniform_of(std::uint32_t word) { return (word + 0.5) * 0x1p-32; }
};

/// Which elements a dropout keeps, and what the kept ones are multiplied by so that the mean stays. An element is kept if its
/// number, of four, eight, twelve or sixteen bits, reaches the threshold; there are as many bits as say the rate, or what is
/// left of one, to a 500th. The numbers of 32 elements are made together: bit b of word k of their Philox blocks is bit k, from
/// the most significant on, of the number of element b. So one logical operation compares a bit of them all.
struct dropout_mask {
  static constexpr int together = 32;

  int bits = 0;
  std::uint32_t threshold = 0;  ///< 0: all are kept
  double factor = 1;

  constexpr explicit dropout_mask(double rate) {
    double const close = (rate < 0.5 ? rate : 1 - rate) / 500;
    double levels = 1;
    double apart = 0;
    do {
      bits += 4;
      levels *= 16;
      threshold = static_cast<std::uint32_t>(rate * levels + 0.5);
      if (threshold >= levels) threshold = static_cast<std::uint32_t>(levels) - 1;  // a few are left in any case
      apart = threshold / levels - rate;
    } while (bits < 16 && (apart < 0 ? -apart : apart) > close);
    factor = levels / (levels - threshold);
  }
  /// How many groups of elements that are made together a row of this many needs.
  [[nodiscard]] static constexpr std::int64_t groups(std::int64_t elements) {
    return (elements + together - 1) / together;
  }
  /// Bit b says whether element 32 · group + b is kept.
  [[nodiscard]] constexpr std::uint32_t kept(random_draw const& draw, std::uint64_t group) const {
    std::uint32_t kept = ~0U;
    for (int block = bits / 4 - 1; block >= 0; --block) {
      auto const words = philox::mask_words(draw.key, draw.site, 4 * group + static_cast<std::uint64_t>(block));
      for (int k = 3; k >= 0; --k) {
        bool const set = (threshold >> (bits - 1 - (4 * block + k)) & 1U) != 0;
        kept = set ? kept & words[static_cast<std::size_t>(k)] : kept | words[static_cast<std::size_t>(k)];
      }
    }
    return kept;
  }
  [[nodiscard]] constexpr bool keeps(random_draw const& draw, std::uint64_t i) const {
    return (kept(draw, i / together) >> i % together & 1U) != 0;
  }
};

/// A source of draws: the key says whose numbers these are, the counter how many draws were made. This is the part of
/// a state that makes its noise reproducible; saving it and going on continues the same sequence.
struct random_stream {
  std::uint64_t key = 0;
  std::uint64_t counter = 0;

  constexpr random_stream() = default;
  constexpr explicit random_stream(seed s) : key(s.value) {}
  constexpr random_draw next() { return {key, counter++}; }
  /// The next `count` draws as a stream of their own.
  constexpr random_stream reserve(std::uint64_t count) {
    random_stream const own = *this;
    counter += count;
    return own;
  }
  friend constexpr bool operator==(random_stream const&, random_stream const&) = default;
};

}  // namespace ouro
