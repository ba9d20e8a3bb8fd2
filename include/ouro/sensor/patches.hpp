// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Bytes as a system reads and writes them: patches of a fixed length, with a vocabulary of 256 bytes, PAD and EOS.
#pragma once

#include <cstdint>
#include <vector>

#include <ouro/tensor/error.hpp>

namespace ouro {

inline constexpr std::int32_t pad_byte = 256;
inline constexpr std::int32_t eos_byte = 257;
inline constexpr std::int64_t byte_vocabulary = 258;

/// (lanes, count, width) byte values in 0..257, row-major.
struct patches {
  std::int64_t lanes = 1;
  std::int64_t count = 0;
  std::int64_t width = 0;
  std::vector<std::int32_t> bytes;

  [[nodiscard]] std::int32_t at(std::int64_t lane, std::int64_t patch, std::int64_t i) const {
    return bytes[static_cast<std::size_t>((lane * count + patch) * width + i)];
  }
  void validate(char const* where) const {
    require(lanes >= 1 && count >= 1, errc::shape, where, "needs at least one lane and one patch, got ", lanes, " and ",
            count);
    require(static_cast<std::int64_t>(bytes.size()) == lanes * count * width, errc::shape, where, "needs ", lanes, "x",
            count, "x", width, " bytes, got ", bytes.size());
    for (auto b : bytes) require(b >= 0 && b < byte_vocabulary, errc::data, where, "bytes must be in 0..257, got ", b);
  }
};

/// What should come next, and which of it counts. Bytes and mask are kept apart: an ignored byte is still read.
struct byte_target {
  patches next;
  std::vector<char> live;  ///< one for each byte; 0 = ignored

  [[nodiscard]] std::int64_t live_count() const {
    std::int64_t n = 0;
    for (char l : live) n += l != 0;
    return n;
  }
};

}  // namespace ouro
