// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// For a namespace without a name: each instruction set has its own.

/// The transpose of sixteen vectors of sixteen numbers: four times, rows i and i + 8 are interleaved into rows 2i and
/// 2i + 1.
template <class Vector>
inline void transpose16(Vector (&now)[16]) {
  Vector next[16];
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      next[2 * i] = __builtin_shufflevector(now[i], now[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      next[2 * i + 1] =
          __builtin_shufflevector(now[i], now[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) now[i] = next[i];
  }
}
