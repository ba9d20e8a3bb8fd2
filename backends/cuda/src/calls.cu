// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
#include "calls.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "device.hpp"

namespace ouro::cuda_kernels {
namespace {

enum class call_kind : std::uint8_t { kernel, library, copy };

/// What a call does, less what it does it with.
struct call {
  char const* name = "";
  void const* function = nullptr;  // of kernels
  library_call library = nullptr;
  std::uint32_t const* places = nullptr;
  std::uint32_t count = 0;
  unsigned blocks = 0;
  unsigned threads = 0;
  std::size_t shared_bytes = 0;
  std::size_t at = 0;  // its parameters in the run's bytes
  std::size_t bytes = 0;
  call_kind kind = call_kind::kernel;
  bool on_branch = false;  // behind all calls before it; those after it wait for the next that joins
  bool joins = false;      // behind those on the branch, too

  /// Whether a node of a graph that was made for one serves the other with other parameters.
  [[nodiscard]] bool like(call const& o) const {
    return kind == o.kind && function == o.function && library == o.library && places == o.places &&
           blocks == o.blocks && threads == o.threads && shared_bytes == o.shared_bytes && at == o.at &&
           bytes == o.bytes && on_branch == o.on_branch && joins == o.joins;
  }
};

struct copy_operands {
  void* to;
  void const* from;
  std::size_t bytes;
};

/// Calls in their order, and what they do it with.
struct call_run {
  std::vector<call> calls;
  std::vector<std::byte> bytes;
  std::uint64_t likeness = 0;  // a hash of what a graph cannot be told anew: its calls, and the operands of a library's

  [[nodiscard]] std::byte* operands_of(call const& c) { return bytes.data() + c.at; }
  [[nodiscard]] std::byte const* operands_of(call const& c) const { return bytes.data() + c.at; }

  void add(call c, void const* operands, std::size_t size) {
    c.at = bytes.size();
    c.bytes = size;
    bytes.resize(c.at + (size + 15) / 16 * 16);
    calls.push_back(c);  // what may fail is done
    if (size > 0) std::memcpy(bytes.data() + c.at, operands, size);
    note(c);
  }
  /// All but the first n calls are left.
  void drop(std::size_t n) noexcept {
    calls.erase(calls.begin(), calls.begin() + static_cast<std::ptrdiff_t>(n));
    note_all();
  }
  /// All but the last call is left.
  void take_back() noexcept {
    bytes.resize(calls.back().at);
    calls.pop_back();
    note_all();
  }
  void clear() {
    calls.clear();
    bytes.clear();
    likeness = 0;
  }

 private:
  void note_all() noexcept {
    likeness = 0;
    for (auto const& c : calls) note(c);
    if (calls.empty()) bytes.clear();
  }
  void note(call const& c) noexcept {
    mix(reinterpret_cast<std::uintptr_t>(c.function));
    mix(reinterpret_cast<std::uintptr_t>(c.library));
    mix((std::uint64_t{c.blocks} << 32U) ^ (std::uint64_t{c.threads} << 20U) ^ c.shared_bytes);
    mix(c.bytes * 64 + static_cast<std::uint64_t>(c.kind) * 4 + (c.on_branch ? 2 : 0) + (c.joins ? 1 : 0));
    if (c.kind == call_kind::library)
      for (std::size_t i = 0; i + 8 <= c.bytes; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + c.at + i, 8);
        mix(word);
      }
  }
  void mix(std::uint64_t word) noexcept {
    likeness = (likeness ^ word) * 0x9E3779B97F4A7C15U;
    likeness ^= likeness >> 29U;
  }
};

copy_operands operands_of_copy(std::byte const* bytes) {
  copy_operands o{};
  std::memcpy(&o, bytes, sizeof(o));
  return o;
}

/// The addresses of a kernel's parameters.
class parameter_addresses {
 public:
  parameter_addresses(call const& c, std::byte* bytes) {
    for (std::uint32_t i = 0; i < c.count; ++i) addresses_[i] = bytes + c.places[i];
  }
  [[nodiscard]] void** data() { return addresses_; }

