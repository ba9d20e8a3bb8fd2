// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What attention and its gradient share. A block of 256 threads works on square tiles: thread (ty, tx) holds a small
// square of a product whose rows are ty's and whose columns are tx's, so that 16 neighbouring lanes hold a row of scores.
// A head may have any width: the scores are summed over runs of it, and results wider than a tile are made in slices, a
// block for each.
#pragma once

#include <limits>

#include "kept_bits.hpp"
#include "packs.hpp"

namespace ouro::cuda_kernels {

template <class T>
struct attention_tiles {
  static constexpr int side = sizeof(T) == 4 ? 64 : 32;
  static constexpr int micro = side / 16;  // rows and columns of a thread
  static constexpr int depth = 32;         // how much of the width is summed at a time
  static constexpr int pitch = side + 16 / sizeof(T);
  static constexpr int threads = 256;
  static constexpr int room = (2 * depth > side ? 2 * depth : side) * pitch;  // two transposed operands, or one
};

template <class T>
using micro_tile = T[attention_tiles<T>::micro][attention_tiles<T>::micro];

/// Rows of heads: head h of row r of lane n starts at data[n · lane + r · row + h · width].
template <class T>
struct head_rows {
  T* data = nullptr;
  index lane = 0;
  index row = 0;
};
/// T, constant where Void is.
template <class Void, class T>
using like = std::conditional_t<std::is_const_v<Void>, T const, T>;

template <class T>
head_rows<T const> rows_of(const_view const& v) {
  return {v.as<T>(), v.steps[0], v.steps[1]};
}
template <class T>
head_rows<T> rows_of(destination const& d) {
  return d.wanted() ? head_rows<T>{d.out.as<T>(), d.out.steps[0], d.out.steps[1]} : head_rows<T>{};
}

/// The same where the launch, not the kernel's type, says what they are stored in: bf16 if they are `narrow`.
template <class Void>
struct stored_rows {
  Void* data = nullptr;
  index lane = 0;
  index row = 0;
  bool narrow = false;
};
inline stored_rows<void const> stored_rows_of(const_view const& v) {
  return {v.data, v.steps[0], v.steps[1], v.type == dtype::bf16};
}
inline stored_rows<void> stored_rows_of(destination const& d) {
  if (!d.wanted()) return {};
  return {d.out.data, d.out.steps[0], d.out.steps[1], d.out.type == dtype::bf16};
}
/// Calls f(head_rows) with rows of bf16 or of T.
template <class T, class Void, class F>
__device__ void with_stored(stored_rows<Void> const& r, F const& f) {
  if (r.narrow) f(head_rows<like<Void, bf16>>{static_cast<like<Void, bf16>*>(r.data), r.lane, r.row});
  else f(head_rows<like<Void, T>>{static_cast<like<Void, T>*>(r.data), r.lane, r.row});
}

/// `T` is what queries, keys and values are stored in.
template <class T>
struct attention_problem {
  head_rows<T const> q, k, v;
  index lanes, heads, queries, keys, width;
  real_of<T> scale;
  real_of<T> factor;  // of the dropout
  visibility sees;
  kept_bits kept;
  index groups;  // of a query's mask

  attention_problem(const_view const& qs, const_view const& ks, const_view const& vs, attention_rule const& rule)
      : q(rows_of<T>(qs)),
        k(rows_of<T>(ks)),
        v(rows_of<T>(vs)),
        lanes(qs.dims[0]),
        heads(rule.heads),
        queries(qs.dims[1]),
        keys(ks.dims[1]),
        width(qs.dims[2] / rule.heads),
        scale(static_cast<real_of<T>>(rule.scale)),
        factor(static_cast<real_of<T>>(dropout_mask(rule.dropout).factor)),
        sees(rule.sees),
        kept(dropout_mask(rule.dropout), rule.draw),
        groups(dropout_mask::groups(keys)) {}

  /// Bit b says whether the dropout keeps what query `i` of a head sees of key 32 · group + b.
  [[nodiscard]] __device__ std::uint32_t keeps(index flat, index i, index group) const {
    return kept.of(static_cast<std::uint64_t>((flat * queries + i) * groups + group));
  }
  [[nodiscard]] index slices() const { return divide_up(width, attention_tiles<T>::side); }
  /// Blocks for tiles of `rows` rows, in every slice of every head.
  [[nodiscard]] index blocks(index rows) const {
    return lanes * heads * divide_up(rows, attention_tiles<T>::side) * slices();
  }
};

/// What a block works on: a tile of rows from `first` and a slice of columns from `column` of one head; and where in a
/// tile the square of the thread begins.
struct attention_place {
  index lane, head, flat, first, column;
  int ty, tx;

