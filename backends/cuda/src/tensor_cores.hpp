// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products of a warp on the tensor cores: factors in bf16, sums in f32. Fragments are those of the instructions mma.m16n8k16
// and ldmatrix (PTX ISA, "Matrix multiply-accumulate operation using mma instruction"): of eight lines the thread has line
// lane / 4, and of eight elements of a line the two from 2 · (lane mod 4) on. The emulated device has the same fragments.
#pragma once

#include <ouro/tensor/dtype.hpp>

#include "device.hpp"

namespace ouro::cuda_kernels {

/// Two neighbours in bf16, the first in the low half.
using bf16_pair = std::uint32_t;

/// Of a left factor, 16 rows and 16 columns: squares of 8 by 8, the upper and the lower one of the first columns, then
/// those of the last. Of a right factor, 16 rows and 16 columns: the pairs run down a column; the upper and the lower square
/// of the first columns, then those of the last.
struct fragment {
  bf16_pair square[4];
};

/// Of a product, 16 rows and 8 columns: two neighbours of the upper eight rows, and two of the lower.
struct alignas(16) tile_sums {
  float at[4];
};

/// Of a product, 16 rows and 64 columns: 16 columns, 8 columns, and these; or 8 columns at once. And the thread's i-th of them.
using square_sums = tile_sums[4][2];
using square_columns = tile_sums[8];
__device__ inline float& sum_at(square_sums& s, int i) { return s[i / 8][i / 4 % 2].at[i % 4]; }
__device__ inline float& sum_at(square_columns& s, int i) { return s[i / 4].at[i % 4]; }

/// The line of a fragment's square that is this thread's, and where its two elements begin.
__device__ inline int fragment_line() { return lane_number() / 4; }
__device__ inline int fragment_column() { return lane_number() % 4 * 2; }

__device__ inline bf16_pair rounded_pair(float first, float second) {
#if defined(__CUDACC__)
  bf16_pair pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return bf16(first).bits | static_cast<bf16_pair>(bf16(second).bits) << 16U;
#endif
}

__device__ inline float first_of(bf16_pair p) { return std::bit_cast<float>(p << 16U); }
__device__ inline float second_of(bf16_pair p) { return std::bit_cast<float>(p & 0xFFFF0000U); }

/// 16 bytes on their way to shared memory, zeroes unless they are `there`. They have come where this thread, and then a
/// barrier, has passed finish_loads.
__device__ inline void load_later(void* to, void const* from, bool there) {
#if defined(__CUDACC__)
  auto const address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(there ? 16 : 0)
               : "memory");
#else
  emulated_cuda::copy_later(to, there ? from : nullptr, 16);
#endif
}
__device__ inline void finish_loads() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#else
  emulated_cuda::finish_copies();
#endif
}

/// Eight or sixteen bytes on their way to shared memory, with those that this thread has asked for since close_loads. They
/// have come where it has closed one group more and passed finish_loads_but_last.
template <int Bytes>
__device__ void copy_later(void* to, void const* from) {
#if defined(__CUDACC__)
  auto const address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(from), "n"(Bytes) : "memory");
#else
  emulated_cuda::copy_later(to, from, Bytes);
#endif
}
__device__ inline void close_loads() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emulated_cuda::close_copies();
#endif
}
__device__ inline void finish_loads_but_last() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group 1;" ::: "memory");
#else
  emulated_cuda::finish_copies(1);
#endif
}

/// 2 to the power of x, to about 22 bits.
__device__ inline float power_of_two(float x) {
#if defined(__CUDACC__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::exp2(x);
#endif
}

#if !defined(__CUDACC__)
/// Element (line, column) of a square that the threads of a warp hold in `pairs`.
template <class F>
float element_of_square(F const& pairs_of_lane, int line, int column) {
  bf16_pair const pair = pairs_of_lane(4 * line + column / 2);
  return static_cast<float>(std::bit_cast<bf16>(static_cast<std::uint16_t>(pair >> (16 * (column % 2)))));
}
#endif

