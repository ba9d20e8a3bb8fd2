// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The pool of host memory: blocks are 64-byte aligned. In debug builds a block that is handed out holds NaN in every
// dtype that has one, so that what reads memory before it is set does not go unnoticed.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>

#include <ouro/tensor/memory_pool.hpp>

namespace ouro {

struct host_blocks {
#if defined(__SANITIZE_ADDRESS__)
  static constexpr bool keeps_blocks = false;  // let the sanitizer see every use after free
#else
  static constexpr bool keeps_blocks = true;
#endif
  static constexpr bool lowest_first = false;  // the last one used may still be in a cache
  static constexpr std::align_val_t alignment{64};
  static void* take(std::size_t bytes) noexcept { return ::operator new(bytes, alignment, std::nothrow); }
  static void hand_out([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes) noexcept {
#if !defined(NDEBUG)
    std::memset(p, 0xFF, bytes);
#endif
  }
  static void give_back(void* p) noexcept { ::operator delete(p, alignment); }
};

using host_memory = memory_pool<host_blocks>;

}  // namespace ouro