 private:
  void* addresses_[most_parameters];
};

void make(call const& c, std::byte* operands, cudaStream_t to) {
  switch (c.kind) {
    case call_kind::kernel: {
      allow_shared_memory(c.function, c.shared_bytes, c.name);
      parameter_addresses places(c, operands);
      return check(cudaLaunchKernel(c.function, dim3(c.blocks), dim3(c.threads), places.data(), c.shared_bytes, to),
                   c.name);
    }
    case call_kind::library: return c.library(operands, to);
    case call_kind::copy: {
      auto const o = operands_of_copy(operands);
      return check(cudaMemcpyAsync(o.to, o.from, o.bytes, cudaMemcpyHostToDevice, to), c.name);
    }
  }
}

/// A stream that nothing runs in, for one thread at a time.
std::mutex capturing;
cudaStream_t captured_stream() {
  static cudaStream_t const aside = [] {
    cudaStream_t made = nullptr;
    check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return made;
  }();
  return aside;
}

struct graph_deleter {
  void operator()(cudaGraph_t g) const { cudaGraphDestroy(g); }
};
struct ready_graph_deleter {
  void operator()(cudaGraphExec_t g) const { cudaGraphExecDestroy(g); }
};
using owned_graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, graph_deleter>;
using owned_ready_graph = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, ready_graph_deleter>;

/// A run as the driver has it whole. Parameters of kernels and copies may be set anew, those of libraries may not.
class call_graph {
 public:
  explicit call_graph(call_run const& run) : run_(run), nodes_(run.calls.size()) {
    cudaGraph_t graph = nullptr;
    check(cudaGraphCreate(&graph, 0), "cudaGraphCreate");
    graph_.reset(graph);
    cudaGraphNode_t chain = nullptr;   // the last call that is not on the branch
    cudaGraphNode_t branch = nullptr;  // the last that is and that no call has joined
    cudaGraphNode_t behind = nullptr;  // what that is behind
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      auto const& c = run_.calls[i];
      cudaGraphNode_t before[2];
      std::size_t count = 0;
      if (chain != nullptr && !(c.on_branch && branch != nullptr && behind == chain)) before[count++] = chain;
      if (branch != nullptr && (c.on_branch || c.joins)) before[count++] = branch;
      nodes_[i] = add(c, before, count);
      if (c.on_branch) {
        branch = nodes_[i];
        behind = chain;
      } else {
        chain = nodes_[i];
        if (c.joins) branch = nullptr;
      }
    }
    cudaGraphExec_t ready = nullptr;
    check(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate");
    ready_.reset(ready);
  }

  /// Whether it can be told to do what this run does.
  [[nodiscard]] bool serves(call_run const& run) const {
    if (run.calls.size() != run_.calls.size()) return false;
    for (std::size_t i = 0; i < run.calls.size(); ++i) {
      auto const& c = run.calls[i];
      if (!c.like(run_.calls[i])) return false;
      if (c.kind == call_kind::library && !same(c, run)) return false;
    }
    return true;
  }

  /// Of a run that it serves.
  void launch(call_run const& run, cudaStream_t to) {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      auto const& c = run.calls[i];
      if (same(c, run)) continue;
      std::memcpy(run_.operands_of(c), run.operands_of(c), c.bytes);
      set(c, nodes_[i]);
    }
    check(cudaGraphLaunch(ready_.get(), to), "cudaGraphLaunch");
  }

  std::uint64_t used = 0;  ///< when it was last launched

 private:
  [[nodiscard]] bool same(call const& c, call_run const& run) const {
    return std::memcmp(run.operands_of(c), run_.operands_of(c), c.bytes) == 0;
  }
  [[nodiscard]] cudaKernelNodeParams launch_of(call const& c, parameter_addresses& places) const {
    cudaKernelNodeParams p{};
    p.func = const_cast<void*>(c.function);
    p.gridDim = dim3(c.blocks);
    p.blockDim = dim3(c.threads);
    p.sharedMemBytes = static_cast<unsigned>(c.shared_bytes);
    p.kernelParams = places.data();
    return p;
  }

