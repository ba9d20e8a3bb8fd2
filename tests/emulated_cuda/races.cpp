// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Looks at every access of a kernel to memory, and reports
// - two threads of a block that access a place, one of them to write, with no barrier of the block or of their warp between
//   them: a shuffle and a product of a warp order nothing in memory;
// - two blocks of a launch that do so, unless the second has taken a ticket after the first;
// - two tasks that do so, kernels, copies or products, which no stream, event, graph or wait of the host has put in order;
// - what is read before it was written, and accesses to what is no memory of the device;
// - copies and products that the device makes on its own, if what they use is accessed before somebody has waited.
// These are found whatever order the threads and tasks happened to run in. (Flanagan & Freund, "FastTrack: efficient and
// precise dynamic race detection", 2009, where all clocks of a block's threads are those of its barriers.)
#include "races.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <unistd.h>

extern "C" {
extern char const __executable_start;  // of the linker
extern char const end;
}

namespace emulated_cuda::races {
namespace {

constexpr unsigned warp_size = 32;
constexpr std::size_t page_bytes = 4096;
constexpr std::size_t word_bytes = 4;

enum class kind : std::uint8_t { none, device, host, own, shared, fixed };  // fixed: shared memory of a known size

struct access {
  std::uint32_t block = 0;  // of all launches; 0 is none
  std::uint32_t from = 0;   // the place in the program
  std::uint16_t thread = 0;
  std::uint16_t barrier = 0;  // how many of the block were passed
  std::uint16_t meeting = 0;  // how many of the warp were passed

  [[nodiscard]] unsigned warp() const { return thread / warp_size; }
  /// Whether no barrier was between this and another of the same thread.
  [[nodiscard]] bool with(access const& a) const {
    return block == a.block && thread == a.thread && barrier == a.barrier && meeting == a.meeting;
  }
};

/// A byte: who wrote it last, and of those who have read it since the last, and whether there were others.
struct byte_record {
  access write;
  access read;
  std::uint16_t products = 0;  // that may still read it
  kind what = kind::none;
  bool written = false;
  bool copied = false;      // by a copy that nobody has waited for
  bool many_lanes = false;  // of read.warp() have read it since they met
  bool many_warps = false;  // of read.block have read it since their barrier
  bool many_blocks = false;
};
/// Four bytes: the tasks that wrote them last and that have read them since.
struct word_record {
  std::uint32_t write = 0;
  std::uint32_t chain = 0;
  moment read{};
};
struct page {
  byte_record bytes[page_bytes];
  word_record words[page_bytes / word_bytes];
};

struct detector {
  std::mutex mutex;  // of the pages' map; everything else belongs to whoever has the device
  std::unordered_map<std::uintptr_t, std::unique_ptr<page>> pages;
  struct near {
    std::uintptr_t number = 0;
    page* found = nullptr;
  };
  std::array<near, 1024> near_pages;
  std::atomic<bool> erased = false;  // pages, of which some may be near

  moment last{};                                            // of each chain
  std::array<std::vector<char const*>, most_chains> names;  // of its tasks
  std::size_t chain = 0;
  std::uint32_t number = 0;
  moment behind{};
  char const* name = "";

  std::uint32_t first_block = 1;  // of this launch
  std::uint32_t next_block = 1;
  access now;
  std::vector<std::uint16_t> meetings;  // of the block's warps
  std::unordered_map<void const*, std::vector<std::pair<std::uint32_t, std::uint32_t>>> tickets;  // blocks and barriers
  std::unordered_map<std::uint32_t, std::uint32_t> acquired;                                      // by this block

  std::set<std::tuple<std::string, std::uint32_t, std::uint32_t>> reported;
  std::vector<std::string> reports;

