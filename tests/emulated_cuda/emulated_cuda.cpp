// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The emulated device: fibers, barriers and memory.
#include <emulated_cuda.hpp>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "races.hpp"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx;
dim3 blockIdx;
dim3 blockDim;
dim3 gridDim;

#if defined(__x86_64__)
// Keeps the registers that a call must keep on the stack of the caller, and goes on where another stack was left. (A
// swapcontext asks the kernel for the signal mask, which is a hundred times slower.)
extern "C" void emulated_cuda_switch(void** from, void* to);
asm(R"(
.text
.globl emulated_cuda_switch
.type emulated_cuda_switch, @function
emulated_cuda_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulated_cuda_switch, .-emulated_cuda_switch
)");
#endif

namespace {

constexpr std::size_t usual_shared_bytes = std::size_t{48} << 10U;

thread_local int calls_inside = 0;

/// A call of the driver: it fails before it has done anything where the host has no memory, and else has what it needs.
class driver_call {
 public:
  driver_call() noexcept {
    void* const some = ::operator new(1, std::nothrow);
    refused_ = some == nullptr;
    ::operator delete(some);
    ++calls_inside;
  }
  driver_call(driver_call const&) = delete;
  driver_call& operator=(driver_call const&) = delete;
  ~driver_call() { --calls_inside; }
  [[nodiscard]] bool refused() const noexcept { return refused_; }

 private:
  bool refused_;
};

}  // namespace

bool emulated_cuda::inside() noexcept { return calls_inside > 0; }

namespace emulated_cuda {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t stack_size = 256 * 1024;
#else
constexpr std::size_t stack_size = 32 * 1024;
#endif
constexpr unsigned warp_size = 32;

struct barrier {
  unsigned threads = 0;
  unsigned arrived = 0;
  unsigned generation = 0;
};

struct warp {
  barrier meeting;
  std::uint64_t given[2][warp_size] = {};  // a lane may give again before all have taken
};

/// A stack outlives the fibers that use it one after another; so does what the address sanitizer keeps beside it.
struct stack {
  std::unique_ptr<std::byte[]> bytes = std::make_unique_for_overwrite<std::byte[]>(stack_size);
  stack() { races::own_memory(bytes.get(), stack_size); }
  void* fake = nullptr;
};

/// Bytes that the device copies on its own, or zeroes if there are none to copy.
struct copy_on_its_way {
  void* to;
  void const* from;
  std::size_t bytes;
  unsigned group;
};

struct fiber {
#if defined(__x86_64__)
  void* place = nullptr;
#else
  ucontext_t place{};
#endif
  stack* own = nullptr;  // absent: the launching thread's
  dim3 thread;
  unsigned lane = 0;
  unsigned turn = 0;
  warp* mates = nullptr;
  barrier* waits_at = nullptr;
  unsigned waits_in = 0;  // the generation that must pass
  std::vector<copy_on_its_way> copies;
  unsigned groups = 0;                                       // of copies, that were closed
  std::vector<std::pair<void const*, std::size_t>> factors;  // of products on their way
  bool done = true;
};

/// One block at a time, all of it on the thread that launched.
struct device {
  std::mutex mutex;
  fiber scheduler;
  void const* scheduler_stack = nullptr;
  std::size_t scheduler_size = 0;
  void* scheduler_fake = nullptr;
  std::vector<fiber> fibers;
  std::vector<warp> warps;
  std::vector<std::unique_ptr<stack>> stacks;
  std::vector<stack*> free_stacks;
  fiber* now = nullptr;
  barrier meeting;
  int votes[2] = {};
  unsigned alive = 0;
  std::uint32_t coin = 1;
  bool moved = false;  // a barrier opened or a thread ended since the last look
  std::unique_ptr<std::byte[]> shared;
  std::size_t shared_bytes = 0;
  char const* name = "";
  void (*body)(void*) = nullptr;
  void* data = nullptr;
};

device& gpu() {
  static auto* d = new device;
  return *d;
}

/// What is behind the work that this thread makes the device do, which comes behind it.
thread_local races::moment* behind = nullptr;

/// What the device does while it lives: one task at a time.
class task {
 public:
  explicit task(char const* name) : lock_(gpu().mutex) {
    if (behind != nullptr) *behind = races::begin_task(name, *behind);
  }

