// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The sizes and settings of a Gridman. Every one is independent; the presets follow the reference model's ratios.
#pragma once

#include <cstdint>

#include <ouro/meta/module.hpp>
#include <ouro/tensor/error.hpp>

namespace ouro {

struct gridman_config {
  std::int64_t width = 128;         ///< D
  std::int64_t heads = 2;           ///< H; divides D
  std::int64_t sensor_layers = 1;
  std::int64_t brain_layers = 2;
  std::int64_t actor_layers = 1;
  std::int64_t patch = 16;          ///< P, bytes in a patch; at least 4
  std::int64_t chunk = 128;         ///< S, patches in a step
  std::int64_t state_rows = 64;     ///< R
  std::int64_t memory_rows = 256;   ///< M
  std::int64_t anchors = 1;         ///< K
  std::int64_t wake = 4;            ///< wake steps in a cycle
  std::int64_t sleep = 2;           ///< sleep steps in a cycle
  std::int64_t bptt = 4;            ///< wake steps in an update
  double dropout = 0.1;
  double oscillator_noise = 0.15;   ///< standard deviation; 0 draws nothing
  double sleep_noise = 0.05;        ///< of dreams and consolidation; 0 draws nothing
  bool ignored_bytes_as_zero = false;  ///< the reference feeds byte 0 for ignored targets; default: the bytes themselves
  OURO_MODULE(gridman_config, width, heads, sensor_layers, brain_layers, actor_layers, patch, chunk, state_rows,
              memory_rows, anchors, wake, sleep, bptt, dropout, oscillator_noise, sleep_noise, ignored_bytes_as_zero);

  /// Everything else from a width and layer counts, in the reference's ratios.
  static constexpr gridman_config of(std::int64_t d, std::int64_t h, std::int64_t sensor, std::int64_t brain,
                                     std::int64_t actor) {
    gridman_config c;
    c.width = d;
    c.heads = h;
    c.sensor_layers = sensor;
    c.brain_layers = brain;
    c.actor_layers = actor;
    c.patch = d / 8;
    c.chunk = d;
    c.state_rows = d / 2;
    c.memory_rows = 2 * d;
    c.anchors = d / 8 / 16;
    return c;
  }

  /// Throws `ouro::error` (config) naming the first rule that is broken. Nothing is allocated before this passes.
  void validate() const {
    auto positive = [](std::int64_t value, char const* name, std::int64_t most) {
      require(value >= 1 && value <= most, errc::config, "config", name, " must be in 1..", most, ", got ", value);
    };
    positive(width, "width", 1 << 16);
    positive(heads, "heads", 1 << 12);
    positive(sensor_layers, "sensor_layers", 1024);
    positive(brain_layers, "brain_layers", 1024);
    positive(actor_layers, "actor_layers", 1024);
    positive(patch, "patch", 1 << 16);
    positive(chunk, "chunk", 1 << 20);
    positive(state_rows, "state_rows", 1 << 20);
    positive(memory_rows, "memory_rows", 1 << 20);
    positive(anchors, "anchors", 1 << 12);
    positive(wake, "wake", 1 << 20);
    positive(bptt, "bptt", 1 << 16);
    require(sleep >= 0 && sleep <= (1 << 20), errc::config, "config", "sleep must be in 0..", 1 << 20, ", got ", sleep);
    require(width % heads == 0, errc::config, "config", "heads must divide width, got width ", width, " and heads ",
            heads);
    require(width % 4 == 0, errc::config, "config", "width must be a multiple of 4 (the hormone has width / 4), got ",
            width);
    require(patch >= 4, errc::config, "config", "patch must be at least 4 (the kernel covers 8 bytes with padding 2), got ",
            patch);
    auto rate = [](double value, char const* name) {
      require(value >= 0 && value < 1, errc::config, "config", name, " must be in [0, 1), got ", value);
    };
    rate(dropout, "dropout");
    require(oscillator_noise >= 0 && sleep_noise >= 0, errc::config, "config", "noise scales must not be negative");
  }
  friend bool operator==(gridman_config const&, gridman_config const&) = default;
};

namespace presets {
/// What learns most in ten minutes on two cores.
constexpr gridman_config nano() {
  auto c = gridman_config::of(128, 4, 1, 2, 2);
  c.dropout = 0;
  return c;
}
constexpr gridman_config mini() { return gridman_config::of(384, 6, 3, 9, 3); }
constexpr gridman_config small() { return gridman_config::of(512, 8, 4, 12, 4); }
constexpr gridman_config medium() { return gridman_config::of(768, 12, 6, 24, 4); }
constexpr gridman_config large() { return gridman_config::of(1024, 16, 8, 36, 6); }
}  // namespace presets

}  // namespace ouro
