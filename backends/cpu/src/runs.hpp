// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Strided operands of an elementwise operation as runs along one axis: axes that are contiguous in every operand are
// joined, so that a run is as long as possible.
#pragma once

#include <algorithm>
#include <cstdint>

#include <ouro/tensor/random.hpp>
#include <ouro/tensor/view.hpp>

#include "threads.hpp"

namespace ouro {

inline constexpr std::int64_t shared_elements = 16384;  // that are worth a thread

/// Calls f(first, count) for parts of n elements, which threads share by whole blocks: what a vector and what a tail rounds to
/// may differ, and must not change with the number of threads.
template <class F>
void share_elements(std::int64_t n, F&& f) {
  constexpr std::int64_t block = 128;
  static_assert(block % dropout_mask::together == 0);
  cpu_threading::parallel((n + block - 1) / block, shared_elements / block, [&](std::int64_t first, std::int64_t last) {
    f(first * block, std::min(last * block, n) - first * block);
  });
}

struct runs {
  std::int64_t n[max_rank] = {};        // extents after joining; the last is the run
  std::int64_t step[3][max_rank] = {};  // strides of the three operands
  int rank = 0;

  runs(shape const& dims, shape const& a, shape const& b, shape const& c) {
    shape const* steps[3] = {&a, &b, &c};
    for (int i = 0; i < dims.rank(); ++i) {
      if (dims[i] == 1) continue;
      bool joins = rank > 0;
      for (int s = 0; s < 3 && joins; ++s) joins = step[s][rank - 1] == (*steps[s])[i] * dims[i];
      if (joins) {
        n[rank - 1] *= dims[i];
      } else {
        n[rank++] = dims[i];
      }
      for (int s = 0; s < 3; ++s) step[s][rank - 1] = (*steps[s])[i];
    }
    if (rank == 0) {
      n[0] = 1;
      for (auto& s : step) s[0] = 1;
      rank = 1;
    }
  }

  /// The stride of an operand along the run.
  [[nodiscard]] std::int64_t along(int operand) const { return step[operand][rank - 1]; }

  /// Calls f(offset a, offset b, offset c, length) for every run or part of one; threads share large work.
  template <class F>
  void for_each(F&& f) const {
    std::int64_t const length = n[rank - 1];
    if (rank == 1)
      return share_elements(length, [&](std::int64_t from, std::int64_t count) {
        f(from * along(0), from * along(1), from * along(2), count);
      });
    std::int64_t outer = 1;
    for (int i = 0; i + 1 < rank; ++i) outer *= n[i];
    cpu_threading::parallel(outer, length > 0 ? shared_elements / length + 1 : outer,
                            [&](std::int64_t from, std::int64_t to) {
                              for (std::int64_t r = from; r < to; ++r) {
                                std::int64_t at[3] = {};
                                std::int64_t rest = r;
                                for (int i = rank - 2; i >= 0; --i) {
                                  std::int64_t const here = rest % n[i];
                                  rest /= n[i];
                                  for (int s = 0; s < 3; ++s) at[s] += here * step[s][i];
                                }
                                f(at[0], at[1], at[2], length);
                              }
                            });
  }
};

}  // namespace ouro
