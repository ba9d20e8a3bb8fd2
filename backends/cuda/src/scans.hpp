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

/// Forwards, row `place` of all states: the problem advances it by each row of the sequence, and says what comes of it.
template <class T, class Problem>
struct scan_forwards {
  Problem p;
  scan_rows<T> y;
  T* last;

  __device__ void operator()(index place, int lane, T* S) const {
    index const i = place % p.s.value;
    index const flat = place / p.s.value;
    index const h = flat % p.s.heads;
    index const n = flat / p.s.heads;
    for (index j = lane; j < p.s.key; j += warp_size) S[j] = p.state[place * p.s.key + j];
    for (index t = 0; t < p.s.rows; ++t) {
      p.advance(n, h, t, i, lane, S, S);
      T const out = p.say(n, h, t, i, lane, S);
      if (lane == 0) y.put_at(n, t, h * p.s.value + i, out);
    }
    for (index j = lane; j < p.s.key; j += warp_size) last[place * p.s.key + j] = S[j];
  }
};

/// Backwards, all of the state of one lane and head: its place, and its block's memory. `step(t, i, before, after)` moves
/// row i of a state on by row t of the sequence; before and after may be the same.
template <class T>
struct scan_backwards {
  scan_shape s;
  scan_segments segments;
  index flat, h, n;
  int lane, warp;
  T* starts;  // (count,V,K) the states at the starts of the segments
  T* states;  // (length + 1,V,K) those of a segment
  T* G;       // (V,K) the gradient of the state
  T* sums;    // two of segments.sums
  T* kept;

  __device__ scan_backwards(scan_shape const& shape, scan_segments const& parts, T* memory)
      : s(shape),
        segments(parts),
        flat(blockIdx.x),
        h(flat % s.heads),
        n(flat / s.heads),
        lane(lane_number()),
        warp(static_cast<int>(threadIdx.x) / warp_size),
        starts(memory + flat * segments.memory()),
        states(starts + segments.count * s.state()),
        G(states + (segments.length + 1) * s.state()),
        sums(starts + segments.states),
        kept(sums + 2 * segments.sums) {}

  [[nodiscard]] __device__ index first(index segment) const { return segment * segments.length; }
  [[nodiscard]] __device__ index end(index segment) const {
    index const next = first(segment + 1);
    return next < s.rows ? next : s.rows;
  }
  /// Goes forwards once and keeps the starts; the gradient begins as that of the last state (absent: zero).
  template <class Step>
  __device__ void begin(T const* state, T const* dlast, Step const& step) const {
    for (index i = warp; i < s.value; i += scan_warps) {
      T* const S = states + i * s.key;
      index const own = flat * s.state() + i * s.key;
      for (index j = lane; j < s.key; j += warp_size) {
        S[j] = state[own + j];
        G[i * s.key + j] = dlast == nullptr ? T(0) : dlast[own + j];
      }
      for (index t = 0; t < s.rows; ++t) {
        if (t % segments.length == 0)
          for (index j = lane; j < s.key; j += warp_size)
            starts[t / segments.length * s.state() + i * s.key + j] = S[j];
        step(t, i, S, S);
      }
    }
  }
  /// The states of a segment, again from its start.
  template <class Step>
  __device__ void recall(index segment, Step const& step) const {
    for (index i = warp; i < s.value; i += scan_warps) {
      T* S = states + i * s.key;
      for (index j = lane; j < s.key; j += warp_size) S[j] = starts[segment * s.state() + i * s.key + j];
      for (index t = first(segment); t < end(segment); ++t, S += s.state()) step(t, i, S, S + s.state());
    }
  }
  /// What is left at the start of the sequence is the gradient of the first state, if that is wanted.
  __device__ void finish(T* state, bool accumulate) const {
    if (state == nullptr) return;
    for (index i = warp; i < s.value; i += scan_warps)
      for (index j = lane; j < s.key; j += warp_size)
        put(state[flat * s.state() + i * s.key + j], G[i * s.key + j], accumulate);
  }
};

}  // namespace ouro::cuda_kernels
