// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products of a warp group, which are four neighbouring warps, on the tensor cores of compute capability 9.0: 64 rows and
// columns at a time, of factors that lie in shared memory, made while the warps do something else (PTX ISA, "Asynchronous
// warpgroup level matrix instructions"). A warp has 16 rows of a product, as the fragments of tensor_cores.hpp.
#pragma once

#include "packs.hpp"

namespace ouro::cuda_kernels {

inline constexpr int group_warps = 4;
inline constexpr int group_size = group_warps * warp_size;

/// 64 rows of 64 values in bf16 in shared memory, at a multiple of 1024 bytes. Of the eight eights of row r the n-th lies where
/// eight n xor r mod 8 would lie, so that a column of them lies in all banks.
struct square_tile {
  static constexpr int side = 64;
  static constexpr int pairs = side * side / 2;
  static constexpr int bytes = side * side * 2;
  bf16_pair* memory;

  [[nodiscard]] __device__ bf16_pair* eight(int row, int number) const {
    return memory + row * (side / 2) + (number ^ row % 8) * 4;
  }
};

/// Shared memory for tiles.
__device__ inline bf16_pair* shared_tiles() {
#if defined(__CUDACC__)
  extern __shared__ __align__(1024) bf16_pair ouro_shared_tiles[];
  return ouro_shared_tiles;
#else
  return static_cast<bf16_pair*>(emulated_cuda::shared_memory());
#endif
}

/// Rows of a matrix, at multiples of 16 bytes, as the threads of a group copy 64 of them to a tile; rows from `rows` on are
/// zero. They are there after finish_tiles and a barrier. In bf16 they are copied by the device on its own, in f32 rounded on
/// the way.
template <class S>
class square_rows {
 public:
  __device__ square_rows(S const* from, index step, int rows)
      : line_(from + first() * step + number() * 8), step_(step), rows_(rows) {}
  /// Those from `row` on.
  __device__ void copy_to(square_tile to, int row) const {
    S const* const line = line_ + row * step_;
    int const left = rows_ - row - first();
    bf16_pair* const place = to.eight(first(), number());
    OURO_UNROLL
    for (int i = 0; i < 4; ++i)
      copy_eight(place + i * 16 * square_tile::side / 2, line + 16 * i * step_, 16 * i < left);
  }

 private:
  /// The thread's first row, and which eight of it are its own.
  static __device__ int first() { return static_cast<int>(threadIdx.x) % group_size / 8; }
  static __device__ int number() { return static_cast<int>(threadIdx.x) % 8; }

  static __device__ void copy_eight(bf16_pair* to, bf16 const* from, bool there) { load_later(to, from, there); }
  static __device__ void copy_eight(bf16_pair* to, float const* from, bool there) {
    pack<bf16_pair, 4> x;
    if (there) {
      auto const a = load<4>(from);
      auto const b = load<4>(from + 4);
      x = {{rounded_pair(a.values[0], a.values[1]), rounded_pair(a.values[2], a.values[3]),
            rounded_pair(b.values[0], b.values[1]), rounded_pair(b.values[2], b.values[3])}};
    }
    store<4>(to, x);
  }

