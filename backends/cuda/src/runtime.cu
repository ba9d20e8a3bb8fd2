// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The device, its stream and its memory, and the way of values to it and back.
#include <ouro/backend/reference/elementwise.hpp>
#include <ouro/tensor/memory_pool.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "device.hpp"

namespace ouro {
namespace cuda_kernels {

void check(cudaError_t status, char const* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that passes is not reported again by the next call
  if (status == cudaErrorMemoryAllocation) throw std::bad_alloc();
  fail(errc::unavailable, "cuda", what, ": ", cudaGetErrorString(status));
}

namespace {

/// Blocks of device memory. A block that is given to the pool may still be in use by work that was enqueued; whoever gets
/// the block next is behind it. To the driver it goes by cudaFree, which waits for what is in the stream. The same calls
/// get the same blocks again, so that runs of them are found to be alike.
struct device_blocks {
  static constexpr bool lowest_first = true;
#if defined(__CUDACC__)
  static constexpr bool keeps_blocks = true;
#else
  // Fresh memory is NaN, and a sanitizer sees every use after free.
  static constexpr bool const& keeps_blocks = emulated_cuda::keeps_memory;
#endif
  static void* take(std::size_t bytes) noexcept {
    void* p = nullptr;
    if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
    give_way();
    bool const made = cudaMalloc(&p, bytes) == cudaSuccess;
    cudaGetLastError();  // nobody else is to be told
    return made ? p : nullptr;
  }
  static void hand_out([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes) noexcept {
#if !defined(__CUDACC__)
    emulated_cuda::hand_out(p, bytes);
#endif
  }
  static void give_back(void* p) noexcept { release(p); }
};

/// Pinned memory that small uploads pass through, so that nobody waits for them: what is in it may be overwritten once the
/// stream has been waited for. It is filled from its start after every wait, so that the same uploads come from the same
/// places.
struct staging {
  static constexpr std::size_t size = 16U << 20U;
  std::mutex mutex;
  char* room = nullptr;
  std::size_t used = 0;
};

constexpr index ticket_count = 8192;  // of each strand

struct runtime {
  cudaStream_t streams[stream_count] = {};
  staging outbox;
  index multiprocessors = 1;
  bool is_hopper = false;
  std::size_t shared_memory_limit = 0;
  unsigned* tickets = nullptr;
  std::string description;
  memory_pool<device_blocks> pools[stream_count];  // whoever gets a block is behind all who had it, in the same stream

  runtime() {
    require(cuda_available(), errc::unavailable, "cuda", "no device");
    cudaDeviceProp p{};
    check(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
    int last = 0;
    int first = 0;  // what the side stream gets is long, and waits for nobody
    check(cudaDeviceGetStreamPriorityRange(&last, &first), "cudaDeviceGetStreamPriorityRange");
    for (int stream = 0; stream < stream_count; ++stream)
      check(cudaStreamCreateWithPriority(&streams[stream], cudaStreamNonBlocking, stream == 0 ? first : last),
            "cudaStreamCreateWithPriority");
    check(cudaMallocHost(reinterpret_cast<void**>(&outbox.room), staging::size), "cudaMallocHost");
    multiprocessors = p.multiProcessorCount;
    shared_memory_limit = p.sharedMemPerBlockOptin;
    is_hopper = p.major == 9 && p.minor == 0;
    std::size_t const ticket_bytes = strands * ticket_count * sizeof(unsigned);
    check(cudaMalloc(reinterpret_cast<void**>(&tickets), ticket_bytes), "cudaMalloc");
    check(cudaMemsetAsync(tickets, 0, ticket_bytes, streams[0]), "cudaMemsetAsync");
    description = std::string(p.name) + ", compute capability " + std::to_string(p.major) + "." +
                  std::to_string(p.minor) + ", " + std::to_string(p.totalGlobalMem >> 20U) + " MiB";
  }
};
/// Never destroyed, so that tensors may outlive main(). Where there is no device every call says so.
runtime& now() {
  static auto* r = new runtime;
  return *r;
}

}  // namespace

cudaStream_t stream_of(int stream) { return now().streams[stream]; }
cudaStream_t stream() { return stream_of(stream_number()); }
index multiprocessors() { return now().multiprocessors; }
bool is_hopper() { return now().is_hopper; }
std::size_t shared_memory_limit() {
#if defined(__CUDACC__)
  return now().shared_memory_limit;
#else
  return emulated_cuda::shared_memory_limit;  // tests change it
#endif
}
namespace {
/// What the driver was told of kernels, and what it said of them: it is asked once.
struct known_kernels {
  std::mutex mutex;
  std::unordered_map<void const*, std::size_t> allowed;                        // bytes of shared memory for a block
  std::map<std::tuple<void const*, int, std::size_t>, index> resident_blocks;  // by threads and shared bytes of each
};
/// Never destroyed.
known_kernels& kernels() {
  static auto* k = new known_kernels;
  return *k;
}
}  // namespace

void allow_shared_memory(void const* kernel, std::size_t bytes, char const* name) {
  if (bytes <= 48 * 1024) return;
  auto& known = kernels();
  std::lock_guard const lock(known.mutex);
  auto& allowed = known.allowed[kernel];
  if (bytes <= allowed) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), name);
  allowed = bytes;
}

index resident_blocks([[maybe_unused]] void const* kernel, [[maybe_unused]] int threads,
                      [[maybe_unused]] std::size_t shared_bytes) {
#if defined(__CUDACC__)
  allow_shared_memory(kernel, shared_bytes, "occupancy");
  auto& known = kernels();
  std::lock_guard const lock(known.mutex);
  auto& blocks = known.resident_blocks[{kernel, threads, shared_bytes}];
  if (blocks == 0) {
    int each = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared_bytes), "occupancy");
    blocks = each * multiprocessors();
  }
  return blocks;
#else
  return busy_blocks();
#endif
}

