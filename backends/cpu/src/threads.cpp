// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The thread pool.
#include "threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <ouro/backend/cpu.hpp>

#include "signals.hpp"

namespace ouro {
namespace cpu_threading {
namespace {

thread_local bool inside = false;

void require_number(char const* where, int n, bool good, std::string const& got) {
  require(good && n >= 1 && n <= 1024, errc::argument, where, "the number of threads must be in 1..1024, got ", got);
}
int default_threads() {
  char const* const set = std::getenv("OURO_THREADS");
  std::string_view const text = set != nullptr ? set : "";
  if (text.empty()) return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  int n = 0;
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), n);
  require_number("OURO_THREADS", n, problem == std::errc{} && end == text.data() + text.size(), std::string(text));
  return n;
}

class pool {
 public:
  explicit pool(int threads) : threads_(threads) {}
  pool(pool const&) = delete;
  pool& operator=(pool const&) = delete;
  ~pool() { stop(); }

  int threads() const { return threads_; }
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
  std::atomic<int> threads_;
};

/// A forked process has none of its parent's workers, and any of their mutexes may be locked: it begins with a pool of its own, and
/// the other one stays where it is.
class pool_of_process {
 public:
  pool_of_process() : now_(new pool(default_threads())) {
    ::pthread_atfork(nullptr, nullptr, [] {
      inside = false;
      pool_of_process& own = instance();
      own.now_ = new pool(own.now().threads());
    });
  }
  pool_of_process(pool_of_process const&) = delete;
  pool_of_process& operator=(pool_of_process const&) = delete;
  ~pool_of_process() { delete now_.load(); }
  static pool_of_process& instance() {
    static pool_of_process p;
    return p;
  }
  pool& now() { return *now_; }

 private:
  std::atomic<pool*> now_;
};
pool& the_pool() { return pool_of_process::instance().now(); }

}  // namespace

void run(std::int64_t n, std::int64_t grain, void (*f)(void*, std::int64_t, std::int64_t), void* context) {
  the_pool().run(n, grain, f, context);
}

}  // namespace cpu_threading

int cpu_threads() { return cpu_threading::the_pool().threads(); }
void set_cpu_threads(int n) {
  cpu_threading::require_number("set_cpu_threads", n, true, std::to_string(n));
  cpu_threading::the_pool().resize(n);
}

}  // namespace ouro
