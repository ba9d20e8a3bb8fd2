// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the two recurrences share. A row i of a state (V,K) never meets another row going forward, so a warp carries it
// along the sequence, lanes taking every 32nd column j. Going back, a block has a whole state: what belongs to columns is
// summed over its warps. States are computed again from those kept at the start of each segment of about √T rows.
#pragma once

#include "rows.hpp"

namespace ouro::cuda_kernels {

/// Rows of an operand (B,T,columns): element c of row t of lane n is data[n · lane + t · row + c]. data may be absent.
template <class T>
struct scan_rows {
  T* data = nullptr;
  index lane = 0;
  index row = 0;
  bool accumulate = false;

  __device__ T* at(index n, index t, index column) const { return data + n * lane + t * row + column; }
  __device__ void put_at(index n, index t, index column, T value) const {
    if (data != nullptr) put(*at(n, t, column), value, accumulate);
  }
};
template <class T>
scan_rows<T const> scan_rows_of(const_view const& v) {
  return {v.as<T>(), v.steps[0], v.steps[1]};
}
template <class T>
scan_rows<T> scan_rows_of(destination const& d) {
  return d.wanted() ? scan_rows<T>{d.out.as<T>(), d.out.steps[0], d.out.steps[1], d.accumulate} : scan_rows<T>{};
}
/// A dense one, or none.
template <class T, class View>
auto* dense_or_none(View const& v) {
  using pointer = decltype(v.template as<T>());
  return v.empty() ? pointer(nullptr) : v.template as<T>();
}

/// A state for each lane and head.
struct scan_shape {
  index lanes, rows, heads, value, key;

  [[nodiscard]] __host__ __device__ index state() const { return value * key; }
};

inline constexpr int scan_warps = 8;
inline constexpr int scan_threads = scan_warps * warp_size;

/// The segments of a sequence, and the memory of a block that goes back over it: `columns` and `scalars` are the sums
/// over value rows that each warp takes, of each column and by itself; `values` numbers of each row and value row are
/// kept for the length of a segment.
struct scan_segments {
  index length, count;
  index states, sums, kept;

  scan_segments(scan_shape const& s, index columns, index scalars, index values)
      : length(1), count(0), states(0), sums(scan_warps * (columns * s.key + scalars)), kept(0) {
    while (length * length < s.rows) ++length;
    count = divide_up(s.rows, length);
    states = (count + length + 2) * s.state();  // at the starts, of the segment, and the gradient
    kept = (length * values + 1) * s.value;     // and one number more for each value row
  }
  /// Numbers that a block needs. The sums are there twice: one is written while the other is read.
  [[nodiscard]] __host__ __device__ index memory() const { return states + 2 * sums + kept; }
};

}  // namespace ouro::cuda_kernels