  page* page_of(std::uintptr_t at, bool wanted) {
    std::lock_guard const lock(mutex);
    auto found = pages.find(at / page_bytes);
    if (found == pages.end()) {
      if (!wanted) return nullptr;
      found = pages.emplace(at / page_bytes, std::make_unique<page>()).first;
    }
    return found->second.get();
  }
  /// The same for whoever has the device.
  page* near_page(std::uintptr_t at, bool wanted) {
    std::uintptr_t const n = at / page_bytes;
    auto& known = near_pages[n % near_pages.size()];
    if (known.found == nullptr || known.number != n) known = {n, page_of(at, wanted)};
    return known.found;
  }
};
detector& all() {
  static auto* d = new detector;
  return *d;
}
thread_local bool running = false;

bool fixed(std::uintptr_t at) {
  return at >= reinterpret_cast<std::uintptr_t>(&__executable_start) && at < reinterpret_cast<std::uintptr_t>(&end);
}

/// f(page, first, last) for the parts of a run of bytes that lie in one page each; addresses, the last is one beyond.
template <class F>
void each_page(void const* p, std::size_t bytes, F const& f) {
  auto at = reinterpret_cast<std::uintptr_t>(p);
  std::uintptr_t const last = at + bytes;
  while (at < last) {
    std::uintptr_t const next = std::min(last, (at / page_bytes + 1) * page_bytes);
    f(at, next);
    at = next;
  }
}

void mark(void const* p, std::size_t bytes, kind what) {
  each_page(p, bytes, [&](std::uintptr_t first, std::uintptr_t last) {
    page* const found = all().page_of(first, true);
    for (std::uintptr_t at = first; at < last; ++at) {
      auto& b = found->bytes[at % page_bytes];
      b = {};
      b.what = what;
      found->words[at % page_bytes / word_bytes] = {};
    }
  });
}

/// A line of the program, as the debugger's tables have it.
std::string line_of(std::uint32_t from) {
  char command[128];
  std::snprintf(command, sizeof(command), "addr2line -Cfpi -e /proc/%d/exe 0x%x", static_cast<int>(getpid()), from);
  std::string text;
  if (FILE* const pipe = popen(command, "r")) {
    char piece[512];
    while (std::fgets(piece, sizeof(piece), pipe) != nullptr) text += "    " + std::string(piece);
    pclose(pipe);
  }
  return text;
}

/// Once for two places in the program.
void report(char const* what, std::uintptr_t at, access const& other = {}, char const* other_task = nullptr) {
  auto& d = all();
  if (!d.reported.emplace(what, d.now.from, other.from).second) return;
  static int const at_exit = std::atexit([] {
    if (!all().reports.empty()) std::_Exit(9);
  });
  static_cast<void>(at_exit);
  if (std::find(d.reports.begin(), d.reports.end(), what) == d.reports.end()) d.reports.emplace_back(what);
  if (!prints) return;
  auto name = [&](access const& a) {
    std::string text =
        "block " + std::to_string(a.block - d.first_block) + ", thread " + std::to_string(a.thread) + "\n";
    return text + line_of(a.from);
  };
  bool const outer = std::exchange(running, false);
  std::fprintf(stderr, "races: %s: %s, at %#zx\n", d.name, what, static_cast<std::size_t>(at));
  if (d.now.block != 0) std::fprintf(stderr, "  %s", name(d.now).c_str());
  if (other_task != nullptr) std::fprintf(stderr, "  and %s\n", other_task);
  if (other.block != 0) std::fprintf(stderr, "  and %s", name(other).c_str());
  running = outer;
}

bool before_now(detector& d, access const& a, bool shared) {
  auto const& now = d.now;
  if (a.block == now.block)
    return a.thread == now.thread || a.barrier < now.barrier || (a.warp() == now.warp() && a.meeting < now.meeting);
  if (shared || a.block < d.first_block) return true;  // of another block, or of another task, which words know
  auto const found = d.acquired.find(a.block);
  return found != d.acquired.end() && a.barrier < found->second;
}

void check_words(detector& d, page& p, std::uintptr_t at, bool writes) {
  auto& w = p.words[at % page_bytes / word_bytes];
  if (w.write > d.behind[w.chain])
    report(writes ? "written, and written by another task" : "read, and written by another task", at, {},
           d.names[w.chain][w.write - 1]);
  if (!writes) {
    w.read[d.chain] = d.number;
    return;
  }
  for (std::size_t i = 0; i < most_chains; ++i)
    if (w.read[i] > d.behind[i]) report("written, and read by another task", at, {}, d.names[i][w.read[i] - 1]);
  w = {};
  w.write = d.number;
  w.chain = static_cast<std::uint32_t>(d.chain);
}

void check_read(detector& d, byte_record& b, std::uintptr_t at, bool shared) {
  auto const& now = d.now;
  if (now.block != 0 && b.read.with(now) && !b.copied) return;
  if (b.copied) report("read, and a copy to it is on its way", at, b.write);
  if (b.write.block != 0 && !before_now(d, b.write, shared)) report("read, and written by another thread", at, b.write);
  if (b.what == kind::device && !b.written) report("read, and never written", at);

  if (b.read.block != now.block) {
    b.many_blocks = !shared && b.read.block >= d.first_block;  // 0 is before all
    b.many_lanes = b.many_warps = false;
  } else if (b.read.barrier != now.barrier) {
    b.many_lanes = b.many_warps = false;
  } else if (b.read.warp() != now.warp()) {
    b.many_warps = true;
    b.many_lanes = false;
  } else if (b.read.meeting != now.meeting) {
    b.many_lanes = false;
  } else if (b.read.thread != now.thread) {
    b.many_lanes = true;
  }
  b.read = now;
}

void check_write(detector& d, byte_record& b, std::uintptr_t at, bool shared) {
  auto const& now = d.now;
  if (b.copied) report("written, and a copy to it is on its way", at, b.write);
  if (b.products > 0) report("written, and a product of it is on its way", at, b.read);
  if (b.write.block != 0 && !before_now(d, b.write, shared))
    report("written, and written by another thread", at, b.write);
  bool const others = b.read.block == now.block && b.read.barrier == now.barrier &&
                      (b.many_warps || (b.many_lanes && b.read.warp() == now.warp() && b.read.meeting == now.meeting));
  if (b.read.block != 0 &&
      (others || (b.many_blocks && b.read.block >= d.first_block) || !before_now(d, b.read, shared)))
    report("written, and read by another thread", at, b.read);
  b.read = {};
  b.many_lanes = b.many_warps = b.many_blocks = false;
  b.write = now;
  b.written = true;
}

/// An access of the task that runs: of d.now, or of all of it where that is no thread.
template <bool Writes>
void touch(detector& d, void const* p, std::size_t bytes) {
  bool const of_kernel = d.now.block != 0;
  each_page(p, bytes, [&](std::uintptr_t first, std::uintptr_t last) {
    bool const is_fixed = of_kernel && fixed(first);
    page* const found = d.near_page(first, is_fixed);
    std::uintptr_t word = 0;
    for (std::uintptr_t at = first; at < last; ++at) {
      byte_record* const b = found != nullptr ? &found->bytes[at % page_bytes] : nullptr;
      if (is_fixed) b->what = kind::fixed;
      if (b == nullptr || b->what == kind::none || (!of_kernel && b->what != kind::device))
        return report("no memory of the device", at);
      if (b->what == kind::own) return;
      bool const shared = b->what == kind::shared || is_fixed;
      if constexpr (Writes) check_write(d, *b, at, shared);
      else check_read(d, *b, at, shared);
      if (!shared && at / word_bytes != word) {
        word = at / word_bytes;
        check_words(d, *found, at, Writes);
      }
    }
  });
}
template <bool Writes>
void touch_by_thread(void const* p, std::size_t bytes, void const* caller) {
  if (!running) return;
  auto& d = all();
  d.now.from = static_cast<std::uint32_t>(static_cast<char const*>(caller) - &__executable_start);
  touch<Writes>(d, p, bytes);
}
template <bool Writes>
void touch_by_task(void const* p, std::size_t bytes) {
  auto& d = all();
  d.now = {};
  touch<Writes>(d, p, bytes);
}
void touch_by_copy(void* to, void const* from, std::size_t bytes, void const* caller) {
  if (from != nullptr) touch_by_thread<false>(from, bytes, caller);
  touch_by_thread<true>(to, bytes, caller);
}

template <class F>
void each_record(void const* p, std::size_t bytes, F const& f) {
  each_page(p, bytes, [&](std::uintptr_t first, std::uintptr_t last) {
    page* const found = all().near_page(first, false);
    for (std::uintptr_t at = first; found != nullptr && at < last; ++at) f(found->bytes[at % page_bytes]);
  });
}

}  // namespace

std::vector<std::string> take_reports() {
  all().reported.clear();
  std::sort(all().reports.begin(), all().reports.end());
  return std::exchange(all().reports, {});
}

void device_memory(void const* p, std::size_t bytes) { mark(p, bytes, kind::device); }
void bound_memory(void const* p, std::size_t bytes, std::size_t size) {
  each_page(p, size, [&](std::uintptr_t first, std::uintptr_t last) {
    page* const found = all().page_of(first, true);
    for (std::uintptr_t at = first; at < last; ++at) {
      auto& b = found->bytes[at % page_bytes];
      bool const asked = at - reinterpret_cast<std::uintptr_t>(p) < bytes;
      if (asked != (b.what == kind::device)) {
        b = {};
        b.what = asked ? kind::device : kind::none;
      }
    }
  });
}
void host_memory(void const* p, std::size_t bytes) { mark(p, bytes, kind::host); }
void own_memory(void const* p, std::size_t bytes) { mark(p, bytes, kind::own); }
void no_memory(void const* p, std::size_t bytes) {
  auto& d = all();
  each_page(p, bytes, [&](std::uintptr_t first, std::uintptr_t last) {
    if (last - first < page_bytes) return mark(reinterpret_cast<void const*>(first), last - first, kind::none);
    std::lock_guard const lock(d.mutex);
    d.pages.erase(first / page_bytes);
    d.erased = true;
  });
}

moment begin_task(char const* name, moment const& before) {
  auto& d = all();
  if (d.erased.exchange(false)) d.near_pages.fill({});
  d.chain = most_chains;
  for (std::size_t i = 0; i < most_chains; ++i)
    if (d.last[i] <= before[i] && (d.chain == most_chains || before[i] > before[d.chain])) d.chain = i;
  if (d.chain == most_chains) {
    std::fprintf(stderr, "races: more than %zu tasks at the same time\n", most_chains);
    std::abort();
  }
  d.number = ++d.last[d.chain];
  d.names[d.chain].push_back(name);
  d.name = name;
  d.behind = before;
  d.behind[d.chain] = d.number;
  d.first_block = d.next_block;
  return d.behind;
}
void reads(void const* p, std::size_t bytes) { touch_by_task<false>(p, bytes); }
void writes(void const* p, std::size_t bytes) { touch_by_task<true>(p, bytes); }

void begin_blocks(void const* shared, std::size_t bytes) {
  auto& d = all();
  d.tickets.clear();
  mark(shared, bytes, kind::shared);
}
void begin_block() {
  auto& d = all();
  d.now = {};
  d.now.block = d.next_block++;
  d.meetings.assign(warp_size, 0);
  d.acquired.clear();
}
void runs(unsigned thread, unsigned warp) {
  auto& d = all();
  d.now.thread = static_cast<std::uint16_t>(thread);
  d.now.meeting = d.meetings[warp];
  running = true;
}
void stops() { running = false; }
void met_block() { ++all().now.barrier; }
void met_warp(unsigned warp) {
  auto& d = all();
  ++d.meetings[warp];
  if (d.now.warp() == warp) d.now.meeting = d.meetings[warp];
}
void takes_ticket(void const* ticket) {
  auto& d = all();
  auto& takers = d.tickets[ticket];
  for (auto const& [block, barrier] : takers) d.acquired[block] = barrier;
  takers.emplace_back(d.now.block, d.now.barrier);
}

void begin_copy(void* to, void const* from, std::size_t bytes) {
  touch_by_copy(to, from, bytes, __builtin_return_address(0));
  each_record(to, bytes, [](byte_record& b) { b.copied = true; });
}
void end_copy(void* to, void const* from, std::size_t bytes) {
  each_record(to, bytes, [](byte_record& b) { b.copied = false; });
  touch_by_copy(to, from, bytes, __builtin_return_address(0));
}
void begin_product(void const* factor, std::size_t bytes) {
  each_record(factor, bytes, [](byte_record& b) { ++b.products; });
}
void end_product(void const* factor, std::size_t bytes) {
  each_record(factor, bytes, [](byte_record& b) { --b.products; });
}

}  // namespace emulated_cuda::races

