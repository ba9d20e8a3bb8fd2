// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The square root for headers that need nothing else of <cmath>, which takes a fifth of a header's time to compile.
#pragma once

namespace ouro {

/// √x.
inline double root(double x) { return __builtin_sqrt(x); }
inline double root(long x) { return __builtin_sqrt(static_cast<double>(x)); }

}  // namespace ouro