 private:
  std::lock_guard<std::mutex> lock_;
};

/// Leaves one stack for another; returns when somebody comes back.
void change(fiber& from, fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  device& d = gpu();
  void*& fake = from.own != nullptr ? from.own->fake : d.scheduler_fake;
  __sanitizer_start_switch_fiber(&fake, to.own != nullptr ? to.own->bytes.get() : d.scheduler_stack,
                                 to.own != nullptr ? stack_size : d.scheduler_size);
#endif
#if defined(__x86_64__)
  emulated_cuda_switch(&from.place, to.place);
#else
  swapcontext(&from.place, &to.place);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

/// Where every fiber begins.
void begin() {
  device& d = gpu();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(d.now->own->fake, &d.scheduler_stack, &d.scheduler_size);
#endif
  d.body(d.data);
  d.now->done = true;
  change(*d.now, d.scheduler);
}

void prepare(fiber& f) {
#if defined(__x86_64__)
  // As emulated_cuda_switch leaves a stack: six registers, where to return to, and no caller above.
  auto** top = reinterpret_cast<void**>(f.own->bytes.get() + stack_size) - 1;  // a call leaves the stack so
  top[0] = nullptr;
  *--top = reinterpret_cast<void*>(&begin);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  f.place = top;
#else
  getcontext(&f.place);
  f.place.uc_stack.ss_sp = f.own->bytes.get();
  f.place.uc_stack.ss_size = stack_size;
  f.place.uc_link = nullptr;
  makecontext(&f.place, begin, 0);
#endif
}

void resume(device& d, fiber& f) {
  d.now = &f;
  threadIdx = f.thread;
  races::runs(static_cast<unsigned>(&f - d.fibers.data()), static_cast<unsigned>(f.mates - d.warps.data()));
  change(d.scheduler, f);
  races::stops();
  if (!f.done) return;
  d.free_stacks.push_back(f.own);
  --d.alive;
  d.moved = true;
}

/// The last that arrives calls `opened` first.
template <class F>
void wait(barrier& b, F const& opened) {
  device& d = gpu();
  if (++b.arrived == b.threads) {
    b.arrived = 0;
    ++b.generation;
    d.moved = true;
    opened();
    return;
  }
  fiber& f = *d.now;
  f.waits_at = &b;
  f.waits_in = b.generation;
  change(f, d.scheduler);
}

void start(device& d, fiber& f) {
  f.done = false;
  f.waits_at = nullptr;
  f.turn = 0;
  f.copies.clear();
  f.groups = 0;
  if (d.free_stacks.empty()) {
    d.stacks.push_back(std::make_unique<stack>());
    d.free_stacks.push_back(d.stacks.back().get());
  }
  f.own = d.free_stacks.back();  // a thread that met no barrier has left it warm
  d.free_stacks.pop_back();
  prepare(f);
  resume(d, f);
}

// A barrier that is missing must not go unseen because threads happen to keep step or to run in their order: a warp runs
// as far as it can before the next one does, and every second block or so begins with the last thread.
void run_block(device& d) {
  unsigned const threads = static_cast<unsigned>(d.fibers.size());
  d.alive = threads;
  d.meeting.arrived = 0;
  std::memset(d.shared.get(), 0xFF, d.shared_bytes);
  for (auto& w : d.warps) w.meeting.arrived = 0;
  races::begin_block();
  d.coin = d.coin * 1664525U + 1013904223U;
  bool const backwards = d.coin >> 31U != 0;
  auto fiber_at = [&](unsigned t) -> fiber& { return d.fibers[backwards ? threads - 1 - t : t]; };
  auto run_warp = [&](unsigned first) {  // up to the fiber that has another warp
    warp const* const mates = fiber_at(first).mates;
    bool moved = true;
    while (moved) {
      moved = false;
      for (unsigned t = first; t < threads && fiber_at(t).mates == mates; ++t) {
        fiber& f = fiber_at(t);
        if (f.done || f.waits_at->generation == f.waits_in) continue;
        resume(d, f);
        moved = true;
      }
    }
  };
  auto for_each_warp = [&](auto const& f) {
    for (unsigned t = 0; t < threads; ++t)
      if (t == 0 || fiber_at(t).mates != fiber_at(t - 1).mates) f(t);
  };
  for_each_warp([&](unsigned first) {
    for (unsigned t = first; t < threads && fiber_at(t).mates == fiber_at(first).mates; ++t) start(d, fiber_at(t));
    run_warp(first);
  });
  while (d.alive > 0) {
    d.moved = false;
    for_each_warp(run_warp);
    if (d.moved) continue;
    std::fprintf(stderr, "emulated device: %s: threads of a block wait for others that never come\n", d.name);
    std::abort();
  }
}

}  // namespace

void run(char const* name, dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*), void* data) {
  task const now(name);
  device& d = gpu();
  unsigned const threads = block.x * block.y * block.z;
  d.name = name;
  d.body = body;
  d.data = data;
  d.shared_bytes = shared_bytes;
  d.shared =
      std::make_unique_for_overwrite<std::byte[]>(shared_bytes);  // of this size, so that a sanitizer knows its end
  races::begin_blocks(d.shared.get(), shared_bytes);
  d.fibers.assign(threads, fiber{});
  d.warps.assign((threads + warp_size - 1) / warp_size, warp{});
  d.meeting.threads = threads;
  for (unsigned t = 0; t < threads; ++t) {
    auto& f = d.fibers[t];
    f.thread = {t % block.x, t / block.x % block.y, t / block.x / block.y};
    f.lane = t % warp_size;
    f.mates = &d.warps[t / warp_size];
    ++f.mates->meeting.threads;
  }
  races::own_memory(d.warps.data(), d.warps.size() * sizeof(warp));
  blockDim = block;
  gridDim = grid;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block(d);
  races::no_memory(d.shared.get(), shared_bytes);
}

std::uint64_t const* exchange(std::uint64_t bits) {
  fiber& f = *gpu().now;
  auto& given = f.mates->given[f.turn++ % 2];
  given[f.lane] = bits;
  meet();
  return given;
}
void meet() {
  wait(gpu().now->mates->meeting, [] {});
}

