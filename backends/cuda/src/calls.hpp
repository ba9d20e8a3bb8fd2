// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Calls on their way to the device. They are gathered and go into a stream as runs; a run whose like has been there before
// goes as one CUDA graph, in which only the parameters that are new have to be set: a launch costs the host several
// microseconds, a node of a graph next to nothing. Training steps and bytes that are said are such runs. There are two
// streams: the side stream for the calls between begin_side_stream() and end_side_stream(), the other for all others.
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

/// 1, the side stream, or 0: where the calls of this thread go.
int stream_number() noexcept;
inline constexpr int stream_count = 2;
/// What is enqueued there may not be in it yet. Errors: no device.
cudaStream_t stream_of(int stream);

/// Puts a call behind those before it. `bytes` are copied; of equal operands or parameters also the padding should be
/// equal. Errors: those of a call before, by name. Where memory is exhausted (std::bad_alloc) the call is not made, but those
/// before it still are.
void enqueue(kernel_call const& call, std::byte const* parameters, std::size_t bytes);
void enqueue(library_call call, void const* operands, std::size_t bytes);
/// From pinned memory of the host, which must stay as it is until the streams were waited for.
void enqueue_copy(void* to, void const* from, std::size_t bytes);
/// Puts all calls into their streams that are on their way. Errors: those of the calls, by name.
void launch_calls();
/// The same where errors have nowhere to go: the next call throws them.
void launch_calls_quietly() noexcept;
/// The same as launch_calls(), and returns when all is done.
void wait_for_calls();
/// The same as launch_calls_quietly(), and gives back what was released and the memory that graphs take: somebody needs it.
void give_way() noexcept;
/// Gives device memory back to the driver once the calls before are in their streams.
void release(void* block) noexcept;
/// What the side stream gets from here on is behind all calls until here. Errors: those of calls before.
void fork_side_stream();
/// Calls of this thread between begin_side_stream() and end_side_stream() are behind those made before fork_side_stream(), and
/// before others only from join_side_stream() on, which says whether there were any. Errors: those of calls before.
void begin_side_stream();
void end_side_stream() noexcept;
bool join_side_stream();
/// Calls of this thread between begin_branch() and end_branch(), of which there may be several in each other, are on the
/// branch: one after another, behind all calls that were made before, and as far as a graph has them before or after or at
/// the same time as those that are made after them, until join_branch().
void begin_branch() noexcept;
void end_branch() noexcept;
void join_branch() noexcept;
/// Calls of one strand (a stream, or the branch of one) come one after another, and may share scratch memory: the strand
/// that those of this thread are of.
int strand() noexcept;
inline constexpr int strands = 2 * stream_count;
/// 0 if there are no calls on the branch that nobody has joined, else a number that stays the same as long as there are.
/// Memory that they may still use must not be handed out before.
std::uint64_t unjoined_branch() noexcept;
/// Whether runs that come again are launched as graphs, from now on.
void set_graphs(bool wanted);

}  // namespace ouro::cuda_kernels
