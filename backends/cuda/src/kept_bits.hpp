// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Philox for a kernel that draws many blocks of a mask under one key.
#pragma once

#include "device.hpp"

namespace ouro::cuda_kernels {

/// philox::mask_words with the keys of its rounds made once for a launch, whose constants they are.
struct philox_rounds {
  std::uint32_t keys[philox::mask_rounds][2];

  explicit philox_rounds(std::uint64_t key) {
    for (unsigned r = 0; r < philox::mask_rounds; ++r) {
      keys[r][0] = static_cast<std::uint32_t>(key) + r * philox::steps[0];
      keys[r][1] = static_cast<std::uint32_t>(key >> 32U) + r * philox::steps[1];
    }
  }
  [[nodiscard]] __device__ philox::block words(std::uint64_t high, std::uint64_t low) const {
    philox::block c = philox::counter(high, low);
    OURO_UNROLL
    for (int r = 0; r < philox::mask_rounds; ++r) c = philox::round(c, keys[r][0], keys[r][1]);
    return c;
  }
};

}  // namespace ouro::cuda_kernels