  S const* line_;
  index step_;
  int rows_;
};
/// What this thread has loaded is where the products of the block will look for it after a barrier.
__device__ inline void finish_tiles() {
  finish_loads();
#if defined(__CUDACC__)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#if defined(__CUDACC__)
/// Where a tile lies and how: rows of 128 bytes, whose eights are exchanged, in groups of eight rows.
__device__ inline std::uint64_t description_of(square_tile t) {
  auto const address = static_cast<std::uint32_t>(__cvta_generic_to_shared(t.memory));  // below 2¹⁸
  return ((address >> 4U) + (1U << 16U)) | static_cast<std::uint64_t>(1024 >> 4) << 32U | 1ULL << 62U;
}
#define OURO_SUMS_4(how, s, i) how(sum_at(s, i)), how(sum_at(s, i + 1)), how(sum_at(s, i + 2)), how(sum_at(s, i + 3))
#define OURO_SUMS_16(how, s, i) \
  OURO_SUMS_4(how, s, i), OURO_SUMS_4(how, s, i + 4), OURO_SUMS_4(how, s, i + 8), OURO_SUMS_4(how, s, i + 12)
#define OURO_SUMS(how, s) OURO_SUMS_16(how, s, 0), OURO_SUMS_16(how, s, 16)
#define OURO_PRODUCT                                                                                              \
  "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, " \
  "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "

/// Names the sums as read and written here, so that nobody moves what is done with them past this place.
template <class Sums>
__device__ void hold(Sums& s) {
  OURO_UNROLL
  for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(sum_at(s, i))::"memory");
}
__device__ inline void open_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
#endif

// The whole group takes part. Until finish_products of its sums a product's operands must stay as they are.

/// sums = left · rightᵀ.
template <class Sums>
__device__ void begin_product(Sums& sums, square_tile left, square_tile right) {
#if defined(__CUDACC__)
  std::uint64_t const a = description_of(left);
  std::uint64_t const b = description_of(right);
  open_products();
  asm volatile(OURO_PRODUCT "%32, %33, 0, 1, 1, 0, 0;" : OURO_SUMS("=f", sums) : "l"(a), "l"(b) : "memory");
  OURO_UNROLL
  for (unsigned m = 1; m < 4; ++m)  // 16 columns are 32 bytes
    asm volatile(OURO_PRODUCT "%32, %33, 1, 1, 1, 0, 0;"
                 : OURO_SUMS("+f", sums)
                 : "l"(a + 2 * m), "l"(b + 2 * m)
                 : "memory");
  close_products();
#else
  auto element = [](square_tile t, int row, int column) {
    bf16_pair const pair = t.eight(row, column / 8)[column % 8 / 2];
    return column % 2 == 0 ? first_of(pair) : second_of(pair);
  };
  for (int i = 0; i < 32; ++i) {
    int const row = static_cast<int>(threadIdx.x) % group_size / warp_size * 16 + fragment_line() + i % 4 / 2 * 8;
    int const column = i / 4 * 8 + fragment_column() + i % 2;
    float sum = 0;
    for (int k = 0; k < square_tile::side; ++k) sum += element(left, row, k) * element(right, column, k);
    sum_at(sums, i) = sum;
  }
  emulated_cuda::hold_for_product(left.eight(static_cast<int>(threadIdx.x) % group_size / warp_size * 16, 0),
                                  left.bytes / group_warps);
  emulated_cuda::hold_for_product(right.memory, right.bytes);
#endif
}

/// sums += left · right, where a warp has its 16 rows of the left factor: 16 columns in a fragment.
__device__ inline void begin_addition(square_columns& sums, fragment const (&left)[4], square_tile right) {
#if defined(__CUDACC__)
  std::uint64_t const b = description_of(right);
  hold(sums);
  open_products();
  OURO_UNROLL
  for (unsigned m = 0; m < 4; ++m)  // 16 rows are 2048 bytes
    asm volatile(OURO_PRODUCT "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : OURO_SUMS("+f", sums)
                 : "r"(left[m].square[0]), "r"(left[m].square[1]), "r"(left[m].square[2]), "r"(left[m].square[3]),
                   "l"(b + 128 * m)
                 : "memory");
  close_products();
#else
  for (int m = 0; m < 4; ++m)
    for (int n = 0; n < 8; ++n) {
      auto element = [&](int row) {
        return right.eight(16 * m + row, n)[fragment_line() / 2] >> (16 * (fragment_line() % 2)) & 0xFFFFU;
      };
      int const k = fragment_column();
      multiply_add(sums[n], left[m], element(k) | element(k + 1) << 16U, element(k + 8) | element(k + 9) << 16U);
    }
  emulated_cuda::hold_for_product(right.memory, right.bytes);
#endif
}

/// Waits for all products that this group has begun, among which are these sums.
template <class... Sums>
__device__ void finish_products([[maybe_unused]] Sums&... sums) {
#if defined(__CUDACC__)
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  (hold(sums), ...);
#else
  emulated_cuda::finish_products();
#endif
}

}  // namespace ouro::cuda_kernels