unsigned* tickets(index n) {
  require(n <= ticket_count, errc::shape, "cuda", "a call of ", n, " sums that end together");
  return now().tickets + strand() * ticket_count;
}

namespace {

/// Until all is done that was enqueued; whoever calls it holds the outbox.
void wait(staging& out) {
  wait_for_calls();
  out.used = 0;
}

/// Errors: those of all calls before.
void receive(void* host, void const* from, std::size_t bytes) {
  auto& out = now().outbox;
  std::lock_guard const lock(out.mutex);
  launch_calls();
  check(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream()), "download");
  wait(out);
}

}  // namespace

void send(void* to, void const* host, std::size_t bytes) {
  auto& out = now().outbox;
  std::lock_guard const lock(out.mutex);
  if (bytes > staging::size) {
    launch_calls();
    check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream()), "upload");
    return wait(out);
  }
  if (out.used + bytes > staging::size) wait(out);
  std::memcpy(out.room + out.used, host, bytes);
  enqueue_copy(to, out.room + out.used, bytes);
  out.used += (bytes + 255) / 256 * 256;
}

}  // namespace cuda_kernels

using cuda_kernels::check;

bool cuda_available() noexcept {
  static bool const found = [] {
    int devices = 0;
    bool const good = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
    if (!good) cudaGetLastError();
    return good;
  }();
  return found;
}
std::string cuda_description() { return cuda_available() ? cuda_kernels::now().description : "cuda: no device"; }

void set_cuda_graphs(bool wanted) { cuda_kernels::set_graphs(wanted); }

std::size_t cuda_peak_memory() {
  if (!cuda_available()) return 0;
  auto& pools = cuda_kernels::now().pools;
  return pools[0].peak() + pools[1].peak();
}

cuda_mark::cuda_mark() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "cudaEventCreate");
  event_ = event;
  cuda_kernels::launch_calls();
  check(cudaEventRecord(event, cuda_kernels::stream()), "cudaEventRecord");
}
cuda_mark& cuda_mark::operator=(cuda_mark&& other) noexcept {
  std::swap(event_, other.event_);
  return *this;
}
cuda_mark::~cuda_mark() {
  if (event_ != nullptr) cudaEventDestroy(static_cast<cudaEvent_t>(event_));
}
double cuda_mark::seconds_since(cuda_mark const& earlier) const {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(event_)), "cudaEventSynchronize");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier.event_), static_cast<cudaEvent_t>(event_)),
        "cudaEventElapsedTime");
  return 1e-3 * static_cast<double>(milliseconds);
}

namespace {
constexpr std::int32_t not_shown = std::numeric_limits<std::int32_t>::min();

/// What lies in front of early values: those that calls may still write to, when nobody needs them any more, are a list until
/// somebody has waited.
struct alignas(16) early_block {
  early_block* next;
  [[nodiscard]] std::int32_t* numbers() { return reinterpret_cast<std::int32_t*>(this + 1); }
  static early_block* of(std::int32_t* numbers) { return reinterpret_cast<early_block*>(numbers) - 1; }
};
std::mutex late_mutex;
early_block* late_blocks = nullptr;
}  // namespace

