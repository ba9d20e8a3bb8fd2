// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The pool of memory blocks: what a class of sizes is, and which block is handed out again.
#include <catch2/catch_test_macros.hpp>

#include <cstdint>
#include <limits>
#include <set>

#include <ouro/tensor/memory_pool.hpp>

namespace {

/// A source of addresses that nobody reads.
struct numbered_blocks {
  static constexpr bool keeps_blocks = true;
  static constexpr bool lowest_first = true;
  static inline std::uintptr_t next = 1;
  static inline std::size_t left = std::numeric_limits<std::size_t>::max();
  static inline std::size_t last = 0;  // bytes that were asked for
  static inline int given_back = 0;
  static void* take(std::size_t bytes) noexcept {
    last = bytes;
    if (bytes > left) return nullptr;
    return reinterpret_cast<void*>(next++);
  }
  static void hand_out(void*, std::size_t) noexcept {}
  static void give_back(void*) noexcept { ++given_back; }
};
using pool = ouro::memory_pool<numbered_blocks>;

}  // namespace

TEST_CASE("memory pool: a block has room, an eighth more at most, and serves every size of its class") {
  pool p;
  std::set<std::size_t> classes;
  for (int power = 0; power < 40; ++power)
    for (std::size_t part : {8, 9, 10, 12, 15})
      for (std::size_t off : {0, 1, 2}) {
        std::size_t const bytes = (std::size_t{1} << power) * part / 8 + off - 1;
        INFO(bytes);
        void* const block = p.allocate(bytes);
        std::size_t const size = p.in_use();
        CHECK(size >= bytes);
        CHECK(size <= (bytes < 1024 ? bytes + 64 : bytes + bytes / 8 + 1));
        CHECK(size % 64 == 0);
        p.deallocate(block, bytes);
        CHECK(p.in_use() == 0);
        CHECK(p.allocate(size) == block);  // the largest of its class
        p.deallocate(block, size);
        classes.insert(size);
        void* const larger = p.allocate(size + 1);
        CHECK(larger != block);
        p.deallocate(larger, size + 1);
      }
  CHECK(classes.size() > 100);
}

TEST_CASE("memory pool: the lowest block is handed out first, and unused ones are given back where memory is short") {
  pool p;
  void* const a = p.allocate(100);
  void* const b = p.allocate(100);
  void* const c = p.allocate(100);
  CHECK(p.peak() == 3 * 128);
  for (void* block : {b, c, a}) p.deallocate(block, 100);
  CHECK(p.allocate(128) == a);
  CHECK(p.allocate(65) == b);
  numbered_blocks::left = 1000;
  numbered_blocks::given_back = 0;
  CHECK_THROWS_AS(p.allocate(5000), std::bad_alloc);
  CHECK(numbered_blocks::given_back == 1);  // c
  CHECK(p.in_use() == 2 * 128);
  CHECK(p.peak() == 3 * 128);  // what nobody got was never in use
  numbered_blocks::left = std::numeric_limits<std::size_t>::max();
  numbered_blocks::last = 0;
  CHECK_THROWS_AS(p.allocate(std::numeric_limits<std::size_t>::max() - 10), std::bad_alloc);
  CHECK(numbered_blocks::last == 0);  // nobody was asked for a size that has wrapped around
  std::size_t const most = std::numeric_limits<std::size_t>::max() / 2;
  p.deallocate(p.allocate(most), most);
}