void copy_later(void* to, void const* from, std::size_t bytes) {
  fiber& f = *gpu().now;
  f.copies.push_back({to, from, bytes, f.groups});
  races::begin_copy(to, from, bytes);
}
void close_copies() { ++gpu().now->groups; }
void finish_copies(unsigned but) {
  fiber& f = *gpu().now;
  auto const still = [&](copy_on_its_way const& c) { return c.group + but >= f.groups; };
  for (auto const& c : f.copies) {
    if (still(c)) continue;
    races::end_copy(c.to, c.from, c.bytes);
    if (c.from != nullptr) std::memcpy(c.to, c.from, c.bytes);
    else std::memset(c.to, 0, c.bytes);
  }
  std::erase_if(f.copies, std::not_fn(still));
}
void finish_copies() {
  close_copies();
  finish_copies(0);
}

void hold_for_product(void const* factor, std::size_t bytes) {
  fiber& f = *gpu().now;
  if (!races::looked_for || f.lane != 0) return;  // for the warp
  f.factors.emplace_back(factor, bytes);
  races::begin_product(factor, bytes);
}
void finish_products() {
  fiber& f = *gpu().now;
  for (auto const& [factor, bytes] : f.factors) races::end_product(factor, bytes);
  f.factors.clear();
}

void* shared_memory() { return gpu().shared.get(); }
int lane() { return static_cast<int>(gpu().now->lane); }

}  // namespace emulated_cuda

void __syncthreads() { emulated_cuda::wait(emulated_cuda::gpu().meeting, emulated_cuda::races::met_block); }
void __syncwarp() {
  auto& d = emulated_cuda::gpu();
  auto* const mates = d.now->mates;
  emulated_cuda::wait(mates->meeting,
                      [&] { emulated_cuda::races::met_warp(static_cast<unsigned>(mates - d.warps.data())); });
}
int __syncthreads_or(int predicate) {
  auto& d = emulated_cuda::gpu();
  unsigned const turn = d.meeting.generation % 2;
  if (d.meeting.arrived == 0) d.votes[turn] = 0;
  d.votes[turn] |= predicate;
  emulated_cuda::wait(d.meeting, emulated_cuda::races::met_block);
  return d.votes[turn];
}
unsigned atomicInc(unsigned* count, unsigned most) {  // no other thread runs
  emulated_cuda::races::takes_ticket(count);
  unsigned const before = *count;
  *count = before >= most ? 0 : before + 1;
  return before;
}

namespace races = emulated_cuda::races;
using emulated_cuda::task;

namespace {

struct memory {
  std::mutex mutex;
  std::map<std::byte const*, std::size_t> blocks;
  std::size_t used = 0;
  std::size_t limit = std::numeric_limits<std::size_t>::max();

  bool holds(void const* p, std::size_t bytes) {
    auto const* at = static_cast<std::byte const*>(p);
    auto const next = blocks.upper_bound(at);
    if (next == blocks.begin()) return false;
    auto const& [start, size] = *std::prev(next);
    return at + bytes <= start + size;
  }
};
memory& heap() {
  static auto* m = new memory;
  return *m;
}
constexpr std::align_val_t alignment{256};

}  // namespace

void emulated_cuda::limit_memory(std::size_t bytes) {
  std::lock_guard const lock(heap().mutex);
  heap().limit = bytes;
}

void emulated_cuda::hand_out(void* p, std::size_t bytes) {
  auto& m = heap();
  std::lock_guard const lock(m.mutex);
  auto const found = m.blocks.find(static_cast<std::byte const*>(p));
  if (found == m.blocks.end()) return;
  std::size_t const size = found->second;
  std::size_t const asked = keeps_memory ? size : bytes;  // work that is enqueued may still use what was there before
  races::bound_memory(p, asked, size);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(p, asked);
  __asan_poison_memory_region(static_cast<std::byte*>(p) + asked, size - asked);
#endif
}

char const* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorNotReady: return "device not ready";
  }
  return "unknown error";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  char const* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  *count = visible != nullptr && *visible == 0 ? 0 : 1;  // as with the driver, an empty list hides the device
  return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated device",     std::size_t{1} << 30U, 9, 0, 4,
                 std::size_t{99} << 10U};  // the smallest limit, that the tests see it
  return cudaSuccess;
}
struct emulated_stream {
  cudaGraph_t captured = nullptr;
  bool lags = false;
  races::moment behind{};                              // how far it has come
  std::deque<std::function<cudaError_t()>> left = {};  // to do
  std::size_t done = 0;
  std::recursive_mutex mutex = {};

  cudaError_t work(std::size_t until) {
    std::lock_guard const lock(mutex);
    cudaError_t status = cudaSuccess;
    while (done < until) {
      auto const next = std::move(left.front());
      left.pop_front();
      ++done;
      if (auto const s = next(); s != cudaSuccess) status = s;
    }
    return status;
  }
  cudaError_t work_all() {
    std::lock_guard const lock(mutex);
    return work(done + left.size());
  }
};
namespace {
/// Those that lag; never destroyed.
std::vector<cudaStream_t>& lagging() {
  static auto* s = new std::vector<cudaStream_t>;
  return *s;
}
/// What the host has waited for.
struct waited {
  std::mutex mutex;
  races::moment behind{};

