// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The sizes and settings of a Gridman. Every one is independent; the presets follow the reference model's ratios.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/meta/module.hpp>
#include <ouro/nn/mixers/layer_kinds.hpp>
#include <ouro/tensor/error.hpp>
#include <ouro/tensor/short_text.hpp>

namespace ouro {

/// The mixers of Sensor and Brain, one text for each stack; both empty where the program's type says it.
struct stack_texts {
  std::string sensor;
  std::string brain;
};

struct gridman_config {
  std::int64_t width = 128;  ///< D
  std::int64_t heads = 2;    ///< H; divides D
  std::int64_t sensor_layers = 1;
  std::int64_t brain_layers = 2;
  std::int64_t actor_layers = 1;
  std::int64_t patch = 16;         ///< P, bytes in a patch; at least 4
  std::int64_t chunk = 128;        ///< S, patches in a step
  std::int64_t state_rows = 64;    ///< R
  std::int64_t memory_rows = 256;  ///< M
  std::int64_t anchors = 1;        ///< K
  std::int64_t wake = 4;           ///< wake steps in a cycle
  std::int64_t sleep = 2;          ///< sleep steps in a cycle
  std::int64_t bptt = 4;           ///< wake steps in an update, for who makes its lessons
  double dropout = 0.1;            ///< while a trainer trains, if it is not told another
  double oscillator_noise = 0.15;  ///< standard deviation; 0 draws nothing
  double sleep_noise = 0.05;       ///< of dreams and consolidation; 0 draws nothing
  bool ignored_bytes_as_zero =
      false;  ///< the reference feeds byte 0 for ignored targets; default: the bytes themselves
  /// Bytes of a step and the patch after it.
  static constexpr std::int64_t longest_block = 1 << 30;
  /// It and what follows may be absent from a configuration's text: the default is what lives older than it are.
  static constexpr std::string_view younger = "mixers";
  short_text<255> mixers = {};  ///< of Sensor and Brain, see layers(); empty: what the program's type says
  bool parallel_write = false;  ///< of recurrent mixers: see row_policy
  bool reset_read = false;
  bool reset_input = false;
  bool reset_write = false;
  bool two_way_prefix = false;
  OURO_MODULE(gridman_config, width, heads, sensor_layers, brain_layers, actor_layers, patch, chunk, state_rows,
              memory_rows, anchors, wake, sleep, bptt, dropout, oscillator_noise, sleep_noise, ignored_bytes_as_zero,
              mixers, parallel_write, reset_read, reset_input, reset_write, two_way_prefix);

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
    c.anchors = d < 128 ? 1 : d / 128;
    return c;
  }

  /// The same with these mixers: "rwkv7" for all layers, "rwkv7 | rwkv7*3 attention" for those of the Sensor and of the
  /// Brain. Without a bar, the list is that of both stacks if it fits each a whole number of times ("rwkv7*3 attention"
  /// for 4 and 12 layers), else it goes through the Sensor and on through the Brain ("rwkv7*2 attention" for 1 and 2).
  /// Errors (config): another number of layers, no list of names. Whether a mixer is known, the network finds out.
  [[nodiscard]] gridman_config layers(std::string_view text) const {
    auto c = *this;
    c.mixers = short_text<255>(normal(text));
    return c;
  }
  /// `mixers` for each stack, with one name for each layer.
  [[nodiscard]] stack_texts stacks() const {
    auto const [sensor, brain] = split(mixers.view());
    return {layers_text(sensor), layers_text(brain)};
  }
  [[nodiscard]] row_policy rows() const {
    return {parallel_write, reset_read, reset_input, reset_write, two_way_prefix};
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
    require((chunk + 1) * patch <= longest_block, errc::config, "config",
            "a step and its next patch must have at most 2^30 bytes, got ", chunk, " + 1 patches of ", patch);
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
    require(patch >= 4, errc::config, "config",
            "patch must be at least 4 (the kernel covers 8 bytes with padding 2), got ", patch);
    auto rate = [](double value, char const* name) {
      require(value >= 0 && value < 1, errc::config, "config", name, " must be in [0, 1), got ", value);
    };
    rate(dropout, "dropout");
    for (double noise : {oscillator_noise, sleep_noise})
      require(noise >= 0 && noise <= 1e6, errc::config, "config", "noise scales must be in 0..1e6, got ", noise);
    static_cast<void>(split(mixers.view()));
  }
  friend bool operator==(gridman_config const&, gridman_config const&) = default;

 private:
  struct stack_kinds {
    std::vector<std::string_view> sensor;
    std::vector<std::string_view> brain;
  };
  [[nodiscard]] stack_kinds split(std::string_view text) const {
    auto const bar = text.find('|');
    if (bar != std::string_view::npos)
      return {stack("Sensor", text.substr(0, bar), sensor_layers), stack("Brain", text.substr(bar + 1), brain_layers)};
    auto const list = layer_kinds(text);
    if (list.empty()) return {};
    auto const n = static_cast<std::int64_t>(list.size());
    auto part = [&](std::int64_t from, std::int64_t count) {
      std::vector<std::string_view> kinds;
      for (std::int64_t i = 0; i < count; ++i) kinds.push_back(list[static_cast<std::size_t>((from + i) % n)]);
      return kinds;
    };
    bool const fits = sensor_layers % n == 0 && brain_layers % n == 0;
    require(fits || n == sensor_layers + brain_layers, errc::config, "layers", "'", std::string(text), "' names ", n,
            " layers; the Sensor has ", sensor_layers, " and the Brain ", brain_layers, ": name ",
            sensor_layers + brain_layers, ", or as many as divide both, or write Sensor | Brain");
    return {part(0, sensor_layers), part(fits ? 0 : sensor_layers, brain_layers)};
  }
  static std::vector<std::string_view> stack(char const* name, std::string_view text, std::int64_t layers) {
    auto kinds = layer_kinds(text);
    require(static_cast<std::int64_t>(kinds.size()) == layers, errc::config, "layers", "'", std::string(text),
            "' names ", kinds.size(), " layers, the ", name, " has ", layers);
    return kinds;
  }
  /// One text for what is the same: the name alone if there is only one, the short list if it repeats, else both stacks.
  [[nodiscard]] std::string normal(std::string_view text) const {
    auto const [sensor, brain] = split(text);
    auto all = sensor;
    for (auto kind : brain) all.push_back(kind);
    for (std::size_t i = 1; i <= all.size(); ++i)
      if (i == all.size()) return std::string(all[0]);
      else if (all[i] != all[0]) break;
    auto const list = text.find('|') == std::string_view::npos ? layer_kinds(text) : std::vector<std::string_view>{};
    if (!list.empty() && list.size() < all.size()) return layers_text(list);
    return all.empty() ? "" : layers_text(sensor) + " | " + layers_text(brain);
  }
};

namespace presets {
/// What learns most in ten minutes on two cores.
constexpr gridman_config nano() {
  auto c = gridman_config::of(128, 4, 1, 2, 2);
  c.patch = 32;
  c.chunk = 32;
  c.state_rows = 32;
  c.memory_rows = 64;
  c.anchors = 2;
  c.bptt = 2;
  c.dropout = 0;
  return c;
}
constexpr gridman_config mini() { return gridman_config::of(384, 6, 3, 9, 3); }
constexpr gridman_config small() { return gridman_config::of(512, 8, 4, 12, 4); }
constexpr gridman_config medium() { return gridman_config::of(768, 12, 6, 24, 4); }
constexpr gridman_config large() { return gridman_config::of(1024, 16, 8, 36, 6); }
}  // namespace presets

}  // namespace ouro
