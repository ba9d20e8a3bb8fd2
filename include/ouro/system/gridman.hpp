// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Gridman: the reference assembly of the five components.
#pragma once

#include <ouro/actor/byte_actor.hpp>
#include <ouro/brain/state_brain.hpp>
#include <ouro/hippocampus/hippocampus.hpp>
#include <ouro/hypothalamus/hypothalamus.hpp>
#include <ouro/sensor/byte_sensor.hpp>
#include <ouro/system/config.hpp>
#include <ouro/system/newborn.hpp>
#include <ouro/system/system.hpp>

namespace ouro {

/// A system that reads and writes bytes. `MixerOf` moves information between rows in Sensor and Brain.
template <Backend B, template <class> class MixerOf = attention>
struct gridman : system<B, byte_sensor<B, MixerOf<B>>, state_brain<B, MixerOf<B>>, byte_actor<B>, hypothalamus<B>,
                        hippocampus<B>> {
  using base =
      system<B, byte_sensor<B, MixerOf<B>>, state_brain<B, MixerOf<B>>, byte_actor<B>, hypothalamus<B>, hippocampus<B>>;
  using config_type = gridman_config;
  static_assert(check_sequence_mixer<MixerOf<B>, context<B>, tensor<B>>());

  /// A newborn network. Errors: the first rule of the configuration that is broken, before anything is allocated; mixers
  /// that this type does not have.
  explicit gridman(gridman_config const& c, seed s = {}, dtype type = dtype::f32);
  /// The same from a stream of random numbers and in its dtype; without memory, if it is blank.
  gridman(gridman_config const& c, genesis<B> g);

  /// With the mixers named, also where the type alone says them.
  [[nodiscard]] gridman_config const& config() const { return config_; }
  [[nodiscard]] dtype type() const { return type_; }

  /// The state a life begins with: Mem, State, hormone and self 0, no thought, the oscillator anywhere on its circle.
  [[nodiscard]] state<B> newborn(seed s, std::int64_t lanes = 1) const { return newborn(genesis<B>(s, type_), lanes); }
  /// The same in the dtype of a genesis, whose shapes alone are there if it is blank.
  [[nodiscard]] state<B> newborn(genesis<B> g, std::int64_t lanes = 1) const;

 private:
  gridman(genesis<B>& g, gridman_config const& valid);
  static gridman_config with_mixers(gridman_config c) {
    using mixer = MixerOf<B>;
    c.validate();
    if constexpr (requires { mixer::kinds; }) {
      if (c.mixers.empty()) c.mixers = short_text<255>(mixer::kinds[0]);
    } else {
      if (c.mixers.empty()) c.mixers = short_text<255>(mixer_name<mixer>());
      require(c.mixers == short_text<255>(mixer_name<mixer>()), errc::config, "gridman", "the brain is '",
              c.mixers.str(), "', and this program's is '", std::string(mixer_name<mixer>()),
              "': the type says it, as gridman<B, hybrid>, which has all of the library's");
    }
    return c;
  }

  gridman_config config_;
  dtype type_;
};

// Defined outside, so that a program that is given an instance does not compile them again.

template <Backend B, template <class> class MixerOf>
gridman<B, MixerOf>::gridman(gridman_config const& c, seed s, dtype type) : gridman(c, genesis<B>(s, type)) {}

template <Backend B, template <class> class MixerOf>
gridman<B, MixerOf>::gridman(gridman_config const& c, genesis<B> g) : gridman(g, with_mixers(c)) {}

template <Backend B, template <class> class MixerOf>
gridman<B, MixerOf>::gridman(genesis<B>& g, gridman_config const& c)
    : base{{g, c.width, c.heads, c.sensor_layers, c.patch, c.state_rows, c.stacks().sensor, c.rows()},
           {g, c.width, c.heads, c.brain_layers, c.state_rows, c.stacks().brain, c.rows()},
           {g, c.width, c.heads, c.actor_layers, c.patch, c.anchors, c.ignored_bytes_as_zero},
           {g, c.width},
           {g, c.width, c.heads, c.sleep_noise},
           {c.wake, c.sleep, c.oscillator_noise}},
      config_(c),
      type_(g.type) {}

template <Backend B, template <class> class MixerOf>
state<B> gridman<B, MixerOf>::newborn(genesis<B> g, std::int64_t lanes) const {
  return ouro::newborn<B>({config_.width, config_.state_rows, config_.memory_rows}, g, lanes);
}

}  // namespace ouro
