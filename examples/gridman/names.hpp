// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Names as they are said on the command line and in files of the reference model, and such files.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include <ouro/io/archive.hpp>
#include <ouro/io/file.hpp>
#include <ouro/life/life.hpp>
#include <ouro/system/config.hpp>

inline ouro::gridman_config preset(std::string const& name) {
  if (name == "nano") return ouro::presets::nano();
  if (name == "mini") return ouro::presets::mini();
  if (name == "small") return ouro::presets::small();
  if (name == "medium") return ouro::presets::medium();
  if (name == "large") return ouro::presets::large();
  ouro::fail(ouro::errc::argument, "preset", "unknown preset '", name, "'; there are nano, mini, small, medium, large");
}

/// `--brain`: a mixer for all layers, `hybrid:` and a list of them, or `hybrid` alone, which is RWKV-7 with attention in
/// every fourth layer and the last. Empty: as the configuration says.
inline ouro::gridman_config with_brain(ouro::gridman_config const& c, std::string const& brain) {
  std::string const list = "hybrid:";
  if (brain.empty()) return c;
  if (brain == "hybrid")
    return c.layers(ouro::hybrid_layers("rwkv7", c.sensor_layers) + " | " +
                    ouro::hybrid_layers("rwkv7", c.brain_layers));
  auto const layers = brain.rfind(list, 0) == 0 ? brain.substr(list.size()) : brain;
  ouro::require(layers.find_first_not_of(' ') != std::string::npos, ouro::errc::argument, "brain", "'", brain,
                "' names no mixer; a list is written as hybrid:\"rwkv7*2 attention\"");
  return c.layers(layers);
}
inline char const* const brain_help =
    "attention (if none is said), rwkv7, mamba2, hybrid, or one for each layer: hybrid:\"rwkv7*2 attention\"";

/// What `--preset`, `--config` and `--brain` say together. Errors (argument, config): one of them is wrong.
inline ouro::gridman_config described(std::string const& name, std::string const& config, std::string const& brain) {
  try {
    return with_brain(ouro::changed(preset(name), config), brain);
  } catch (ouro::error const& e) {
    if (e.code() == ouro::errc::data) ouro::fail(ouro::errc::argument, "--config", e.what());  // it is no file
    throw;
  }
}
inline char const* const config_help = "a JSON object of what differs from the preset: '{\"dropout\": 0.1}'";

/// Megabytes as bytes; 0 is no limit.
inline std::int64_t room_bytes(double megabytes) {
  ouro::require(megabytes >= 0 && megabytes < 1e12, ouro::errc::argument, "room", "must be in 0..1e12 MB");
  return megabytes > 0 ? static_cast<std::int64_t>(megabytes * 1e6) : std::numeric_limits<std::int64_t>::max();
}

/// A parameter under the reference model's name: its self encoder, which it lists three times, stands at the top.
inline std::string reference_name(std::string const& path) {
  for (std::string const stack : {"brain.core.", "sensor.context_mixer."})
    if (path.rfind(stack + "self_encoder.", 0) == 0) return path.substr(stack.size());
  return path;
}

/// Whether the reference lists this beside its parameters though nothing is computed with it: how many batches a norm saw.
inline bool is_reference_count(std::string const& name) { return name.ends_with(".num_batches_tracked"); }

/// `more` after `first`, or the largest number if that does not fit. Neither is negative.
inline std::int64_t saturating_sum(std::int64_t first, std::int64_t more) {
  auto const most = std::numeric_limits<std::int64_t>::max();
  return more > most - first ? most : first + more;
}

/// Writes a network under the reference's names to a new file, beside what `out` has already. Errors (storage): the file is there
/// already, or cannot be written.
template <class Network>
void write_weights(char const* where, ouro::safetensors_writer out, Network const& model, std::string const& file) {
  ouro::require(!ouro::exists(file), ouro::errc::storage, where, file, " exists already");
  for (auto const& f : ouro::fields(model)) ouro::store(out, reference_name(f.path), *f.value);
  ouro::write_file_durably(file, out.str());
}
