// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// For a namespace without a name: each instruction set has its own.

/// The values of two vectors of sixteen by turns: of their first halves, and of their second.
template <class Vector>
inline Vector interleaved_low(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
template <class Vector>
inline Vector interleaved_high(Vector a, Vector b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/// The transpose of sixteen vectors of sixteen numbers: four times, rows i and i + 8 are interleaved into rows 2i and
/// 2i + 1.
template <class Vector>
inline void transpose16(Vector (&now)[16]) {
  Vector next[16];
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      next[2 * i] = interleaved_low(now[i], now[i + 8]);
      next[2 * i + 1] = interleaved_high(now[i], now[i + 8]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) now[i] = next[i];
  }
}
