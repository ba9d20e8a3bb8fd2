// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Elementary functions of double, by the compiler's builtins: <cmath> and <algorithm> take longer to compile than most
// headers that need a root or a maximum.
#pragma once

namespace ouro::elementary {

inline double sqrt(double x) { return __builtin_sqrt(x); }
inline double pow(double x, double y) { return __builtin_pow(x, y); }
inline double log(double x) { return __builtin_log(x); }
inline double expm1(double x) { return __builtin_expm1(x); }
inline double sin(double x) { return __builtin_sin(x); }
inline double cos(double x) { return __builtin_cos(x); }
inline double abs(double x) { return __builtin_fabs(x); }
inline double fmod(double x, double y) { return __builtin_fmod(x, y); }
inline double nearbyint(double x) { return __builtin_nearbyint(x); }
inline long long llround(double x) { return __builtin_llround(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }

/// Whether it is a count, with room to go on counting.
constexpr bool is_count(long long n) { return n >= 0 && n < (1LL << 62); }

/// As in <algorithm>, by value.
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

}  // namespace ouro::elementary