  void join(races::moment const& m) {
    std::lock_guard const lock(mutex);
    races::join(behind, m);
  }
  races::moment copy() {
    std::lock_guard const lock(mutex);
    return behind;
  }
};
waited& host() {
  static auto* w = new waited;
  return *w;
}

/// Does what comes behind this.
template <class F>
cudaError_t work_behind(races::moment& m, F const& f) {
  auto* const outer = std::exchange(emulated_cuda::behind, &m);
  auto const status = f();
  emulated_cuda::behind = outer;
  return status;
}
/// Now, or when somebody waits for it; as a part of other work at once.
template <class F>
cudaError_t in_turn(cudaStream_t stream, F&& f) {
  if (stream == nullptr) return f();
  auto work = [f = std::forward<F>(f), stream, waited = host().copy()] {
    races::join(stream->behind, waited);
    return work_behind(stream->behind, f);
  };
  if (!stream->lags) return work();
  std::lock_guard const lock(stream->mutex);
  stream->left.emplace_back(std::move(work));
  return cudaSuccess;
}
}  // namespace
cudaError_t cudaDeviceGetStreamPriorityRange(int* last, int* first) {
  *last = 0;
  *first = -1;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int priority) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  *stream = new emulated_stream;
  (*stream)->lags = priority == 0;
  if (priority == 0) lagging().push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  *stream = new emulated_stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  driver_call const call;
  std::lock_guard const lock(stream->mutex);
  auto const status = stream->work_all();
  host().join(stream->behind);
  return status;
}

/// Works on as it is asked: not done the first time, if there was anything left.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  driver_call const call;
  std::lock_guard const lock(stream->mutex);
  if (stream->left.empty()) {
    host().join(stream->behind);
    return cudaSuccess;
  }
  auto const status = stream->work(stream->done + 1);
  return status == cudaSuccess ? cudaErrorNotReady : status;
}

struct emulated_event {
  std::chrono::steady_clock::time_point at;
  cudaStream_t stream = nullptr;
  std::size_t work = 0;  // of the stream that it is behind
  std::shared_ptr<races::moment> behind;
};
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  *event = new emulated_event;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  return in_turn(stream, [from = event->stream, work = event->work, passed = event->behind] {
    auto const status = from->work(work);
    races::join(*emulated_cuda::behind, *passed);
    return status;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  driver_call const call;
  event->at = std::chrono::steady_clock::now();
  std::lock_guard const lock(stream->mutex);
  event->stream = stream;
  event->behind = std::make_shared<races::moment>();
  in_turn(stream, [passed = event->behind] {
    *passed = *emulated_cuda::behind;
    return cudaSuccess;
  });
  event->work = stream->done + stream->left.size();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->at - start->at).count();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  auto& m = heap();
  std::lock_guard const lock(m.mutex);
  if (bytes > m.limit || m.used > m.limit - bytes) return cudaErrorMemoryAllocation;
  *p = ::operator new(bytes, alignment, std::nothrow);
  if (*p == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xFF, bytes);  // a NaN in every floating type
  m.blocks[static_cast<std::byte const*>(*p)] = bytes;
  races::device_memory(*p, bytes);
  m.used += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  driver_call const call;
  for (auto* s : lagging()) s->work_all();
  auto& m = heap();
  std::lock_guard const lock(m.mutex);
  auto const found = m.blocks.find(static_cast<std::byte const*>(p));
  if (found == m.blocks.end()) return cudaErrorInvalidValue;
  m.used -= found->second;
  races::no_memory(p, found->second);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(p, found->second);
#endif
  m.blocks.erase(found);
  ::operator delete(p, alignment);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes) {
  *p = ::operator new(bytes, std::nothrow);
  if (*p == nullptr) return cudaErrorMemoryAllocation;
  races::host_memory(*p, bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  ::operator delete(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  return in_turn(stream, [=] {
    auto& m = heap();
    {
      std::lock_guard const lock(m.mutex);
      void const* device = kind == cudaMemcpyHostToDevice ? to : from;
      void const* host = kind == cudaMemcpyHostToDevice ? from : to;
      if (!m.holds(device, bytes) || m.holds(host, bytes)) return cudaErrorInvalidValue;
    }
    task const now("copy");
    if (kind == cudaMemcpyHostToDevice) races::writes(to, bytes);
    else races::reads(from, bytes);
    std::memcpy(to, from, bytes);
    return cudaSuccess;
  });
}
cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t stream) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  return in_turn(stream, [=] {
    auto& m = heap();
    std::lock_guard const lock(m.mutex);
    if (!m.holds(to, bytes)) return cudaErrorInvalidValue;
    task const now("fill");
    races::writes(to, bytes);
    std::memset(to, byte, bytes);
    return cudaSuccess;
  });
}