  cudaGraphNode_t add(call const& c, cudaGraphNode_t const* before, std::size_t count) {
    cudaGraphNode_t node = nullptr;
    switch (c.kind) {
      case call_kind::kernel: {
        allow_shared_memory(c.function, c.shared_bytes, c.name);
        parameter_addresses places(c, run_.operands_of(c));
        auto const p = launch_of(c, places);
        check(cudaGraphAddKernelNode(&node, graph_.get(), before, count, &p), c.name);
        break;
      }
      case call_kind::library: {
        std::lock_guard const lock(capturing);
        cudaStream_t const aside = captured_stream();
        check(cudaStreamBeginCapture(aside, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
        std::exception_ptr failure;
        try {
          c.library(run_.operands_of(c), aside);
        } catch (...) {
          failure = std::current_exception();
        }
        cudaGraph_t captured = nullptr;
        auto const status = cudaStreamEndCapture(aside, &captured);
        owned_graph const part(captured);
        if (failure) std::rethrow_exception(failure);
        check(status, "cudaStreamEndCapture");
        check(cudaGraphAddChildGraphNode(&node, graph_.get(), before, count, captured), "cudaGraphAddChildGraphNode");
        break;
      }
      case call_kind::copy: {
        auto const o = operands_of_copy(run_.operands_of(c));
        check(
            cudaGraphAddMemcpyNode1D(&node, graph_.get(), before, count, o.to, o.from, o.bytes, cudaMemcpyHostToDevice),
            c.name);
        break;
      }
    }
    return node;
  }

  void set(call const& c, cudaGraphNode_t node) {
    if (c.kind == call_kind::kernel) {
      parameter_addresses places(c, run_.operands_of(c));
      auto const p = launch_of(c, places);
      check(cudaGraphExecKernelNodeSetParams(ready_.get(), node, &p), c.name);
    } else {
      auto const o = operands_of_copy(run_.operands_of(c));
      check(cudaGraphExecMemcpyNodeSetParams1D(ready_.get(), node, o.to, o.from, o.bytes, cudaMemcpyHostToDevice),
            c.name);
    }
  }

  call_run run_;  // with the parameters that the graph has now
  std::vector<cudaGraphNode_t> nodes_;
  owned_graph graph_;
  owned_ready_graph ready_;
};

/// How many scopes of each kind this thread has begun and not ended.
thread_local int branch_depth = 0;
thread_local int side_stream_depth = 0;

/// The calls of all threads to one stream. Never destroyed.
class call_queue {
 public:
  explicit call_queue(int stream) : number_(stream) {}
  void add(call c, void const* operands, std::size_t bytes) {
    std::lock_guard const lock(mutex_);
    rethrow();
    // Calls of the side stream fill the device: branches would only withhold memory.
    c.on_branch = branch_depth > 0 && number_ == 0;
    c.joins = joins_next_ && !c.on_branch;
    run_.add(c, operands, bytes);
    if (c.on_branch) waits_ = true;
    else joins_next_ = false;
    launch_of_all_ = launches_ + 1;
    if (run_.calls.size() < length_) return;
    length_ = std::clamp(length_ + length_ / 2, shortest, longest);
    try {
      launch();
    } catch (std::bad_alloc const&) {  // this call is not made, and those before it are still to come
      joins_next_ = joins_next_ || run_.calls.back().joins;
      run_.take_back();
      throw;
    }
  }
  void launch_all() {
    std::lock_guard const lock(mutex_);
    rethrow();
    launch();
  }
  void launch_quietly() noexcept {
    std::lock_guard const lock(mutex_);
    launch_or_keep_failure();
  }
  void join_branch() noexcept {
    std::lock_guard const lock(mutex_);
    if (!waits_) return;
    joins_next_ = true;
    end_wait();
  }
  std::uint64_t unjoined_branch() noexcept {
    std::lock_guard const lock(mutex_);
    return waits_ ? wait_ : 0;
  }
  /// The number of the launch that takes all calls until now; and whether it has been.
  [[nodiscard]] std::uint64_t launch_of_all() const noexcept { return launch_of_all_; }
  [[nodiscard]] bool has_launched(std::uint64_t number) const noexcept { return launches_ >= number; }
  void give_way() noexcept {
    std::lock_guard const lock(mutex_);
    launch_or_keep_failure();
    if (graphs_ == 0) return;
    cudaStreamSynchronize(stream_of(number_));  // some may still run
    known_.clear();
    graphs_ = 0;
  }
  /// A device that has nothing to do then gets the next calls at once, and short runs first.
  void wait() {
    std::lock_guard const lock(mutex_);
    check(cudaStreamSynchronize(stream_of(number_)), "cudaStreamSynchronize");
    length_ = first;
  }
  /// All calls until now, and no later one, come before what the other stream gets next.
  void lead(int other) {
    std::lock_guard const lock(mutex_);
    rethrow();
    launch();
    if (passed_ == nullptr)
      check(cudaEventCreateWithFlags(&passed_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check(cudaEventRecord(passed_, stream_of(number_)), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream_of(other), passed_, 0), "cudaStreamWaitEvent");
  }
  void set_graphs(bool wanted) {
    std::lock_guard const lock(mutex_);
    wants_graphs_ = wanted;
  }

 private:
  static constexpr std::size_t first = 2;          // calls: a table and who reads it, as the optimiser
  static constexpr std::size_t shortest = 12;      // of other runs that nothing but their length ends
  static constexpr std::size_t longest = 256;      // the device is never far behind the host
  static constexpr std::size_t worth_a_graph = 8;  // calls
  static constexpr std::size_t most_graphs = 512;
  static constexpr std::size_t most_known = 4096;

  void end_wait() {
    if (std::exchange(waits_, false)) ++wait_;
  }
  void rethrow() {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }
  void launch_or_keep_failure() noexcept {
    try {
      launch();
    } catch (std::bad_alloc const&) {  // who comes next tries again
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  /// Where there is no memory the calls that are not in the stream stay; where something else fails they are lost, so that it does
  /// not fail again.
  void launch() {
    std::size_t made = 0;
    try {
      if (!run_.calls.empty() && !launched_as_graph())
        for (; made < run_.calls.size(); ++made)
          make(run_.calls[made], run_.operands_of(run_.calls[made]), stream_of(number_));
    } catch (std::bad_alloc const&) {
      run_.drop(made);
      throw;
    } catch (...) {
      begin_anew();
      throw;
    }
    begin_anew();
  }
  void begin_anew() noexcept {
    run_.clear();
    joins_next_ = false;  // a run is behind the one before
    end_wait();
    launches_ = launch_of_all_.load();
  }

  /// A run that is here for the first time is only remembered, the second time it becomes a graph. Where the host has no memory
  /// for either, its calls are made one by one.
  bool launched_as_graph() try {
    if (!wants_graphs_ || run_.calls.size() < worth_a_graph) return false;
    auto const at = known_.find(run_.likeness);
    if (at == known_.end()) {
      if (known_.size() >= most_known) forget_those_without_graphs();
      known_.emplace(run_.likeness, nullptr);
      return false;
    }
    auto& graph = at->second;
    if (graph == nullptr) {
      if (graphs_ >= most_graphs) forget_the_oldest();
      graph = made();
      if (graph == nullptr) return false;
      ++graphs_;
    }
    if (!graph->serves(run_)) return false;
    graph->used = ++now_;
    try {
      graph->launch(run_, stream_of(number_));
      return true;
    } catch (...) {  // if a call is at fault, it will say so
      graph.reset();
      --graphs_;
      return false;
    }
  } catch (std::bad_alloc const&) {
    return false;
  }
  /// Or none, where the driver makes none of it: calls can always be made one by one.
  std::unique_ptr<call_graph> made() {
    try {
      return std::make_unique<call_graph>(run_);
    } catch (error const&) {
      wants_graphs_ = false;
      return nullptr;
    }
  }
  void forget_those_without_graphs() {
    for (auto at = known_.begin(); at != known_.end();) at = at->second == nullptr ? known_.erase(at) : std::next(at);
  }
  void forget_the_oldest() {
    auto oldest = known_.end();
    for (auto at = known_.begin(); at != known_.end(); ++at)
      if (at->second != nullptr && (oldest == known_.end() || at->second->used < oldest->second->used)) oldest = at;
    check(cudaStreamSynchronize(stream_of(number_)), "cudaStreamSynchronize");  // it may still run
    oldest->second.reset();
    --graphs_;
  }

  int number_;
  std::mutex mutex_;
  cudaEvent_t passed_ = nullptr;
  call_run run_;
  std::size_t length_ = shortest;
  bool waits_ = false;       // whether there are calls on the branch that nobody has joined
  std::uint64_t wait_ = 1;   // the number of this wait or the next
  bool joins_next_ = false;  // the next call that is not on the branch
  std::atomic<std::uint64_t> launches_ = 0;
  std::atomic<std::uint64_t> launch_of_all_ = 0;
  std::exception_ptr failure_;
  bool wants_graphs_ = true;
  std::unordered_map<std::uint64_t, std::unique_ptr<call_graph>> known_;
  std::size_t graphs_ = 0;
  std::uint64_t now_ = 0;
};

call_queue& queue_of(int stream) {
  static call_queue* const queues[stream_count] = {new call_queue(0), new call_queue(1)};
  return *queues[stream];
}
call_queue& queue() { return queue_of(stream_number()); }

/// Device memory that goes back to the driver when the calls before are in their streams.
class released_blocks {
 public:
  void add(void* memory) noexcept {
    block b{memory, {}};
    for (int stream = 0; stream < stream_count; ++stream) b.behind[stream] = queue_of(stream).launch_of_all();
    try {
      std::lock_guard const lock(mutex_);
      blocks_.push_back(b);
      empty_ = false;
    } catch (std::bad_alloc const&) {  // no room to remember it: what cannot be launched now may use it for ever
      launch_calls_quietly();
      if (b.is_free()) cudaFree(memory);
    }
    free_launched();
  }
  void free_launched() noexcept {
    if (empty_) return;
    std::lock_guard const lock(mutex_);
    std::size_t kept = 0;
    for (auto const& b : blocks_) {
      if (b.is_free()) cudaFree(b.memory);
      else blocks_[kept++] = b;
    }
    blocks_.resize(kept);
    empty_ = kept == 0;
  }

 private:
  struct block {
    void* memory;
    std::uint64_t behind[stream_count];

    [[nodiscard]] bool is_free() const {
      for (int stream = 0; stream < stream_count; ++stream)
        if (!queue_of(stream).has_launched(behind[stream])) return false;
      return true;
    }
  };
  std::mutex mutex_;
  std::vector<block> blocks_;
  std::atomic<bool> empty_ = true;
};
released_blocks& released() {
  static auto* r = new released_blocks;
  return *r;
}

thread_local bool joined = true;  // whether the side stream has no calls of this thread that it has not joined

}  // namespace

void enqueue(kernel_call const& k, std::byte const* parameters, std::size_t bytes) {
  call c;
  c.name = k.name;
  c.function = k.function;
  c.places = k.places;
  c.count = k.count;
  c.blocks = k.blocks;
  c.threads = k.threads;
  c.shared_bytes = k.shared_bytes;
  queue().add(c, parameters, bytes);
}
void enqueue(library_call made, void const* operands, std::size_t bytes) {
  call c;
  c.kind = call_kind::library;
  c.library = made;
  queue().add(c, operands, bytes);
}
void enqueue_copy(void* to, void const* from, std::size_t bytes) {
  call c;
  c.kind = call_kind::copy;
  c.name = "upload";
  copy_operands const operands{to, from, bytes};
  queue().add(c, &operands, sizeof(operands));
}
int stream_number() noexcept { return side_stream_depth > 0 ? 1 : 0; }
void fork_side_stream() { queue_of(0).lead(1); }
void begin_side_stream() {
  joined = false;
  ++side_stream_depth;
}
void end_side_stream() noexcept {
  if (--side_stream_depth == 0) queue_of(1).launch_quietly();
}
bool join_side_stream() {
  if (stream_number() == 1 || joined) return false;
  queue_of(0).launch_all();  // that is not behind it
  queue_of(1).lead(0);
  joined = true;
  return true;
}
void begin_branch() noexcept { ++branch_depth; }
void end_branch() noexcept { --branch_depth; }
void join_branch() noexcept {
  if (branch_depth == 0) queue().join_branch();  // calls on the branch come one after another
}
int strand() noexcept { return 2 * stream_number() + (branch_depth > 0 ? 1 : 0); }
std::uint64_t unjoined_branch() noexcept { return queue().unjoined_branch(); }
void launch_calls() {
  for (int stream = 0; stream < stream_count; ++stream) queue_of(stream).launch_all();
  released().free_launched();
}
void wait_for_calls() {
  launch_calls();
  for (int stream = 0; stream < stream_count; ++stream) queue_of(stream).wait();
}
void launch_calls_quietly() noexcept {
  for (int stream = 0; stream < stream_count; ++stream) queue_of(stream).launch_quietly();
  released().free_launched();
}
void give_way() noexcept {
  for (int stream = 0; stream < stream_count; ++stream) queue_of(stream).give_way();
  released().free_launched();
}
void release(void* block) noexcept { released().add(block); }
void set_graphs(bool wanted) {
  for (int stream = 0; stream < stream_count; ++stream) queue_of(stream).set_graphs(wanted);
}

}  // namespace ouro::cuda_kernels