cuda_early_values::cuda_early_values(std::int64_t count) {
  auto const bytes = sizeof(early_block) + static_cast<std::size_t>(count) * sizeof(std::int32_t);
  static_cast<void>(cuda_kernels::stream());  // or there is no device
  early_block* block = nullptr;
  check(cudaMallocHost(reinterpret_cast<void**>(&block), bytes), "cudaMallocHost");
  numbers_ = block->numbers();
  std::fill_n(numbers_, count, not_shown);
}
cuda_early_values::~cuda_early_values() {
  auto* const own = early_block::of(numbers_);
  std::lock_guard const lock(late_mutex);
  own->next = std::exchange(late_blocks, own);
  try {
    cuda_kernels::wait_for_calls();
    while (late_blocks != nullptr) cudaFreeHost(std::exchange(late_blocks, late_blocks->next));
  } catch (...) {  // calls that are not made yet may write there, or the device is lost
  }
}
void cuda_early_values::show(std::int64_t i, const_view x) {
  numbers_[i] = not_shown;
  cuda::copy(view(numbers_ + i, dtype::i32, {1}), x, false);
}
std::int32_t cuda_early_values::value(std::int64_t i) {
  constexpr int looks = 256;  // from one question to the driver to the next
  std::atomic_ref<std::int32_t> const number(numbers_[i]);
  cuda_kernels::launch_calls();
  for (bool done = false;;) {
    for (int n = 0; n < looks; ++n)
      if (std::int32_t const x = number.load(std::memory_order_acquire); x != not_shown) return x;
    require(!done, errc::unavailable, "cuda", "a value was asked for that was never shown");
    auto const status = cudaStreamQuery(cuda_kernels::stream());
    done = status == cudaSuccess;
    if (!done && status != cudaErrorNotReady) check(status, "cudaStreamQuery");
    std::this_thread::yield();
  }
}

namespace {

struct block {
  void* memory;
  std::size_t bytes;
  std::uint64_t moment;  ///< when it was given back
};

/// Device memory: each stream has a pool, to which a block goes back when what comes next there is behind all that may use it.
class device_memory {
 public:
  void* allocate(std::size_t bytes) {
    int const stream = cuda_kernels::stream_number();
    {
      std::lock_guard const lock(mutex_);
      if (!withheld_[stream].blocks.empty()) renew(stream, cuda_kernels::unjoined_branch());
    }
    void* p = nullptr;
    try {
      p = pool(stream).allocate(bytes);
    } catch (std::bad_alloc const&) {
      exhaust();
      p = pool(stream).allocate(bytes);
    }
    if (stream == 0) return p;
    try {
      std::lock_guard const lock(mutex_);
      side_blocks_.insert(p);
      any_side_blocks_ = true;
    } catch (...) {
      pool(stream).deallocate(p, bytes);
      throw;
    }
    return p;
  }

  void deallocate(void* p, std::size_t bytes) noexcept {
    int const stream = cuda_kernels::stream_number();
    int const owner = owner_of(p);
    try {
      std::lock_guard const lock(mutex_);
      if (owner != stream) return crossed_[owner].push_back({p, bytes, given_back_++});
      if (auto const wait = cuda_kernels::unjoined_branch(); wait != 0) {
        auto& w = renew(stream, wait);
        w.blocks.push_back({p, bytes, 0});
        w.bytes += bytes;
        if (w.bytes > most_withheld) cuda_kernels::join_branch();
        return;
      }
    } catch (std::bad_alloc const&) {  // no room to remember it: when all is done it is nobody's
      try {
        cuda_kernels::wait_for_calls();
      } catch (...) {  // calls that are not made yet may use it: it stays where it is
        return;
      }
    }
    pool(owner).deallocate(p, bytes);
  }

  /// What says until when blocks have been given back.
  [[nodiscard]] std::uint64_t moment() const {
    std::lock_guard const lock(mutex_);
    return given_back_;
  }
  /// The stream's pool takes what the other stream had given back of it by this moment: from here on it is behind that.
  void take_crossed(int stream, std::uint64_t moment) noexcept {
    std::lock_guard const lock(mutex_);
    auto& blocks = crossed_[stream];
    give_back(blocks, stream,
              std::find_if(blocks.begin(), blocks.end(), [&](block const& b) { return b.moment >= moment; }));
  }

 private:
  struct withheld {
    std::vector<block> blocks;
    std::size_t bytes = 0;
    std::uint64_t wait = 0;  // how cuda_kernels::unjoined_branch() calls it
  };
#if defined(__CUDACC__)
  static constexpr std::size_t most_withheld = 128U << 20U;
#else
  static constexpr std::size_t most_withheld = 128U << 10U;
#endif

