// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Numbers that tell the contents of files apart: against damage, not against an adversary.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace ouro {

/// FNV-1a over 64 bits (Fowler, Noll and Vo), a byte at a time. To go on with another text, begin with the hash of those before.
constexpr std::uint64_t fnv_1a(std::string_view bytes, std::uint64_t h = 0xcbf29ce484222325ULL) {
  for (char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return h;
}

/// XXH64 with seed 0 (the xxHash specification, version 0.1.1), 32 bytes at a time.
inline std::uint64_t xxh64(std::string_view bytes) {
  constexpr std::uint64_t p1 = 0x9E3779B185EBCA87ULL;
  constexpr std::uint64_t p2 = 0xC2B2AE3D27D4EB4FULL;
  constexpr std::uint64_t p3 = 0x165667B19E3779F9ULL;
  constexpr std::uint64_t p4 = 0x85EBCA77C2B2AE63ULL;
  constexpr std::uint64_t p5 = 0x27D4EB2F165667C5ULL;
  auto const* at = bytes.data();
  auto left = bytes.size();
  auto take = [&]<class T>(T word) {
    std::memcpy(&word, at, sizeof word);
    at += sizeof word;
    left -= sizeof word;
    return std::uint64_t{word};
  };
  auto const round = [](std::uint64_t lane, std::uint64_t word) { return std::rotl(lane + word * p2, 31) * p1; };
  std::uint64_t h = p5;
  if (left >= 32) {
    std::uint64_t lanes[4] = {p1 + p2, p2, 0, 0 - p1};
    while (left >= 32)
      for (auto& lane : lanes) lane = round(lane, take(std::uint64_t{}));
    h = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
    for (auto lane : lanes) h = (h ^ round(0, lane)) * p1 + p4;
  }
  h += bytes.size();
  while (left >= 8) h = std::rotl(h ^ round(0, take(std::uint64_t{})), 27) * p1 + p4;
  if (left >= 4) h = std::rotl(h ^ take(std::uint32_t{}) * p1, 23) * p2 + p3;
  while (left > 0) h = std::rotl(h ^ take(std::uint8_t{}) * p5, 11) * p1;
  h = (h ^ h >> 33U) * p2;
  h = (h ^ h >> 29U) * p3;
  return h ^ h >> 32U;
}

/// 16 hexadecimal digits.
inline std::string hexadecimal(std::uint64_t h) {
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; h >>= 4U) out[i] = "0123456789abcdef"[h & 15U];
  return out;
}

}  // namespace ouro
