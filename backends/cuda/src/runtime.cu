// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The device, its stream and its memory, and the way of values to it and back.
#include <ouro/backend/reference/elementwise.hpp>
#include <ouro/tensor/memory_pool.hpp>

#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "device.hpp"

namespace ouro {
namespace cuda_kernels {

void check(cudaError_t status, char const* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that passes is not reported again by the next call
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
    if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
    cudaGetLastError();
    return nullptr;
  }
  static void hand_out(void*, std::size_t) noexcept {}
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

constexpr index ticket_count = 8192;  // of each side

struct runtime {
  cudaStream_t stream = nullptr;
  staging outbox;
  index multiprocessors = 1;
  bool is_hopper = false;
  std::size_t shared_memory_limit = 0;
  unsigned* tickets = nullptr;
  std::string description;
  memory_pool<device_blocks> pool;

  runtime() {
    require(cuda_available(), errc::unavailable, "cuda", "no device");
    cudaDeviceProp p{};
    check(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check(cudaMallocHost(reinterpret_cast<void**>(&outbox.room), staging::size), "cudaMallocHost");
    multiprocessors = p.multiProcessorCount;
    shared_memory_limit = p.sharedMemPerBlockOptin;
    is_hopper = p.major == 9 && p.minor == 0;
    std::size_t const ticket_bytes = sides * ticket_count * sizeof(unsigned);
    check(cudaMalloc(reinterpret_cast<void**>(&tickets), ticket_bytes), "cudaMalloc");
    check(cudaMemsetAsync(tickets, 0, ticket_bytes, stream), "cudaMemsetAsync");
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

cudaStream_t stream() { return now().stream; }
index multiprocessors() { return now().multiprocessors; }
bool is_hopper() { return now().is_hopper; }
std::size_t shared_memory_limit() { return now().shared_memory_limit; }
unsigned* tickets(index n) {
  require(n <= ticket_count, errc::shape, "cuda", "a call of ", n, " sums that end together");
  return now().tickets + side() * ticket_count;
}

namespace {

/// Until all is done that was enqueued; whoever calls it holds the outbox.
void wait(staging& out) {
  launch_calls();
  check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
  out.used = 0;
  begin_short_runs();
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

std::size_t cuda_peak_memory() { return cuda_available() ? cuda_kernels::now().pool.peak() : 0; }

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

/// Blocks that were given back while calls beside the others may still use them.
class withheld_blocks {
 public:
  void add(std::uint64_t wait, void* memory, std::size_t bytes) {
    std::lock_guard const lock(mutex_);
    give_back_but(wait);
    blocks_.push_back({memory, bytes});
    wait_ = wait;
    bytes_ += bytes;
    if (bytes_ > most) cuda_kernels::join();
  }
  /// To the pool, unless this wait is still on.
  void give_back_but(std::uint64_t wait) noexcept {
    if (wait == wait_) return;
    for (auto const& b : blocks_) cuda_kernels::now().pool.deallocate(b.memory, b.bytes);
    blocks_.clear();
    bytes_ = 0;
  }
  void renew() noexcept {
    std::lock_guard const lock(mutex_);
    if (!blocks_.empty()) give_back_but(cuda_kernels::waits_for_join());
  }

 private:
#if defined(__CUDACC__)
  static constexpr std::size_t most = 128U << 20U;
#else
  static constexpr std::size_t most = 128U << 10U;
#endif
  struct block {
    void* memory;
    std::size_t bytes;
  };
  std::mutex mutex_;
  std::vector<block> blocks_;
  std::uint64_t wait_ = 0;
  std::size_t bytes_ = 0;
};
/// Never destroyed.
withheld_blocks& withheld() {
  static auto* w = new withheld_blocks;
  return *w;
}

}  // namespace

void* cuda::allocate(std::size_t bytes) {
  auto& pool = cuda_kernels::now().pool;
  withheld().renew();
  try {
    return pool.allocate(bytes);
  } catch (std::bad_alloc const&) {
    cuda_kernels::launch_calls();  // which ends the wait
    withheld().renew();
    return pool.allocate(bytes);
  }
}
void cuda::deallocate(void* p, std::size_t bytes) noexcept {
  if (auto const wait = cuda_kernels::waits_for_join(); wait != 0) {
    try {
      return withheld().add(wait, p, bytes);
    } catch (std::bad_alloc const&) {  // no room to remember it
      cuda_kernels::launch_calls_quietly();
    }
  }
  cuda_kernels::now().pool.deallocate(p, bytes);
}

void cuda::begin_beside() noexcept { cuda_kernels::begin_beside(); }
void cuda::end_beside() noexcept { cuda_kernels::end_beside(); }
void cuda::join() noexcept { cuda_kernels::join(); }

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
