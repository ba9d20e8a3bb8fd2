// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
#pragma once

#if defined(OURO_EMULATED_CUDA)
#include <emulated_cuda.hpp>
#endif

#include <utility>

namespace ouro_test {

/// As long as it lives the emulated device hands out memory that was used before, as a device does.
class memory_used_again {
 public:
  memory_used_again() : before_(set(true)) {}
  memory_used_again(memory_used_again const&) = delete;
  memory_used_again& operator=(memory_used_again const&) = delete;
  ~memory_used_again() { set(before_); }

 private:
  static bool set([[maybe_unused]] bool wanted) {
#if defined(OURO_EMULATED_CUDA)
    return std::exchange(emulated_cuda::keeps_memory, wanted);
#else
    return true;
#endif
  }

  bool before_;
};

}  // namespace ouro_test
