// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// How a recurrent mixer takes the segments of a sequence under a row_policy: what is carried where, Write rows that go on
// by themselves, and a prefix that is heard in both directions.
#pragma once

#include <vector>

#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/movement.hpp>

namespace ouro {

/// Write rows that each go on from the carry by themselves.
inline std::int64_t rows_alone(segments s, row_policy const& p) { return p.parallel_write ? s.write : 0; }

/// The first row, then every row in front of `end` at which token shift and convolution begin anew.
inline std::vector<std::int64_t> run_starts(segments s, row_policy const& p, std::int64_t end) {
  std::vector<std::int64_t> starts{0};
  auto border = [&](bool reset, std::int64_t at, std::int64_t rows) {
    if (reset && rows > 0 && at > starts.back() && at < end) starts.push_back(at);
  };
  border(p.reset_read, s.mem, s.read);
  border(p.reset_input, s.mem + s.read, s.input);
  border(p.reset_write, s.mem + s.read + s.input, s.write);
  return starts;
}

/// The last `count` rows of x (B,T,C) as sequences of one row: (B·count,1,C).
template <Backend B>
tensor<B> last_rows_as_lanes(tensor<B> const& x, std::int64_t count) {
  return reshape(slice(x, 1, x.dim(1) - count, count), {x.dim(0) * count, 1, x.dim(2)});
}

/// Every lane of a carry (B,…) `count` times over: (B·count,…).
template <Backend B>
tensor<B> repeated_lanes(tensor<B> const& c, std::int64_t count) {
  std::int64_t const lanes = c.dim(0);
  auto const flat = reshape(c, {lanes, 1, c.size() / lanes});
  return reshape(expand(flat, {lanes, count, flat.dim(2)}), c.dims().with(0, lanes * count));
}

/// y (B,T − skip,D) of rows x (B,T,D), and for the rows of [Mem | Read] among them, what one_way(rows, segments) says
/// when it goes through these from the last to the first, as a recurrence with an end of its own.
template <Backend B, class F>
tensor<B> with_prefix_from_behind(tensor<B> const& y, tensor<B> const& x, segments s, F&& one_way) {
  std::int64_t const prefix = s.mem + s.read, asked = prefix - s.skip;
  if (asked <= 0) return y;
  auto const turned = one_way(reverse(slice(x, 1, 0, prefix), 1), segments{s.read, s.mem, 0, 0, 0});
  auto const front = slice(y, 1, 0, asked) + slice(reverse(turned, 1), 1, s.skip, asked);
  return y.dim(1) == asked ? front : concat<B>({front, slice(y, 1, asked, y.dim(1) - asked)}, 1);
}

}  // namespace ouro
