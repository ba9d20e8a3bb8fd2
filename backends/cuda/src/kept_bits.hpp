// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The mask of a dropout on the device.
#pragma once

#include <ouro/tensor/random.hpp>

#include "device.hpp"

namespace ouro::cuda_kernels {

/// dropout_mask::kept for a kernel that asks for many groups: the keys of Philox's rounds and the bits of the threshold are
/// made once for a launch, whose constants they are.
struct kept_bits {
  std::uint32_t keys[philox::mask_rounds][2];
  std::uint32_t unset[16];       // whether bit k of the threshold, the most significant first, is not set: as a mask
  std::uint32_t unset_bits = 0;  // the same in its bit k
  std::uint64_t site;
  index bits;  // 0: all are kept

  kept_bits(dropout_mask const& mask, random_draw const& draw)
      : site(draw.site), bits(mask.threshold == 0 ? 0 : mask.bits) {
    for (unsigned r = 0; r < philox::mask_rounds; ++r) {
      keys[r][0] = static_cast<std::uint32_t>(draw.key) + r * philox::steps[0];
      keys[r][1] = static_cast<std::uint32_t>(draw.key >> 32U) + r * philox::steps[1];
    }
    for (int k = 0; k < 16; ++k) {
      bool const set = k < bits && (mask.threshold >> (bits - 1 - k) & 1U) != 0;
      unset[k] = set ? 0 : everybody;
      unset_bits |= set ? 0U : 1U << k;
    }
  }
  [[nodiscard]] __device__ __host__ bool all() const { return bits == 0; }
  /// Bit b says whether element 32 · group + b is kept. Twelve bits of a number, which most rates need, are made at the same
  /// time; those that a rate does not need make no difference.
  [[nodiscard]] __device__ std::uint32_t of(std::uint64_t group) const {
    std::uint32_t kept = everybody;
    if (bits > 12) compare(kept, group, 3);
    OURO_UNROLL
    for (unsigned block = 3; block-- > 0;) compare(kept, group, block);
    return kept;
  }

  /// The same where the whole warp takes part, and four neighbouring lanes ask for the same group: each compares four bits of
  /// the numbers, which makes `kept`, as the bits below them have left it, to kept & may | must.
  [[nodiscard]] __device__ std::uint32_t of_four(std::uint64_t group) const {
    unsigned const block = static_cast<unsigned>(lane_number()) % 4;
    auto const words = drawn(group, block);
    std::uint32_t const open_bits = unset_bits >> (4 * block);
    std::uint32_t may = everybody;
    std::uint32_t must = 0;
    OURO_UNROLL
    for (unsigned k = 4; k-- > 0;) {
      std::uint32_t const open = 0U - (open_bits >> k & 1U);
      may &= words[k] | open;
      must = (must & (words[k] | open)) | (words[k] & open);
    }
    OURO_UNROLL
    for (unsigned step = 1; step <= 2; step *= 2) {
      std::uint32_t const other_may = __shfl_xor_sync(everybody, may, static_cast<int>(step));
      std::uint32_t const other_must = __shfl_xor_sync(everybody, must, static_cast<int>(step));
      must = (block & step) == 0 ? (other_must & may) | must : (must & other_may) | other_must;
      may &= other_may;
    }
    return may | must;
  }

 private:
  [[nodiscard]] __device__ philox::block drawn(std::uint64_t group, unsigned block) const {
    philox::block words = philox::counter(site, 4 * group + block);
    OURO_UNROLL
    for (int r = 0; r < philox::mask_rounds; ++r) words = philox::round(words, keys[r][0], keys[r][1]);
    return words;
  }
  __device__ void compare(std::uint32_t& kept, std::uint64_t group, unsigned block) const {
    auto const words = drawn(group, block);
    OURO_UNROLL
    for (unsigned k = 4; k-- > 0;) {
      std::uint32_t const open = unset[4 * block + k];
      kept = (kept & words[k]) | (open & (kept | words[k]));  // a set bit of the threshold: and, else or
    }
  }
};

}  // namespace ouro::cuda_kernels
