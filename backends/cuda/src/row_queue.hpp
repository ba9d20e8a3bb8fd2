// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Rows on their way to the threads that own their columns. Where a kernel knows what they are stored in, the row that comes
// next passes into shared memory while one is worked on: nobody waits for the device's memory, and no register is held for
// it. A thread copies and reads its own columns only, which takes no barrier.
#pragma once

#include "row_blocks.hpp"

namespace ouro::cuda_kernels {

/// Runs of E rows, of which a thread holds what it owns as wide_numbers. Those of a run lie `width` elements apart. It is
/// made of reals, of which it may know more than they say.
template <int E, class Own, class Reals, bool Ahead>
class row_queue {
 public:
  static constexpr int bytes = 0;  // of a thread
  template <class From>
  __device__ row_queue(Own const& own, From const& from, char*&) : own_(own), from_(from) {}
  __device__ void ask(index, int, int) const {}
  [[nodiscard]] __device__ wide_numbers<E, Own, Reals> take(index row, int width, int) const {
    return {own_, from_, row, width};
  }

 private:
  Own const& own_;
  Reals from_;
};

template <int E, class Own, class Reals>
class row_queue<E, Own, Reals, true> {
  using numbers = wide_numbers<E, Own, Reals>;
  static constexpr int piece = own_width * Reals::stored_bytes;
  static constexpr int pieces =
      (2 * E * Own::count) | 1;  // an odd number, so that those of neighbours lie in other banks

 public:
  static constexpr int bytes = pieces * piece;
  /// Takes its part of the block's room, whose front moves on.
  template <class From>
  __device__ row_queue(Own const& own, From const& from, char*& room)
      : own_(own), from_(from), mine_(room + bytes * static_cast<int>(threadIdx.x)) {
    room += bytes * static_cast<int>(blockDim.x);
  }
  /// Asks for a run from element `row` on, as that of `stage` 0 or 1.
  __device__ void ask(index row, int width, int stage) const {
    each([&](int j, int k) { from_.copy_later(place(stage, j, k), row + (j * width + own_.first(k))); });
  }
  /// The run that was asked for as this stage's, after finish_loads_but_last.
  [[nodiscard]] __device__ numbers take(index, int, int stage) const {
    numbers held(own_, from_);
    each([&](int j, int k) { held.raw(j, k) = from_.load_copy(place(stage, j, k)); });
    return held;
  }

 private:
  template <class F>
  static __device__ void each(F const& f) {
    if constexpr (piece > 0) {
      OURO_UNROLL
      for (int j = 0; j < E; ++j) {
        OURO_UNROLL
        for (int k = 0; k < Own::count; ++k) f(j, k);
      }
    }
  }
  [[nodiscard]] __device__ char* place(int stage, int j, int k) const {
    return mine_ + ((stage * E + j) * Own::count + k) * piece;
  }

  Own const& own_;
  Reals from_;
  char* mine_;
};

}  // namespace ouro::cuda_kernels