emulated_cuda::kernel const* emulated_cuda::known(kernel const& k) {
  driver_call const call;
  static auto* kernels = new std::map<void (*)(), kernel>;
  static std::mutex mutex;
  std::lock_guard const lock(mutex);
  return &kernels->try_emplace(k.function, k).first->second;
}
namespace {
/// What kernels have asked for beyond the usual.
struct shared_memory_requests {
  std::mutex mutex;
  std::map<void const*, std::size_t> bytes;
};
shared_memory_requests& requests() {
  static auto* r = new shared_memory_requests;
  return *r;
}
bool may_have(void const* function, std::size_t shared_bytes) {
  if (shared_bytes <= usual_shared_bytes) return true;
  std::lock_guard const lock(requests().mutex);
  auto const found = requests().bytes.find(function);
  return found != requests().bytes.end() && shared_bytes <= found->second &&
         shared_bytes <= emulated_cuda::shared_memory_limit;
}
}  // namespace
cudaError_t cudaFuncSetAttribute(void const* function, cudaFuncAttribute, int value) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  if (static_cast<std::size_t>(value) > emulated_cuda::shared_memory_limit) return cudaErrorInvalidValue;
  std::lock_guard const lock(requests().mutex);
  requests().bytes[function] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
namespace {
std::function<cudaError_t()> launch_of(cudaKernelNodeParams const& p);
}  // namespace
cudaError_t cudaLaunchKernel(void const* function, dim3 grid, dim3 block, void** parameters, std::size_t shared_bytes,
                             cudaStream_t stream) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  if (!may_have(function, shared_bytes)) return cudaErrorInvalidValue;
  if (stream != nullptr && stream->lags)
    return in_turn(stream, launch_of({const_cast<void*>(function), grid, block, static_cast<unsigned>(shared_bytes),
                                      parameters, nullptr}));
  auto const& kernel = *static_cast<emulated_cuda::kernel const*>(function);
  auto body = [&] { kernel.call(kernel.function, parameters); };
  return in_turn(stream, [&] {
    emulated_cuda::run(
        kernel.name, grid, block, shared_bytes, [](void* f) { (*static_cast<decltype(body)*>(f))(); }, &body);
    return cudaSuccess;
  });
}

struct emulated_node {
  std::size_t number;
  std::vector<std::size_t> before;
  std::function<cudaError_t()> run;
};
struct emulated_graph {
  std::vector<std::unique_ptr<emulated_node>> nodes;

  cudaError_t add(cudaGraphNode_t* node, cudaGraphNode_t const* before, std::size_t count,
                  std::function<cudaError_t()> run) {
    std::vector<std::size_t> numbers;
    for (std::size_t i = 0; i < count; ++i) {
      if (before[i]->number >= nodes.size() || nodes[before[i]->number].get() != before[i])
        return cudaErrorInvalidValue;
      numbers.push_back(before[i]->number);
    }
    nodes.push_back(std::make_unique<emulated_node>(emulated_node{nodes.size(), numbers, std::move(run)}));
    *node = nodes.back().get();
    return cudaSuccess;
  }
  /// Whoever was added last goes first, as far as its edges allow: an edge that is missing gives wrong numbers.
  cudaError_t run() {
    std::vector<char> done(nodes.size(), 0);
    auto const before_all = *emulated_cuda::behind;
    std::vector<races::moment> behind(nodes.size(), before_all);
    for (std::size_t turn = 0; turn < nodes.size(); ++turn) {
      auto ready = [&](emulated_node const& n) {
        bool free = done[n.number] == 0;
        for (auto b : n.before) free = free && done[b] != 0;
        return free;
      };
      std::size_t next = nodes.size() - 1;
      while (!ready(*nodes[next])) --next;
      done[next] = 1;
      for (auto b : nodes[next]->before) races::join(behind[next], behind[b]);
      if (auto const status = work_behind(behind[next], nodes[next]->run); status != cudaSuccess) return status;
    }
    for (auto const& b : behind) races::join(*emulated_cuda::behind, b);
    return cudaSuccess;
  }
};

namespace {

emulated_cuda::graph_count counted_graphs{};

std::function<cudaError_t()> launch_of(cudaKernelNodeParams const& p) {
  auto const& kernel = *static_cast<emulated_cuda::kernel const*>(p.func);
  std::vector<std::vector<std::byte>> values;
  for (std::size_t i = 0; i < kernel.sizes.size(); ++i) {
    auto const* const from = static_cast<std::byte const*>(p.kernelParams[i]);
    values.emplace_back(from, from + kernel.sizes[i]);
  }
  return [p, values]() mutable {
    std::vector<void*> places;
    places.reserve(values.size());
    for (auto& v : values) places.push_back(v.data());
    return cudaLaunchKernel(p.func, p.gridDim, p.blockDim, places.data(), p.sharedMemBytes, nullptr);
  };
}
std::function<cudaError_t()> copy_of(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind) {
  return [=] { return cudaMemcpyAsync(to, from, bytes, kind, nullptr); };
}
cudaError_t set(cudaGraphExec_t ready, cudaGraphNode_t node, std::function<cudaError_t()> run) {
  ++counted_graphs.nodes_set;
  ready->nodes[node->number]->run = std::move(run);
  return cudaSuccess;
}

}  // namespace

