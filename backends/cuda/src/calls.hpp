// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Calls on their way to the device. They are gathered and go into the stream as runs; a run whose like has been there before
// goes as one CUDA graph, in which only the parameters that are new have to be set: a launch costs the host several
// microseconds, a node of a graph next to nothing. Training steps and bytes that are said are such runs.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <emulated_cuda.hpp>
#endif

#include <array>
#include <cstddef>
#include <cstdint>

namespace ouro::cuda_kernels {

/// Where the parameters of a kernel lie in a block of bytes, each at a multiple of its alignment; then the block's size.
template <class... P>
constexpr std::array<std::uint32_t, sizeof...(P) + 1> parameter_places() {
  std::array<std::uint32_t, sizeof...(P) + 1> places{};
  std::size_t i = 0;
  std::size_t end = 0;
  auto place = [&](std::size_t size, std::size_t alignment) {
    end = (end + alignment - 1) / alignment * alignment;
    places[i++] = static_cast<std::uint32_t>(end);
    end += size;
  };
  (place(sizeof(P), alignof(P)), ...);
  places[i] = static_cast<std::uint32_t>((end + 15) / 16 * 16);
  return places;
}

inline constexpr std::size_t most_parameters = 64;

struct kernel_call {
  char const* name;      ///< for errors
  void const* function;  ///< as the runtime knows it
  unsigned blocks;
  unsigned threads;
  std::size_t shared_bytes;
  std::uint32_t const* places;  ///< of the parameters
  std::uint32_t count;
};

/// A call of a library that puts its work into a stream, which may be one that is being captured. It is made with a copy
/// of its operands, and throws if it fails.
using library_call = void (*)(void const* operands, cudaStream_t to);

/// Puts a call behind those before it. `bytes` are copied; of equal operands or parameters also the padding should be
/// equal. Errors: those of a call before, by name.
void enqueue(kernel_call const& call, std::byte const* parameters, std::size_t bytes);
void enqueue(library_call call, void const* operands, std::size_t bytes);
/// From pinned memory of the host, which must stay as it is until the stream was waited for.
void enqueue_copy(void* to, void const* from, std::size_t bytes);
/// Puts all calls into the stream that are on their way. Errors: those of the calls, by name.
void launch_calls();
/// The same where errors have nowhere to go: the next call throws them.
void launch_calls_quietly() noexcept;
/// The same, and gives back what was released and the memory that graphs take: somebody needs it.
void give_way() noexcept;
/// Gives device memory back to the driver once the calls before are in the stream.
void release(void* block) noexcept;
/// Calls of this thread between begin_beside() and end_beside(), of which there may be several in each other, are beside the
/// others: one after another, behind all calls that were made before, and as far as a graph has them before or after or at
/// the same time as those that are made after them, until join().
void begin_beside() noexcept;
void end_beside() noexcept;
void join() noexcept;
/// 1 where the calls of this thread are beside the others, else 0: each has scratch memory of its own.
int side() noexcept;
inline constexpr int sides = 2;
/// 0 if no calls are beside the others that nobody has joined, else a number that stays the same as long as there are.
/// Memory that they may still use must not be handed out before.
std::uint64_t waits_for_join() noexcept;
/// After the stream was waited for: a device that has nothing to do gets short runs first.
void begin_short_runs() noexcept;
/// Whether runs that come again are launched as graphs, from now on.
void set_graphs(bool wanted);

}  // namespace ouro::cuda_kernels
