// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the recurrences share. A sequence is cut into chunks of up to 16 rows. A row of a state (V,K) never meets another,
// so that walks (scan_walk.hpp) carry all of them along the sequence at the same time, forwards the states and backwards
// their gradients, and keep what they have between chunks. From these all chunks make their gradients at the same time
// (scan_chunk.hpp).
#pragma once

#include "layout.hpp"

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

inline constexpr int most_chunk_rows = 16;

/// A state for each lane and head, and how many rows a chunk has.
struct scan_shape {
  index lanes, rows, heads;
  int value, key;
  int length = most_chunk_rows;

  scan_shape(shape const& x, shape const& state)
      : lanes(x[0]), rows(x[1]), heads(state[1]), value(static_cast<int>(state[2])), key(static_cast<int>(state[3])) {
    while (length > 1 && length / 2 >= rows) length /= 2;
  }
  [[nodiscard]] __host__ __device__ index flats() const { return lanes * heads; }
  [[nodiscard]] __host__ __device__ index state() const { return index{value} * key; }
  [[nodiscard]] __host__ __device__ index chunks() const { return divide_up(rows, length); }
  /// How many rows a chunk has.
  [[nodiscard]] __device__ int rows_of(index chunk) const {
    index const rest = rows - chunk * length;
    return static_cast<int>(rest < length ? rest : length);
  }
  /// States for all chunks, and one for the end.
  [[nodiscard]] index kept_states() const { return flats() * (chunks() + 1) * state(); }
};

/// value(lane, row, column) of all rows and columns of a sequence, one row after the other.
template <class T, class Value>
struct make_rows {
  T* to;
  Value value;
  index rows, columns;
  __device__ void operator()(index e) const {
    index const row = e / columns;
    to[e] = value(row / rows, row % rows, e % columns);
  }
};
template <class T>
class made_rows {
 public:
  template <class Value>
  made_rows(char const* name, scan_shape const& s, index columns, Value const& value)
      : rows_(s.rows), columns_(columns), memory_(s.lanes * rows_ * columns_) {
    for_count(name, s.lanes * rows_ * columns_, make_rows<T, Value>{memory_.data(), value, rows_, columns_});
  }
  [[nodiscard]] scan_rows<T const> get() const { return {memory_.data(), rows_ * columns_, columns_}; }

 private:
  index rows_, columns_;
  device_array<T> memory_;
};

/// Makes chunks shorter until `bytes` of them fit into shared memory.
template <class F>
void shorten(scan_shape& s, char const* name, F const& bytes) {
  while (bytes() > shared_memory_limit()) {
    require(s.length > 1, errc::shape, name, "states of this size do not fit into shared memory");
    s.length /= 2;
  }
}

}  // namespace ouro::cuda_kernels
