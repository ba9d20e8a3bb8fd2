// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What of the emulated device a program that looks for races is told. The kernels of such a program are compiled with
// -fsanitize=thread, and what that compiler calls for each access to memory is defined here instead of by its library.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulated_cuda::races {

/// How far the work of a stream, a task or the host has come: of each chain of tasks, which follow each other, the number of
/// the last that is behind it.
inline constexpr std::size_t most_chains = 8;
using moment = std::array<std::uint32_t, most_chains>;
inline void join(moment& m, moment const& other) {
  for (std::size_t i = 0; i < most_chains; ++i) m[i] = m[i] < other[i] ? other[i] : m[i];
}

#if defined(OURO_LOOK_FOR_RACES)
inline constexpr bool looked_for = true;
/// Whether what is found is printed at once. A program that has found anything ends with 9.
inline bool prints = true;
/// What was found since somebody asked last, each kind once, in alphabetical order.
std::vector<std::string> take_reports();

// Memory. What is accessed by a kernel and none of these is no memory of the device.
void device_memory(void const* p, std::size_t bytes);
void bound_memory(void const* p, std::size_t bytes, std::size_t size);  // so much of a block of the device's memory
void host_memory(void const* p, std::size_t bytes);                     // that it may write
void own_memory(void const* p, std::size_t bytes);  // of the emulated device: stacks, and what is exchanged
void no_memory(void const* p, std::size_t bytes);

/// What the device does until the next task is this one, behind `before`; returns what is behind it.
moment begin_task(char const* name, moment const& before);
/// By a task that is no kernel.
void reads(void const* p, std::size_t bytes);
void writes(void const* p, std::size_t bytes);

// A kernel's blocks, and the thread that runs.
void begin_blocks(void const* shared, std::size_t bytes);
void begin_block();
void runs(unsigned thread, unsigned warp);
void stops();
void met_block();
void met_warp(unsigned warp);
void takes_ticket(void const* ticket);

// What the device does on its own, from when it is asked until a thread has waited.
void begin_copy(void* to, void const* from, std::size_t bytes);
void end_copy(void* to, void const* from, std::size_t bytes);
void begin_product(void const* factor, std::size_t bytes);
void end_product(void const* factor, std::size_t bytes);
#else
inline constexpr bool looked_for = false;

inline void device_memory(void const*, std::size_t) {}
inline void bound_memory(void const*, std::size_t, std::size_t) {}
inline void host_memory(void const*, std::size_t) {}
inline void own_memory(void const*, std::size_t) {}
inline void no_memory(void const*, std::size_t) {}
inline moment begin_task(char const*, moment const& before) { return before; }
inline void reads(void const*, std::size_t) {}
inline void writes(void const*, std::size_t) {}
inline void begin_blocks(void const*, std::size_t) {}
inline void begin_block() {}
inline void runs(unsigned, unsigned) {}
inline void stops() {}
inline void met_block() {}
inline void met_warp(unsigned) {}
inline void takes_ticket(void const*) {}
inline void begin_copy(void*, void const*, std::size_t) {}
inline void end_copy(void*, void const*, std::size_t) {}
inline void begin_product(void const*, std::size_t) {}
inline void end_product(void const*, std::size_t) {}
#endif

}  // namespace emulated_cuda::races