// What the compiler calls.
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define OURO_ACCESS(name, writes, bytes) \
  void name(void* p) { emulated_cuda::races::touch_by_thread<writes>(p, bytes, __builtin_return_address(0)); }
#define OURO_ACCESSES(bytes)                              \
  OURO_ACCESS(__tsan_read##bytes, false, bytes)           \
  OURO_ACCESS(__tsan_write##bytes, true, bytes)           \
  OURO_ACCESS(__tsan_unaligned_read##bytes, false, bytes) \
  OURO_ACCESS(__tsan_unaligned_write##bytes, true, bytes)
OURO_ACCESSES(1)
OURO_ACCESSES(2)
OURO_ACCESSES(4)
OURO_ACCESSES(8)
OURO_ACCESSES(16)
void __tsan_read_range(void* p, std::size_t bytes) {
  emulated_cuda::races::touch_by_thread<false>(p, bytes, __builtin_return_address(0));
}
void __tsan_write_range(void* p, std::size_t bytes) {
  emulated_cuda::races::touch_by_thread<true>(p, bytes, __builtin_return_address(0));
}
// Of the host's part of a source.
#define OURO_ATOMIC(bits)                                                                                   \
  std::uint##bits##_t __tsan_atomic##bits##_load(std::uint##bits##_t const* p, int) {                       \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                            \
  }                                                                                                         \
  void __tsan_atomic##bits##_store(std::uint##bits##_t* p, std::uint##bits##_t x, int) {                    \
    __atomic_store_n(p, x, __ATOMIC_SEQ_CST);                                                               \
  }                                                                                                         \
  std::uint##bits##_t __tsan_atomic##bits##_exchange(std::uint##bits##_t* p, std::uint##bits##_t x, int) {  \
    return __atomic_exchange_n(p, x, __ATOMIC_SEQ_CST);                                                     \
  }                                                                                                         \
  std::uint##bits##_t __tsan_atomic##bits##_fetch_add(std::uint##bits##_t* p, std::uint##bits##_t x, int) { \
    return __atomic_fetch_add(p, x, __ATOMIC_SEQ_CST);                                                      \
  }
OURO_ATOMIC(8)
OURO_ATOMIC(32)
OURO_ATOMIC(64)
}