emulated_cuda::graph_count emulated_cuda::graphs() { return counted_graphs; }

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  *graph = new emulated_graph;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, cudaGraphNode_t const* before,
                                   std::size_t count, cudaKernelNodeParams const* params) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  if (!may_have(params->func, params->sharedMemBytes)) return cudaErrorInvalidValue;
  return graph->add(node, before, count, launch_of(*params));
}
cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph, cudaGraphNode_t const* before,
                                     std::size_t count, void* to, void const* from, std::size_t bytes,
                                     cudaMemcpyKind kind) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  return graph->add(node, before, count, copy_of(to, from, bytes, kind));
}
cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t* node, cudaGraph_t graph, cudaGraphNode_t const* before,
                                       std::size_t count, cudaGraph_t part) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  auto const own = std::make_shared<emulated_graph>();
  for (auto const& n : part->nodes) own->nodes.push_back(std::make_unique<emulated_node>(*n));
  return graph->add(node, before, count, [own] { return own->run(); });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  *ready = new emulated_graph;
  for (auto const& n : graph->nodes) (*ready)->nodes.push_back(std::make_unique<emulated_node>(*n));
  ++counted_graphs.made;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) { return cudaGraphDestroy(ready); }
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t ready, cudaGraphNode_t node,
                                             cudaKernelNodeParams const* params) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  if (!may_have(params->func, params->sharedMemBytes)) return cudaErrorInvalidValue;
  return set(ready, node, launch_of(*params));
}
cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t ready, cudaGraphNode_t node, void* to, void const* from,
                                               std::size_t bytes, cudaMemcpyKind kind) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  return set(ready, node, copy_of(to, from, bytes, kind));
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  ++counted_graphs.launches;
  if (!stream->lags) return in_turn(stream, [ready] { return ready->run(); });
  auto const now = std::make_shared<emulated_graph>();  // its nodes may be set anew before it runs
  for (auto const& n : ready->nodes) now->nodes.push_back(std::make_unique<emulated_node>(*n));
  return in_turn(stream, [now] { return now->run(); });
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  driver_call const call;
  if (call.refused()) return cudaErrorMemoryAllocation;
  return cudaGraphCreate(&stream->captured, 0);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = std::exchange(stream->captured, nullptr);
  return cudaSuccess;
}

char const* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_ALLOC_FAILED: return "allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE: return "invalid value";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "not supported";
  }
  return "unknown status";
}
cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
namespace {
std::atomic<cudaStream_t> cublas_stream = nullptr;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t stream) {
  cublas_stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

namespace {

/// A factor as it is computed with: to the nearest number with `dropped` bits of mantissa less, ties to even.
template <class T>
T rounded(T x, unsigned dropped) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (dropped == 0) return x;
    auto word = std::bit_cast<std::uint32_t>(x);
    word = (word + (1U << (dropped - 1)) - 1U + ((word >> dropped) & 1U)) >> dropped << dropped;
    return std::bit_cast<T>(word);
  }
  return x;
}

/// A factor that is stored in 16 bits.
struct bf16_bits {
  std::uint16_t bits = 0;
  bf16_bits() = default;
  bf16_bits(float x)
      : bits(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(rounded(x, 16)) >> 16U)) {}    // NOLINT
  operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }  // NOLINT
};

/// A column-major factor, or a batch of them.
struct stored_factor {
  void const* data;
  bool turned;
  std::int64_t leading;
  std::int64_t step;

  template <class S>
  [[nodiscard]] S at(std::int64_t batch, std::int64_t row, std::int64_t column) const {
    return static_cast<S const*>(data)[batch * step + (turned ? column + row * leading : row + column * leading)];
  }
};

/// c = alpha · a b + beta · c + bias, which runs along columns and may be absent.
struct stored_product {
  std::int64_t m, n, k, batches;
  stored_factor a, b;
  void* c;
  std::int64_t leading, step;
  cudaDataType factors, result;
  cublasComputeType_t computed;
  void const* alpha;
  void const* beta;
  void const* bias;
  void* workspace;
  std::size_t workspace_bytes;
};

template <class S, class C, class T>
void multiply(stored_product const& p, unsigned dropped) {
  T const alpha = *static_cast<T const*>(p.alpha);
  T const beta = *static_cast<T const*>(p.beta);
  for (std::int64_t s = 0; s < p.batches; ++s)
    for (std::int64_t j = 0; j < p.n; ++j)
      for (std::int64_t i = 0; i < p.m; ++i) {
        T sum = 0;
        for (std::int64_t l = 0; l < p.k; ++l)
          sum += rounded(static_cast<T>(p.a.at<S>(s, i, l)), dropped) *
                 rounded(static_cast<T>(p.b.at<S>(s, l, j)), dropped);
        C& to = static_cast<C*>(p.c)[s * p.step + i + j * p.leading];
        sum *= alpha;
        if (beta != T(0)) sum += beta * static_cast<T>(to);
        if (p.bias != nullptr) sum += static_cast<T>(static_cast<C const*>(p.bias)[i]);
        to = static_cast<C>(sum);
      }
}

std::size_t size_of(cudaDataType type) { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }

