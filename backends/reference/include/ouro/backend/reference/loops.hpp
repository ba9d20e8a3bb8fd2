// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The two loops everything elementwise is made of: over all index tuples of a shape, and over rows.
#pragma once

#include <cstdint>

#include <ouro/tensor/view.hpp>

namespace ouro::reference_loops {

/// Calls f(offset of a, offset of b, offset of c) for every element of `dims`, in row-major order.
template <class F>
void for_each(shape const& dims, shape const& a, shape const& b, shape const& c, F&& f) {
  std::int64_t n[max_rank];
  std::int64_t step[3][max_rank];
  int const pad = max_rank - dims.rank();
  for (int i = 0; i < max_rank; ++i) {
    n[i] = i < pad ? 1 : dims[i - pad];
    step[0][i] = i < pad ? 0 : a[i - pad];
    step[1][i] = i < pad ? 0 : b[i - pad];
    step[2][i] = i < pad ? 0 : c[i - pad];
  }
  std::int64_t at[3] = {};
  for (std::int64_t i0 = 0; i0 < n[0]; ++i0)
    for (std::int64_t i1 = 0; i1 < n[1]; ++i1)
      for (std::int64_t i2 = 0; i2 < n[2]; ++i2)
        for (std::int64_t i3 = 0; i3 < n[3]; ++i3) {
          for (int s = 0; s < 3; ++s) at[s] = i0 * step[s][0] + i1 * step[s][1] + i2 * step[s][2] + i3 * step[s][3];
          for (std::int64_t i4 = 0; i4 < n[4]; ++i4)
            f(at[0] + i4 * step[0][4], at[1] + i4 * step[1][4], at[2] + i4 * step[2][4]);
        }
}

template <class T>
void put(T& to, T value, bool accumulate) {
  to = accumulate ? static_cast<T>(to + value) : value;
}

}  // namespace ouro::reference_loops
