// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Standard normal numbers of a draw.
#pragma once

#include <cmath>

#include <ouro/meta/host_device.hpp>
#include <ouro/tensor/random.hpp>

namespace ouro {

/// Number i of a draw as a standard normal, by Box and Muller; numbers 2i and 2i + 1 share a pair of words.
[[nodiscard]] OURO_HOST_DEVICE inline double standard_normal(random_draw const& draw, std::uint64_t i) {
  std::uint64_t const pair = i & ~std::uint64_t{1};
  double const radius = std::sqrt(-2.0 * std::log(draw.uniform(pair)));
  double const angle = 6.283185307179586 * draw.uniform(pair + 1);
  return radius * (i == pair ? std::cos(angle) : std::sin(angle));
}

/// Numbers 4b … 4b + 3, which share a block of words.
inline void standard_normals(random_draw const& draw, std::uint64_t b, double (&numbers)[4]) {
  auto const words = philox::words(draw.key, draw.site, b);
  for (std::size_t i = 0; i < 4; i += 2) {
    double const radius = std::sqrt(-2.0 * std::log(random_draw::uniform_of(words[i])));
    double const angle = 6.283185307179586 * random_draw::uniform_of(words[i + 1]);
    numbers[i] = radius * std::cos(angle);
    numbers[i + 1] = radius * std::sin(angle);
  }
}

}  // namespace ouro
