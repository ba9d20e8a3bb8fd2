// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Names as they are said on the command line and in files of the reference model.
#pragma once

#include <string>

#include <ouro/system/config.hpp>

inline ouro::gridman_config preset(std::string const& name) {
  if (name == "nano") return ouro::presets::nano();
  if (name == "mini") return ouro::presets::mini();
  if (name == "small") return ouro::presets::small();
  if (name == "medium") return ouro::presets::medium();
  if (name == "large") return ouro::presets::large();
  ouro::fail(ouro::errc::argument, "preset", "unknown preset '", name, "'; there are nano, mini, small, medium, large");
}

/// A parameter under the reference model's name: its self encoder stands at the top.
inline std::string reference_name(std::string const& path) {
  std::string const ours = "brain.core.self_encoder.";
  return path.rfind(ours, 0) == 0 ? path.substr(sizeof "brain.core." - 1) : path;
}
