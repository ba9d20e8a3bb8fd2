// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// `gridman bench`: how fast a newborn learns and speaks on this machine, and what it keeps in memory.
#pragma once

#include <cstdint>
#include <string>

#include "backends.hpp"

struct bench_options {
  computation_options where;
  std::string preset = "nano";
  std::string brain;          ///< as of `gridman new`; absent: the configuration's
  std::string config = "{}";  ///< a JSON object of the fields that differ from the preset
  std::string text;           ///< read over and over; absent: made up
  std::string save_weights;   ///< writes the newborn network here, under the reference's names
  std::int64_t updates = 5;
  std::int64_t warmup = 1;
  double rate = 3e-4;           ///< constant
  double angle = 0;             ///< of the newborn oscillator
  double room = 0;              ///< MB of inner values that an update may keep; 0: all
  std::int64_t speak = 0;       ///< bytes said after training, always the most probable one
  std::string weights = "f32";  ///< of the Actor while it speaks
  bool profile = false;
  bool json = false;
};

void bench(bench_options const& options);
