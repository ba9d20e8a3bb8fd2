// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The thread pool.
#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <ouro/backend/cpu.hpp>

#include "signals.hpp"

namespace ouro {
namespace cpu_threading {
namespace {

thread_local bool inside = false;

int default_threads() {
  if (char const* text = std::getenv("OURO_THREADS")) {
    int const n = std::atoi(text);
    if (n >= 1) return std::min(n, 1024);
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

class pool {
 public:
  pool() : threads_(default_threads()) {}
  ~pool() { stop(); }

  int threads() {
    std::lock_guard const lock(busy_);
    return threads_;
  }
  void resize(int n) {
    std::lock_guard const lock(busy_);
    stop();
    threads_ = n;
  }

  void run(std::int64_t n, std::int64_t grain, void (*f)(void*, std::int64_t, std::int64_t), void* context) {
    std::int64_t const most = grain > 0 ? (n + grain - 1) / grain : n;
    if (inside || most <= 1) {
      if (n > 0) f(context, 0, n);
      return;
    }
    std::unique_lock one_at_a_time(busy_);
    std::int64_t const parts = std::min<std::int64_t>(most, threads_);
    if (parts <= 1) {
      one_at_a_time.unlock();  // f may call again
      return f(context, 0, n);
    }
    start();
    job_ = {f, context, n, parts};
    failure_ = nullptr;
    left_ = static_cast<int>(workers_.size());
    ++generation_;
    if (asleep_ > 0) {
      std::lock_guard const lock(mutex_);
      wake_.notify_all();
    }
    inside = true;
    do_part(0);
    inside = false;
    spin_until([&] { return left_ == 0; });
    if (left_ != 0) {
      std::unique_lock lock(mutex_);
      waiting_ = true;
      done_.wait(lock, [&] { return left_ == 0; });
      waiting_ = false;
    }
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  struct job {
    void (*f)(void*, std::int64_t, std::int64_t) = nullptr;
    void* context = nullptr;
    std::int64_t n = 0;
    std::int64_t parts = 0;
  };

  /// A thread that waits looks for a while before it sleeps: to wake one takes longer than most parts of an update.
  template <class F>
  static void spin_until(F const& ready) {
    for (int i = 0; i < 4000 && !ready(); ++i) {
#if defined(OURO_X86)
      __builtin_ia32_pause();
#else
      std::this_thread::yield();
#endif
    }
  }
  void do_part(std::int64_t i) {
    if (i >= job_.parts) return;
    try {
      job_.f(job_.context, job_.n * i / job_.parts, job_.n * (i + 1) / job_.parts);
    } catch (...) {
      std::lock_guard const lock(mutex_);
      failure_ = std::current_exception();
    }
  }
  void start() {
    while (static_cast<int>(workers_.size()) + 1 < threads_) {
      auto const index = static_cast<std::int64_t>(workers_.size()) + 1;
      workers_.emplace_back([this, index, seen = generation_.load()]() mutable {
        inside = true;
        signals_blocked const quiet;  // signals belong to the program's own threads
        auto called = [&] { return generation_ != seen || stopping_; };
        for (;;) {
          spin_until(called);
          if (!called()) {
            std::unique_lock lock(mutex_);
            ++asleep_;
            wake_.wait(lock, called);
            --asleep_;
          }
          if (stopping_) return;
          seen = generation_;
          do_part(index);
          if (--left_ == 0 && waiting_) {
            std::lock_guard const lock(mutex_);
            done_.notify_one();
          }
        }
      });
    }
  }
  void stop() {
    {
      std::lock_guard const lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& w : workers_) w.join();
    workers_.clear();
    stopping_ = false;
  }

  std::mutex busy_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> workers_;
  job job_;
  std::exception_ptr failure_;
  std::atomic<std::uint64_t> generation_ = 0;
  std::atomic<int> left_ = 0;
  std::atomic<int> asleep_ = 0;        // workers in wake_.wait
  std::atomic<bool> waiting_ = false;  // the caller in done_.wait
  std::atomic<bool> stopping_ = false;
  int threads_;
};

pool& the_pool() {
  static pool p;
  return p;
}

}  // namespace

void run(std::int64_t n, std::int64_t grain, void (*f)(void*, std::int64_t, std::int64_t), void* context) {
  the_pool().run(n, grain, f, context);
}

}  // namespace cpu_threading

int cpu_threads() { return cpu_threading::the_pool().threads(); }
void set_cpu_threads(int n) {
  require(n >= 1 && n <= 1024, errc::argument, "set_cpu_threads", "the number of threads must be in 1..1024, got ", n);
  cpu_threading::the_pool().resize(n);
}

}  // namespace ouro