  template <class T>
  __device__ attention_place(attention_problem<T> const& p, index rows) {
    using tiles = attention_tiles<T>;
    index const across = divide_up(p.width, tiles::side);
    index const down = divide_up(rows, tiles::side);
    column = blockIdx.x % across * tiles::side;
    first = blockIdx.x / across % down * tiles::side;
    flat = blockIdx.x / across / down;
    head = flat % p.heads;
    lane = flat / p.heads;
    ty = static_cast<int>(threadIdx.x) / 16 * tiles::micro;
    tx = static_cast<int>(threadIdx.x) % 16 * tiles::micro;
  }
  template <class T>
  __device__ T* rows(head_rows<T> const& r, index width) const {
    return r.data + lane * r.lane + head * width;
  }
};

/// Rows of a matrix as columns, zero outside: to[column · pitch + row].
template <class T>
__device__ void load_transposed(T* to, T const* from, index step, index rows, index columns) {
  using tiles = attention_tiles<T>;
  for (int e = static_cast<int>(threadIdx.x); e < tiles::side * tiles::depth; e += tiles::threads) {
    int const r = e / tiles::depth;
    int const c = e % tiles::depth;
    to[c * tiles::pitch + r] = r < rows && c < columns ? from[r * step + c] : T(0);
  }
}
/// Rows of a matrix, zero outside: to[row · pitch + column].
template <class T>
__device__ void load_rows(T* to, T const* from, index step, index rows, index columns) {
  using tiles = attention_tiles<T>;
  for (int e = static_cast<int>(threadIdx.x); e < tiles::side * tiles::side; e += tiles::threads) {
    int const r = e / tiles::side;
    int const c = e % tiles::side;
    to[r * tiles::pitch + c] = r < rows && c < columns ? from[r * step + c] : T(0);
  }
}

/// sum[m][n] += Σ_d a[d · pitch + row m] b[d · pitch + column n].
template <class T>
__device__ void multiply(micro_tile<T>& sum, T const* a, T const* b, int depth) {
  using tiles = attention_tiles<T>;
  constexpr int micro = tiles::micro;
  a += static_cast<int>(threadIdx.x) / 16 * micro;
  b += static_cast<int>(threadIdx.x) % 16 * micro;
  for (int d = 0; d < depth; ++d) {
    T left[micro];
    T right[micro];
    OURO_UNROLL
    for (int m = 0; m < micro; ++m) {
      left[m] = a[d * tiles::pitch + m];
      right[m] = b[d * tiles::pitch + m];
    }
    OURO_UNROLL
    for (int m = 0; m < micro; ++m)
      for (int n = 0; n < micro; ++n) sum[m][n] += left[m] * right[n];
  }
}

/// product[m][n] = the dot product of row m of `a` and row n of `b`, both `width` wide; the whole block takes part.
template <class T>
__device__ void dot_rows(micro_tile<T>& product, T* room, T const* a, index a_step, index a_rows, T const* b,
                         index b_step, index b_rows, index width) {
  using tiles = attention_tiles<T>;
  OURO_UNROLL
  for (int m = 0; m < tiles::micro; ++m)
    for (int n = 0; n < tiles::micro; ++n) product[m][n] = T(0);
  for (index d = 0; d < width; d += tiles::depth) {
    index const rest = width - d < tiles::depth ? width - d : tiles::depth;
    __syncthreads();  // who is still reading the room
    load_transposed(room, a + d, a_step, a_rows, rest);
    load_transposed(room + tiles::depth * tiles::pitch, b + d, b_step, b_rows, rest);
    __syncthreads();
    multiply<T>(product, room, room + tiles::depth * tiles::pitch, static_cast<int>(rest));
  }
}

/// What the dropout multiplies this thread's weights of query `i`, keys `j` and on, by. They lie in one group.
template <class T>
__device__ void keep_factors(attention_problem<T> const& p, index flat, index i, index j,
                             T (&keep)[attention_tiles<T>::micro]) {
  OURO_UNROLL
  for (int n = 0; n < attention_tiles<T>::micro; ++n) keep[n] = T(1);
  if (p.kept.all()) return;
  std::uint32_t const bits = p.keeps(flat, i, j / 32) >> j % 32;
  OURO_UNROLL
  for (int n = 0; n < attention_tiles<T>::micro; ++n) keep[n] = (bits >> n & 1U) != 0 ? p.factor : T(0);
}

/// Over the 16 lanes that hold a row.
template <class T>
__device__ T group_max(T x) {
  for (int step = 8; step > 0; step /= 2) {
    T const other = __shfl_xor_sync(everybody, x, step);
    x = other > x ? other : x;
  }
  return x;
}

/// dots = y · dy of each row and head: (lanes, heads, queries), as log Σ exp of their scores.
template <class T>
void attention_dots(T* dots, const_view const& y, const_view const& dy, index heads);

}  // namespace ouro::cuda_kernels
