// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Working memory of one call, from the backend's pool: the system would give fresh pages each time.
#pragma once

#include <cstdint>

#include <ouro/backend/cpu.hpp>

namespace ouro {

class scratch {
 public:
  /// Uninitialised room for n floats.
  explicit scratch(std::int64_t n)
      : bytes_(static_cast<std::size_t>(n) * sizeof(float)), memory_(static_cast<float*>(cpu::allocate(bytes_))) {}
  scratch(scratch const&) = delete;
  scratch& operator=(scratch const&) = delete;
  ~scratch() { cpu::deallocate(memory_, bytes_); }
  [[nodiscard]] float* data() { return memory_; }

 private:
  std::size_t bytes_;
  float* memory_;
};

}  // namespace ouro
