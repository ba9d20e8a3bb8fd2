// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What every source of this backend stands on: CUDA, or the emulated device of the tests where no CUDA compiler reads
// it; checked calls, launches by name, device memory for the time of a call, and sums within a warp.
#pragma once

#if defined(__CUDACC__)
#include <cublas_v2.h>
#include <cuda_runtime.h>
#define OURO_UNROLL _Pragma("unroll")
#define OURO_UNROLL_BY_8 _Pragma("unroll 8")
#define OURO_ROLLED _Pragma("unroll 1")
#else
#include <emulated_cuda.hpp>
#define OURO_UNROLL
#define OURO_UNROLL_BY_8
#define OURO_ROLLED
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include <ouro/backend/cuda.hpp>

#include "calls.hpp"

namespace ouro::cuda_kernels {

using index = std::int64_t;
inline constexpr int warp_size = 32;
inline constexpr unsigned everybody = 0xFFFFFFFFU;

/// Throws ouro::error (unavailable) with the function's or kernel's name unless all is well.
void check(cudaError_t status, char const* what);

/// That of this thread's calls.
cudaStream_t stream();
/// Bytes on their way from the host to the device when it returns; the host's memory may then be used again.
void send(void* to, void const* host, std::size_t bytes);
index multiprocessors();
/// Whether the device runs what is compiled for compute capability 9.0 alone.
bool is_hopper();
/// Bytes of shared memory that a block can ask for.
std::size_t shared_memory_limit();
/// More shared memory than every block may have has to be asked for, before a kernel is launched or its blocks are counted.
/// What a kernel was once allowed it keeps: nodes of graphs that were made with it are set anew.
void allow_shared_memory(void const* kernel, std::size_t bytes, char const* name);
/// Blocks that keep the device busy when each can take any share of the work.
inline index busy_blocks() { return 16 * multiprocessors(); }

/// Blocks of a kernel that the device has room for at a time.
index resident_blocks(void const* kernel, int threads, std::size_t shared_bytes);
template <class... P>
index resident_blocks(void (*kernel)(P...), int threads, std::size_t shared_bytes = 0) {
  return resident_blocks(reinterpret_cast<void const*>(kernel), threads, shared_bytes);
}
/// Zeroes for last_of, `n` of them; whoever takes one leaves a zero.
unsigned* tickets(index n);

/// Runs a kernel, which errors name, after all calls before it. An empty grid is nothing to do.
template <class... P, class... A>
void launch(char const* name, void (*kernel)(P...), index blocks, int threads, std::size_t shared_bytes, A&&... a) {
  static_assert(sizeof...(P) <= most_parameters);
  static_assert((std::is_trivially_copy_constructible_v<P> && ...) && (std::is_trivially_destructible_v<P> && ...));
  if (blocks <= 0) return;
  static constexpr auto places = parameter_places<P...>();
  alignas(16) std::byte parameters[places.back()] = {};
  std::size_t i = 0;
  (static_cast<void>(new (parameters + places[i++]) P(static_cast<P>(std::forward<A>(a)))), ...);
#if defined(__CUDACC__)
  void const* const function = reinterpret_cast<void const*>(kernel);
#else
  void const* const function = emulated_cuda::known(name, kernel);
#endif
  enqueue({name, function, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared_bytes, places.data(),
           sizeof...(P)},
          parameters, sizeof(parameters));
}

/// Device memory that goes back to the pool at the end of a scope; work already in the stream may still use it, because
/// whoever gets it next is behind in the same stream. Of nothing there is none.
template <class T>
class device_array {
 public:
  explicit device_array(index n)
      : bytes_(static_cast<std::size_t>(n) * sizeof(T)), data_(n > 0 ? cuda::allocate(bytes_) : nullptr) {}
  device_array(device_array const&) = delete;
  device_array& operator=(device_array const&) = delete;
  ~device_array() {
    if (data_ != nullptr) cuda::deallocate(data_, bytes_);
  }
  [[nodiscard]] T* data() const { return static_cast<T*>(data_); }

 private:
  std::size_t bytes_;
  void* data_;
};

/// Values of the host on the device.
template <class T>
class device_table : public device_array<T> {
 public:
  explicit device_table(std::vector<T> const& values) : device_array<T>(static_cast<index>(values.size())) {
    if (!values.empty()) send(this->data(), values.data(), values.size() * sizeof(T));
  }
};

/// The memory of a view, or none.
template <class T, class View>
auto* dense_or_none(View const& v) {
  using pointer = decltype(v.template as<T>());
  return v.empty() ? pointer(nullptr) : v.template as<T>();
}

constexpr index divide_up(index n, index by) { return (n + by - 1) / by; }

/// Blocks for n things of which each takes `each` at a time, but not more than `most`: they can take any share.
inline index grid_of(index n, index each, index most) {
  index const blocks = divide_up(n, each);
  return blocks < most ? blocks : most;
}

/// The number of this thread in the grid, and how many there are.
__device__ inline index thread_number() { return static_cast<index>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline index thread_count() { return static_cast<index>(gridDim.x) * blockDim.x; }
/// The number of this thread's warp in the grid, and its place in the warp.
__device__ inline index warp_number() { return thread_number() / warp_size; }
__device__ inline int lane_number() { return static_cast<int>(threadIdx.x) % warp_size; }

/// The sum over a run of neighbouring lanes, of which a warp has several, the same bits in each.
template <int Lanes, class T>
__device__ T lanes_sum(T x) {
  for (int step = Lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(everybody, x, step);
  return x;
}
/// The same over all lanes of a warp.
template <class T>
__device__ T warp_sum(T x) {
  return lanes_sum<warp_size>(x);
}
template <class T>
__device__ T warp_max(T x) {
  for (int step = warp_size / 2; step > 0; step /= 2) {
    T const other = __shfl_xor_sync(everybody, x, step);
    x = other > x ? other : x;
  }
  return x;
}

/// Whether this block is the last of `blocks` that come with one ticket: it then sees what all of them have written. Who
/// comes last changes from run to run, so what it does must not depend on who it is.
__device__ inline bool last_of(unsigned* ticket, index blocks) {
  __threadfence();
  __syncthreads();
  unsigned const others = static_cast<unsigned>(blocks) - 1U;
  bool const last = threadIdx.x == 0 && atomicInc(ticket, others) == others;
  bool const here = __syncthreads_or(last ? 1 : 0) != 0;
  if (here) __threadfence();
  return here;
}

/// Shared memory of the size that the launch asked for.
template <class T>
__device__ T* shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char ouro_shared_memory[];
  return reinterpret_cast<T*>(ouro_shared_memory);
#else
  return static_cast<T*>(emulated_cuda::shared_memory());
#endif
}

template <class T>
__device__ void put(T& to, T value, bool accumulate) {
  to = accumulate ? to + value : value;
}

}  // namespace ouro::cuda_kernels