/// What is read and written of a product.
void touch(stored_product const& p) {
  auto columns = [](auto const& f, void const* from, std::int64_t rows, std::int64_t count, std::int64_t leading,
                    std::int64_t step, std::size_t size, std::int64_t batches) {
    for (std::int64_t s = 0; s < batches; ++s)
      for (std::int64_t j = 0; j < count; ++j)
        f(static_cast<std::byte const*>(from) + static_cast<std::size_t>(s * step + j * leading) * size,
          static_cast<std::size_t>(rows) * size);
  };
  auto factor = [&](stored_factor const& f, std::int64_t rows, std::int64_t count) {
    if (f.turned) std::swap(rows, count);
    columns(races::reads, f.data, rows, count, f.leading, f.step, size_of(p.factors), p.batches);
  };
  factor(p.a, p.m, p.k);
  factor(p.b, p.k, p.n);
  std::size_t const size = size_of(p.result);
  if (p.bias != nullptr) races::reads(p.bias, static_cast<std::size_t>(p.m) * size);
  bool const adds = p.computed == CUBLAS_COMPUTE_64F ? *static_cast<double const*>(p.beta) != 0
                                                     : *static_cast<float const*>(p.beta) != 0;
  if (adds) columns(races::reads, p.c, p.m, p.n, p.leading, p.step, size, p.batches);
  columns(races::writes, p.c, p.m, p.n, p.leading, p.step, size, p.batches);
  if (p.workspace == nullptr) return;
  races::writes(p.workspace, p.workspace_bytes);
  std::memset(p.workspace, 0xFF, p.workspace_bytes);
}

cublasStatus_t multiply(stored_product const& p) {
  task const now("product");
  bool const in_f64 = p.computed == CUBLAS_COMPUTE_64F;
  bool const narrow = p.factors == CUDA_R_16BF && p.computed == CUBLAS_COMPUTE_32F;
  auto const expected = in_f64 ? CUDA_R_64F : CUDA_R_32F;
  bool const fits = p.result == expected || (narrow && p.result == CUDA_R_16BF);
  if ((!narrow && p.factors != expected) || !fits) return CUBLAS_STATUS_NOT_SUPPORTED;
  unsigned const dropped = p.computed == CUBLAS_COMPUTE_32F_FAST_16BF   ? 16
                           : p.computed == CUBLAS_COMPUTE_32F_FAST_TF32 ? 13
                                                                        : 0;
  touch(p);
  if (in_f64) multiply<double, double, double>(p, dropped);
  else if (p.result == CUDA_R_16BF) multiply<bf16_bits, bf16_bits, float>(p, dropped);
  else if (narrow) multiply<bf16_bits, float, float>(p, dropped);
  else multiply<float, float, float>(p, dropped);
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb, std::int64_t m,
                                             std::int64_t n, std::int64_t k, void const* alpha, void const* a,
                                             cudaDataType type_a, std::int64_t lda, long long step_a, void const* b,
                                             cudaDataType type_b, std::int64_t ldb, long long step_b, void const* beta,
                                             void* c, cudaDataType type_c, std::int64_t ldc, long long step_c,
                                             std::int64_t batches, cublasComputeType_t computed, cublasGemmAlgo_t) {
  driver_call const call;
  if (call.refused()) return CUBLAS_STATUS_ALLOC_FAILED;
  if (type_a != type_b) return CUBLAS_STATUS_NOT_SUPPORTED;
  stored_factor const left{a, ta == CUBLAS_OP_T, lda, step_a};
  stored_factor const right{b, tb == CUBLAS_OP_T, ldb, step_b};
  double by = 0;  // or a float
  double plus = 0;
  auto const bytes = computed == CUBLAS_COMPUTE_64F ? sizeof(double) : sizeof(float);
  std::memcpy(&by, alpha, bytes);
  std::memcpy(&plus, beta, bytes);
  auto const run = [=] {
    stored_product const p{m,      n,      k,        batches, left,  right,   c,       ldc, step_c,
                           type_a, type_c, computed, &by,     &plus, nullptr, nullptr, 0};
    return multiply(p) == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
  };
  return in_turn(cublas_stream, run) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

struct emulated_operation {
  cublasComputeType_t computed;
  cudaDataType scaled;
  std::int32_t ta = CUBLAS_OP_N;
  std::int32_t tb = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void const* bias = nullptr;

  [[nodiscard]] bool has_bias() const { return epilogue == CUBLASLT_EPILOGUE_BIAS; }
};
struct emulated_layout {
  cudaDataType type;
  std::uint64_t rows;
  std::uint64_t columns;
  std::int64_t leading;
  std::int32_t batches = 1;
  std::int64_t step = 0;
};
struct emulated_preference {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t a = 256;
  std::uint32_t b = 256;
  std::uint32_t c = 256;
  std::uint32_t d = 256;
};

namespace {

emulated_cuda::product_count computed_products{};

/// An attribute of the size that it has.
template <class T>
cublasStatus_t take(T& to, void const* from, std::size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

/// What the emulated algorithm relies on.
struct algorithm {
  std::uint64_t a, b, c, d, bias, workspace_bytes;
};
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t));

bool aligned(void const* p, std::uint64_t to) { return reinterpret_cast<std::uintptr_t>(p) % to == 0; }
std::uint64_t alignment_of(void const* p) {
  std::uint64_t to = 256;
  while (!aligned(p, to)) to /= 2;
  return to;
}

}  // namespace

