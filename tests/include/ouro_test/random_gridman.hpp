// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Networks drawn at random: of any sizes, brains and row policies.
#pragma once

#include <string>

#include <ouro/life/config_text.hpp>
#include <ouro/nn/mixers/hybrid.hpp>
#include <ouro_test/dice.hpp>
#include <ouro_test/small_gridman.hpp>

namespace ouro_test {

template <class B>
using any_network = ouro::gridman<B, ouro::hybrid>;

/// A network of some width, or of one that kernels for tensor cores take.
inline ouro::gridman_config any_config(dice& d, bool round) {
  ouro::gridman_config c;
  c.heads = d.between(1, round ? 2 : 4);
  c.width = round ? 16 * c.heads * d.between(1, 2) : 4 * c.heads * d.between((c.heads + 2) / c.heads, 8 / c.heads + 1);
  c.sensor_layers = d.between(1, 2), c.brain_layers = d.between(1, 3), c.actor_layers = d.between(1, 2);
  c.patch = d.between(5, 12), c.chunk = d.between(1, 6);
  c.state_rows = d.between(1, 6), c.memory_rows = d.between(1, 9), c.anchors = d.between(1, 3);
  c.wake = d.between(1, 3), c.sleep = d.between(0, 2), c.bptt = d.between(1, 3);
  c.dropout = d.chance(50) ? 0.2 : 0.0;
  if (d.chance(30)) c.oscillator_noise = c.sleep_noise = 0;
  for (auto flag : {&ouro::gridman_config::parallel_write, &ouro::gridman_config::reset_read,
                    &ouro::gridman_config::reset_input, &ouro::gridman_config::reset_write,
                    &ouro::gridman_config::two_way_prefix, &ouro::gridman_config::ignored_bytes_as_zero})
    c.*flag = d.chance(25);
  std::string mixers;
  for (std::int64_t i = 0; i < c.sensor_layers + c.brain_layers; ++i) {
    if (i == c.sensor_layers) mixers += " |";
    constexpr char const* kinds[] = {" attention", " rwkv7", " mamba2"};
    mixers += kinds[d.below(3)];
  }
  return c.layers(mixers);
}

/// The same as text, for messages.
inline std::string described(std::uint64_t key, bool round) {
  dice d(key);
  return ouro::to_text(any_config(d, round));
}

}  // namespace ouro_test