/// sums += left · right, where `upper` and `lower` are 16 rows and 8 columns of a right factor. The whole warp takes part.
__device__ inline void multiply_add(tile_sums& sums, fragment const& left, bf16_pair upper, bf16_pair lower) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(sums.at[0]), "+f"(sums.at[1]), "+f"(sums.at[2]), "+f"(sums.at[3])
      : "r"(left.square[0]), "r"(left.square[1]), "r"(left.square[2]), "r"(left.square[3]), "r"(upper), "r"(lower));
#else
  struct factors {
    fragment left;
    bf16_pair right[2];
  };
  factors const mine{left, {upper, lower}};
  std::uint64_t const* const all = emulated_cuda::exchange(reinterpret_cast<std::uint64_t>(&mine));
  auto of_lane = [&](int lane) -> factors const& { return *reinterpret_cast<factors const*>(all[lane]); };
  for (int e = 0; e < 4; ++e) {
    int const column = fragment_column() + e % 2;
    for (int k = 0; k < 16; ++k) {
      float const a = element_of_square([&](int lane) { return of_lane(lane).left.square[e / 2 + k / 8 * 2]; },
                                        fragment_line(), k % 8);
      float const b = element_of_square([&](int lane) { return of_lane(lane).right[k / 8]; }, column, k % 8);
      sums.at[e] += a * b;
    }
  }
  emulated_cuda::meet();  // the factors are on the threads' stacks
#endif
}

/// Four squares of shared memory: line i of square s begins where lane 8 s + i says, at a multiple of 16 bytes.
__device__ inline fragment load_squares(bf16_pair const* line) {
  fragment f;
#if defined(__CUDACC__)
  auto const address = static_cast<unsigned>(__cvta_generic_to_shared(line));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f.square[0]), "=r"(f.square[1]), "=r"(f.square[2]), "=r"(f.square[3])
               : "r"(address));
#else
  std::uint64_t const* const all = emulated_cuda::exchange(reinterpret_cast<std::uint64_t>(line));
  for (int s = 0; s < 4; ++s)
    f.square[s] = reinterpret_cast<bf16_pair const*>(all[8 * s + fragment_line()])[fragment_column() / 2];
  emulated_cuda::meet();  // an instruction of the whole warp
#endif
  return f;
}

/// The same squares, each transposed: a pair runs down a column.
__device__ inline fragment load_squares_transposed(bf16_pair const* line) {
  fragment f;
#if defined(__CUDACC__)
  auto const address = static_cast<unsigned>(__cvta_generic_to_shared(line));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f.square[0]), "=r"(f.square[1]), "=r"(f.square[2]), "=r"(f.square[3])
               : "r"(address));
#else
  std::uint64_t const* const all = emulated_cuda::exchange(reinterpret_cast<std::uint64_t>(line));
  int const column = fragment_line();
  for (int s = 0; s < 4; ++s) {
    auto element = [&](int i) {
      bf16_pair const pair = reinterpret_cast<bf16_pair const*>(all[8 * s + fragment_column() + i])[column / 2];
      return pair >> (16 * (column % 2)) & 0xFFFFU;
    };
    f.square[s] = element(0) | element(1) << 16U;
  }
  emulated_cuda::meet();
#endif
  return f;
}

/// Where this lane's line of four squares of a matrix in shared memory begins, in pairs. `down`: the second square lies under
/// the first, the last two beside these. `across`: the second lies beside the first, the last two under these.
__device__ inline int squares_down(int pitch) { return lane_number() % 16 * pitch + lane_number() / 16 * 4; }
__device__ inline int squares_across(int pitch) {
  return (lane_number() % 8 + lane_number() / 16 * 8) * pitch + lane_number() / 8 % 2 * 4;
}

}  // namespace ouro::cuda_kernels
