// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A pool of memory blocks from one source: blocks are rounded up to a size class and kept for reuse, because a training
// step allocates the same few hundred sizes again and again.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <mutex>
#include <new>
#include <vector>

namespace ouro {

/// A Source has `take(bytes)`, which returns nullptr when there is no more, `give_back(p)`, and `hand_out(p, bytes)` for
/// blocks fresh and used, with the bytes that were asked for, all noexcept and static, and says in `keeps_blocks` whether
/// blocks may be reused at all. Of several blocks the one that was used last is handed out, or the one with the lowest
/// address if it says `lowest_first`: then the same calls get the same blocks again, whatever order they were given back
/// in. Thread safe. Throws std::bad_alloc when memory is exhausted, after giving its unused blocks back.
template <class Source>
class memory_pool {
 public:
  memory_pool() = default;
  memory_pool(memory_pool const&) = delete;
  memory_pool& operator=(memory_pool const&) = delete;
  ~memory_pool() { trim(); }

  [[nodiscard]] void* allocate(std::size_t bytes) {
    if (bytes > most) throw std::bad_alloc();
    auto const [size, number] = size_class(bytes);
    void* p = nullptr;
    {
      std::lock_guard const lock(mutex_);
      auto& blocks = free_[number];
      if (Source::keeps_blocks && !blocks.empty()) {
        if constexpr (Source::lowest_first) std::pop_heap(blocks.begin(), blocks.end(), is_behind);
        p = blocks.back();
        blocks.pop_back();
        count(size);
      }
    }
    if (p == nullptr) {
      p = Source::take(size);
      if (p == nullptr) {
        trim();
        p = Source::take(size);
      }
      if (p == nullptr) throw std::bad_alloc();
      std::lock_guard const lock(mutex_);
      count(size);
    }
    Source::hand_out(p, bytes);
    return p;
  }

  void deallocate(void* p, std::size_t bytes) noexcept {
    auto const [size, number] = size_class(bytes);
    std::lock_guard const lock(mutex_);
    in_use_ -= size;
    if (Source::keeps_blocks) {
      try {
        auto& blocks = free_[number];
        blocks.push_back(p);
        if constexpr (Source::lowest_first) std::push_heap(blocks.begin(), blocks.end(), is_behind);
        return;
      } catch (std::bad_alloc const&) {  // no room to remember it: give it back below
      }
    }
    Source::give_back(p);
  }

  /// Gives every unused block back to the source.
  void trim() noexcept {
    std::lock_guard const lock(mutex_);
    for (auto& blocks : free_) {
      for (void* p : blocks) Source::give_back(p);
      blocks.clear();
    }
  }
  /// Bytes handed out now, and the most there ever were at once.
  [[nodiscard]] std::size_t in_use() const {
    std::lock_guard const lock(mutex_);
    return in_use_;
  }
  [[nodiscard]] std::size_t peak() const {
    std::lock_guard const lock(mutex_);
    return peak_;
  }

 private:
  static bool is_behind(void* a, void* b) { return b < a; }  // so that the front of a heap is the lowest
  /// Multiples of 64 bytes below 1024, then eight classes per power of two: at most 12.5 % of a larger block is unused.
  struct block_class {
    std::size_t bytes;
    std::size_t number;
  };
  static block_class size_class(std::size_t bytes) {
    std::size_t const step = bytes < 1024 ? 64 : std::bit_floor(bytes) / 8;
    std::size_t const steps = bytes == 0 ? 1 : (bytes + step - 1) / step;
    return {steps * step, 8 * static_cast<std::size_t>(std::countr_zero(step / 64)) + steps};
  }
  static constexpr std::size_t most = std::size_t(-1) / 2;  // bytes of a block, whose class has the last number
  static constexpr std::size_t classes = 8 * (std::bit_width(most) - 1 - 3 - 6) + 16 + 1;

  /// A block that somebody has got; whoever calls it holds the lock.
  void count(std::size_t size) {
    in_use_ += size;
    if (in_use_ > peak_) peak_ = in_use_;
  }

  mutable std::mutex mutex_;
  std::vector<void*> free_[classes];  // by the number of their class
  std::size_t in_use_ = 0;
  std::size_t peak_ = 0;
};

}  // namespace ouro
