// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Standard normal numbers of a draw.
#pragma once

#include <cmath>

#include <ouro/meta/host_device.hpp>
#include <ouro/tensor/random.hpp>

namespace ouro {

struct normal_pair {
  double first;
  double second;
};
/// Two standard normals from two random words (Box and Muller, "A note on the generation of random normal deviates", 1958).
[[nodiscard]] OURO_HOST_DEVICE inline normal_pair box_muller(std::uint32_t first, std::uint32_t second) {
  double const radius = std::sqrt(-2.0 * std::log(random_draw::uniform_of(first)));
  double const angle = 6.283185307179586 * random_draw::uniform_of(second);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

/// Number i of a draw as a standard normal; numbers 2i and 2i + 1 share a pair of words.
[[nodiscard]] OURO_HOST_DEVICE inline double standard_normal(random_draw const& draw, std::uint64_t i) {
  std::uint64_t const even = i & ~std::uint64_t{1};
  auto const pair = box_muller(draw.word(even), draw.word(even + 1));
  return i == even ? pair.first : pair.second;
}

}  // namespace ouro
