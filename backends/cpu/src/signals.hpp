// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Keeps signal handlers away from a thread while it is inside a product. The generated code of oneDNN's dnnl_sgemm
// (2.6, AVX-512) keeps data below the stack pointer, beyond the 128 bytes that a signal frame leaves alone: a handler
// that runs there, however innocent, overwrites it, and the product writes over the heap.
#pragma once

#include <csignal>

namespace ouro::cpu_threading {

/// Every signal but those that a fault of this very thread raises.
inline sigset_t asynchronous_signals() {
  sigset_t set;
  sigfillset(&set);
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&set, s);
  return set;
}

/// Blocks them for this thread; a nested one costs nothing. They arrive when the outermost ends.
class signals_blocked {
 public:
  signals_blocked() {
    if (depth_++ > 0) return;
    static sigset_t const all = asynchronous_signals();
    pthread_sigmask(SIG_BLOCK, &all, &before());
  }
  signals_blocked(signals_blocked const&) = delete;
  signals_blocked& operator=(signals_blocked const&) = delete;
  ~signals_blocked() {
    if (--depth_ == 0) pthread_sigmask(SIG_SETMASK, &before(), nullptr);
  }

 private:
  static sigset_t& before() {
    static thread_local sigset_t set;
    return set;
  }
  static inline thread_local int depth_ = 0;
};

}  // namespace ouro::cpu_threading