  static memory_pool<cuda_kernels::device_blocks>& pool(int stream) { return cuda_kernels::now().pools[stream]; }
  static void give_back(std::vector<block>& blocks, int stream, std::vector<block>::iterator end) noexcept {
    for (auto b = blocks.begin(); b != end; ++b) pool(stream).deallocate(b->memory, b->bytes);
    blocks.erase(blocks.begin(), end);
  }
  static void give_back(std::vector<block>& blocks, int stream) noexcept { give_back(blocks, stream, blocks.end()); }
  int owner_of(void* p) noexcept {
    if (!any_side_blocks_) return 0;
    std::lock_guard const lock(mutex_);
    return side_blocks_.erase(p) > 0 ? 1 : 0;
  }
  /// The blocks that are withheld during this wait: those of an earlier one need not be any more.
  withheld& renew(int stream, std::uint64_t wait) noexcept {
    auto& w = withheld_[stream];
    if (w.wait != wait) {
      give_back(w.blocks, stream);
      w.bytes = 0;
      w.wait = wait;
    }
    return w;
  }
  /// Everything that nobody uses, to the driver.
  void exhaust() {
    cuda_kernels::wait_for_calls();
    std::lock_guard const lock(mutex_);
    for (int stream = 0; stream < cuda_kernels::stream_count; ++stream) {
      give_back(crossed_[stream], stream);
      give_back(withheld_[stream].blocks, stream);
      pool(stream).trim();
    }
  }

  mutable std::mutex mutex_;
  std::uint64_t given_back_ = 0;
  std::unordered_set<void*> side_blocks_;  // blocks of the side stream's pool that are in use
  std::atomic<bool> any_side_blocks_ = false;
  std::vector<block> crossed_[cuda_kernels::stream_count];  // blocks of a stream that the other has given back
  withheld withheld_[cuda_kernels::stream_count];           // while calls on the branch may use them
};
/// Never destroyed.
device_memory& memory() {
  static auto* m = new device_memory;
  return *m;
}

thread_local bool forked = false;  // and the side stream was not begun since

}  // namespace

void* cuda::allocate(std::size_t bytes) { return memory().allocate(bytes); }
void cuda::deallocate(void* p, std::size_t bytes) noexcept { memory().deallocate(p, bytes); }

void cuda::begin_branch() noexcept { cuda_kernels::begin_branch(); }
void cuda::end_branch() noexcept { cuda_kernels::end_branch(); }
void cuda::join_branch() noexcept { cuda_kernels::join_branch(); }

void cuda::fork_side_stream() {
  if (cuda_kernels::stream_number() != 0) return;
  auto const moment = memory().moment();
  cuda_kernels::fork_side_stream();
  memory().take_crossed(1, moment);
  forked = true;
}
void cuda::begin_side_stream() {
  if (cuda_kernels::stream_number() == 0) {
    if (!forked) fork_side_stream();
    forked = false;
  }
  cuda_kernels::begin_side_stream();
}
void cuda::end_side_stream() noexcept { cuda_kernels::end_side_stream(); }
void cuda::join_side_stream() {
  auto const moment = memory().moment();
  if (cuda_kernels::join_side_stream()) memory().take_crossed(0, moment);
}

namespace {

/// Room for a contiguous view on the host.
struct host_copy {
  std::vector<char> bytes;
  view values;
  host_copy(dtype type, shape const& dims)
      : bytes(static_cast<std::size_t>(dims.size() * size_of(type))), values(bytes.data(), type, dims) {}
};

}  // namespace

void cuda::upload(view to, const_view host) {
  if (to.size() == 0) return;
  if (host.type != to.type || !host.contiguous()) {
    host_copy same(to.type, to.dims);
    reference_kernels::elementwise::copy(same.values, host, false);
    return upload(to, same.values);
  }
  auto const bytes = static_cast<std::size_t>(to.size() * size_of(to.type));
  if (to.contiguous()) return cuda_kernels::send(to.data, host.data, bytes);
  cuda_kernels::device_array<char> const dense(static_cast<std::int64_t>(bytes));
  cuda_kernels::send(dense.data(), host.data, bytes);
  copy(to, const_view(dense.data(), to.type, to.dims), false);
}

void cuda::download(view host, const_view from) {
  if (host.size() == 0) return;
  if (host.type != from.type || !host.contiguous()) {
    host_copy same(from.type, host.dims);
    download(same.values, from);
    return reference_kernels::elementwise::copy(host, same.values, false);
  }
  auto const bytes = static_cast<std::size_t>(host.size() * size_of(host.type));
  if (from.contiguous()) return cuda_kernels::receive(host.data, from.data, bytes);
  cuda_kernels::device_array<char> const dense(static_cast<std::int64_t>(bytes));
  view const packed(dense.data(), from.type, host.dims);
  copy(packed, from, false);
  cuda_kernels::receive(host.data, packed.data, bytes);
}

}  // namespace ouro
