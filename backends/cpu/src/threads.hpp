// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A pool of threads with a fixed partition: which thread does what never depends on timing.
#pragma once

#include <cstdint>

namespace ouro::cpu_threading {

void run(std::int64_t n, std::int64_t grain, void (*f)(void*, std::int64_t, std::int64_t), void* context);

/// Calls f(begin, end) on consecutive parts of [0, n), one for each thread, none smaller than `grain` (but the last).
/// Runs inline when there is one part, or inside another parallel call.
template <class F>
void parallel(std::int64_t n, std::int64_t grain, F&& f) {
  run(
      n, grain, [](void* c, std::int64_t a, std::int64_t b) { (*static_cast<F*>(c))(a, b); }, &f);
}

}  // namespace ouro::cpu_threading