emulated_cuda::product_count emulated_cuda::products() { return computed_products; }

char const* cublasLtGetStatusString(cublasStatus_t status) { return cublasGetStatusString(status); }
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return cublasCreate_v2(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t computed,
                                        cudaDataType scaled) {
  driver_call const call;
  if (call.refused()) return CUBLAS_STATUS_ALLOC_FAILED;
  *operation = new emulated_operation{computed, scaled};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                              void const* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(operation->ta, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(operation->tb, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(operation->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(operation->bias, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
  driver_call const call;
  if (call.refused()) return CUBLAS_STATUS_ALLOC_FAILED;
  *layout = new emulated_layout{type, rows, columns, leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, void const* value,
                                                std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return take(layout->batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return take(layout->step, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  driver_call const call;
  if (call.refused()) return CUBLAS_STATUS_ALLOC_FAILED;
  *preference = new emulated_preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, void const* value,
                                                    std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return take(preference->workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return take(preference->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return take(preference->a, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return take(preference->b, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return take(preference->c, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return take(preference->d, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  *count = 0;
  if (most < 1) return CUBLAS_STATUS_INVALID_VALUE;
  if (operation->computed == CUBLAS_COMPUTE_64F) return CUBLAS_STATUS_NOT_SUPPORTED;
  std::uint64_t const bias = operation->has_bias() ? alignment_of(operation->bias) : 1;
  algorithm const chosen{preference->a, preference->b, preference->c, preference->d, bias, 256};
  if (bias < 16 && operation->has_bias()) return CUBLAS_STATUS_INVALID_VALUE;
  if (preference->workspace_bytes < chosen.workspace_bytes) return CUBLAS_STATUS_SUCCESS;
  std::memcpy(results->algo.data, &chosen, sizeof(chosen));
  results->workspaceSize = chosen.workspace_bytes;
  results->state = CUBLAS_STATUS_SUCCESS;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, void const* alpha, void const* a,
                              cublasLtMatrixLayout_t of_a, void const* b, cublasLtMatrixLayout_t of_b, void const* beta,
                              void const* c, cublasLtMatrixLayout_t of_c, void* d, cublasLtMatrixLayout_t of_d,
                              cublasLtMatmulAlgo_t const* algo, void* workspace, std::size_t workspace_bytes,
                              cudaStream_t stream) {
  driver_call const call;
  if (call.refused()) return CUBLAS_STATUS_ALLOC_FAILED;
  algorithm chosen{};
  std::memcpy(&chosen, algo->data, sizeof(chosen));
  bool const ta = operation->ta == CUBLAS_OP_T;
  bool const tb = operation->tb == CUBLAS_OP_T;
  std::uint64_t const inner = ta ? of_a->rows : of_a->columns;
  bool const places = aligned(a, chosen.a) && aligned(b, chosen.b) && aligned(c, chosen.c) && aligned(d, chosen.d) &&
                      (!operation->has_bias() || aligned(operation->bias, chosen.bias));
  bool const sizes = (ta ? of_a->columns : of_a->rows) == of_d->rows && (tb ? of_b->columns : of_b->rows) == inner &&
                     (tb ? of_b->rows : of_b->columns) == of_d->columns && of_a->batches == of_d->batches &&
                     of_b->batches == of_d->batches;
  auto apart = [](emulated_layout const& l) { return l.leading >= static_cast<std::int64_t>(l.rows); };
  bool const layouts = apart(*of_a) && apart(*of_b) && apart(*of_d) && c == d && of_c == of_d;
  bool const room = workspace != nullptr && aligned(workspace, 256) && workspace_bytes >= chosen.workspace_bytes;
  bool const types = of_a->type == of_b->type && operation->scaled == CUDA_R_32F;
  if (!places || !sizes || !layouts || !room || !types) return CUBLAS_STATUS_INVALID_VALUE;
  auto compute = [asked = stored_product{static_cast<std::int64_t>(of_d->rows),
                                         static_cast<std::int64_t>(of_d->columns), static_cast<std::int64_t>(inner),
                                         of_d->batches, stored_factor{a, ta, of_a->leading, of_a->step},
                                         stored_factor{b, tb, of_b->leading, of_b->step}, d, of_d->leading, of_d->step,
                                         of_a->type, of_d->type, operation->computed, nullptr, nullptr,
                                         operation->has_bias() ? operation->bias : nullptr, workspace,
                                         chosen.workspace_bytes},
                  by = *static_cast<float const*>(alpha), plus = *static_cast<float const*>(beta)] {
    ++computed_products.all;
    if (asked.bias != nullptr) ++computed_products.with_bias;
    auto p = asked;
    p.alpha = &by;
    p.beta = &plus;
    return multiply(p);
  };
  auto const run = [compute] { return compute() == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorInvalidValue; };
  if (stream == nullptr || stream->captured == nullptr)
    return in_turn(stream, run) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
  auto& nodes = stream->captured->nodes;
  cudaGraphNode_t const before = nodes.empty() ? nullptr : nodes.back().get();
  cudaGraphNode_t node = nullptr;
  return stream->captured->add(&node, &before, nodes.empty() ? 0 : 1, run) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                                          : CUBLAS_STATUS_INVALID_VALUE;
}
