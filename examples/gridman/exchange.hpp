// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// `gridman export` and `gridman import`: the network of a life under the reference's names.
#pragma once

#include <set>
#include <string>
#include <utility>

#include <ouro/io/archive.hpp>
#include <ouro/io/file.hpp>
#include <ouro/life/life.hpp>

#include "names.hpp"

/// Errors (storage): the file is there already, or cannot be written.
template <class Life>
void export_weights(Life const& l, std::string const& file) {
  ouro::safetensors_writer out;
  out.set("config", ouro::to_text(l.model.config()));
  write_weights("export", std::move(out), l.model, file);
}

/// What a file's configuration says otherwise than a life's, a line each; of what the weights mean, not of how they are used.
inline std::string differences_of(ouro::gridman_config const& stored, ouro::gridman_config const& own) {
  std::string lines;
  auto compare = [&](char const* name, auto const& theirs, auto const& ours) {
    if (theirs == ours) return;
    auto text = [](auto const& value) {
      if constexpr (requires { std::to_string(value); }) return std::to_string(value);
      else return "'" + value + "'";
    };
    lines += "\n  config: " + (name + (": expected " + text(ours))) + ", stored " + text(theirs);
  };
  auto mixers = [](ouro::gridman_config const& c) {
    auto const s = c.stacks();
    return s.sensor + " | " + s.brain;
  };
  compare("width", stored.width, own.width);
  compare("heads", stored.heads, own.heads);
  compare("sensor_layers", stored.sensor_layers, own.sensor_layers);
  compare("brain_layers", stored.brain_layers, own.brain_layers);
  compare("actor_layers", stored.actor_layers, own.actor_layers);
  compare("patch", stored.patch, own.patch);
  compare("anchors", stored.anchors, own.anchors);
  if (!stored.mixers.empty()) compare("mixers", mixers(stored), mixers(own));
  compare("parallel_write", stored.parallel_write, own.parallel_write);
  compare("reset_read", stored.reset_read, own.reset_read);
  compare("reset_input", stored.reset_input, own.reset_input);
  compare("reset_write", stored.reset_write, own.reset_write);
  compare("two_way_prefix", stored.two_way_prefix, own.two_way_prefix);
  return lines;
}

/// Extents without those of 1, which the reference and this library write in different places.
inline ouro::shape without_ones(ouro::shape const& dims) {
  ouro::shape rest;
  for (int i = 0; i < dims.rank(); ++i)
    if (dims[i] != 1) rest.push_back(dims[i]);
  return rest;
}

/// Takes the weights of a file; the state goes on, the optimiser begins anew. Strictly: every difference of configuration,
/// names and shapes is listed in one error (storage). Errors beside: those of a commit, as a value that is not finite (numeric).
template <class Life>
void import_weights(Life& l, std::string const& file) {
  using backend = typename decltype(l.model)::backend;
  auto const in = ouro::safetensors_reader::open(file);
  auto refuse = [&](bool good, std::string const& why) {
    ouro::require(good, ouro::errc::storage, "import", file, " is another network:", why);
  };
  std::string differences;
  if (auto const c = in.metadata().find("config"); c != in.metadata().end()) {
    try {
      differences = differences_of(ouro::config_from_text<ouro::gridman_config>(c->second), l.model.config());
    } catch (ouro::error const& e) {
      refuse(false, std::string("\n  ") + e.what());
    }
  }
  auto const list = ouro::fields(l.model);
  std::set<std::string> known;
  for (auto const& f : list) {
    auto const name = reference_name(f.path);
    known.insert(name);
    if (!in.contains(name)) {
      differences += "\n  missing: " + name + " " + f.value->dims().str();
      continue;
    }
    auto const stored = ouro::shape_of(in.at(name));
    auto const& own = f.value->dims();
    if (without_ones(stored) != without_ones(own))
      differences += "\n  " + name + ": expected " + own.str() + ", stored " + stored.str();
  }
  for (auto const& name : in.names()) {
    auto const first = reference_name(name);
    if (known.contains(name) || is_reference_count(name)) continue;
    if (!known.contains(first)) differences += "\n  unknown: " + name;
    else if (in.contains(first) && in.at(name).bytes != in.at(first).bytes)
      differences += "\n  " + name + ": is not the same as " + first;
  }
  refuse(differences.empty(), differences);
  for (auto const& f : list) {
    auto const name = reference_name(f.path);
    *f.value = ouro::reshape(ouro::load<backend>(in.at(name), f.value->type(), name), f.value->dims());
  }
  l.memory.clear();
  l.commit();
}
