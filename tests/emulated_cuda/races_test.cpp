// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Kernels with and without races: what is found, and what is not.
#include <catch2/catch_test_macros.hpp>

#include <emulated_cuda.hpp>

#include <cstddef>
#include <string>
#include <vector>

#include "races.hpp"

namespace {

namespace races = emulated_cuda::races;
using reports = std::vector<std::string>;
bool const quiet = (races::prints = false);

struct device_numbers {
  explicit device_numbers(std::size_t n) : bytes(n * sizeof(int)) {
    void* p = nullptr;
    cudaMalloc(&p, bytes);
    data = static_cast<int*>(p);
  }
  device_numbers(device_numbers const&) = delete;
  device_numbers& operator=(device_numbers const&) = delete;
  ~device_numbers() { cudaFree(data); }

  std::size_t bytes;
  int* data = nullptr;
};

cudaStream_t made_stream() {
  cudaStream_t made = nullptr;
  cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
  return made;
}
cudaStream_t stream() {
  static cudaStream_t const s = made_stream();
  return s;
}
cudaStream_t another_stream() {
  static cudaStream_t const s = made_stream();
  return s;
}

void launch(void (*kernel)(int*), unsigned blocks, unsigned threads, int* numbers, cudaStream_t to = stream()) {
  void* parameters[] = {&numbers};
  cudaLaunchKernel(emulated_cuda::known("kernel", kernel), dim3(blocks), dim3(threads), parameters, 4096, to);
}
/// What is found in a kernel of two warps in each of two blocks, over 256 zeroes.
reports found_in(void (*kernel)(int*)) {
  device_numbers const numbers(256);
  cudaMemsetAsync(numbers.data, 0, numbers.bytes, stream());
  launch(kernel, 2, 64, numbers.data);
  cudaStreamSynchronize(stream());
  return races::take_reports();
}

int thread() { return static_cast<int>(threadIdx.x); }
int number() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
int* shared() { return static_cast<int*>(emulated_cuda::shared_memory()); }

reports const none;
reports const read_after_write{"read, and written by another thread"};
reports const write_after_read{"written, and read by another thread"};
reports const write_after_write{"written, and written by another thread"};
reports const both_ways{"read, and written by another thread",
                        "written, and read by another thread"};  // by whoever ran first

void own(int* x) { x[number()] = number(); }
void one_place(int* x) { x[0] = 1; }
void through_shared_memory(int* x) {
  shared()[thread()] = thread();
  __syncthreads();
  x[number()] = shared()[63 - thread()];
  __syncthreads();
  shared()[thread()] = 0;
}
void without_first_barrier(int* x) {
  shared()[thread()] = thread();
  x[number()] = shared()[63 - thread()];
}
void without_second_barrier(int* x) {
  shared()[thread()] = thread();
  __syncthreads();
  x[number()] = shared()[63 - thread()];
  shared()[thread()] = 0;
}
void through_fixed_memory(int* x) {
  __shared__ int fixed[64];
  fixed[thread()] = thread();
  x[number()] = fixed[63 - thread()];
}
void within_a_warp(int* x) {
  shared()[thread()] = thread();
  __syncwarp();
  x[number()] = shared()[thread() ^ 1];
}
void beyond_a_warp(int* x) {
  shared()[thread()] = thread();
  __syncwarp();
  x[number()] = shared()[thread() ^ 32];
}
void by_a_shuffle(int* x) {
  shared()[thread()] = thread();
  int const other = __shfl_xor_sync(~0U, thread(), 1);
  x[number()] = shared()[other];
}
void who_reads_first(int* x) {  // then lane 0 writes: some of the readers are others, some are not
  if (blockIdx.x > 0) return;
  int const sum = x[128 + thread() / 32] + __shfl_xor_sync(~0U, 0, 1);
  if (thread() % 32 == 0) x[128 + thread() / 32] = sum;
}
void other_blocks(int* x) {
  if (blockIdx.x == 0) x[thread()] = 1;
  else x[64 + thread()] = x[thread()];
}
void after_a_ticket(int* x) {  // of who comes last
  x[number()] = 1;
  __threadfence();
  __syncthreads();
  bool const last = thread() == 0 && atomicInc(reinterpret_cast<unsigned*>(x + 255), 1U) == 1U;
  if (__syncthreads_or(last ? 1 : 0) != 0) x[128 + thread()] = x[thread()] + x[64 + thread()];
}
void before_its_ticket(int* x) {
  __syncthreads();
  bool const last = thread() == 0 && atomicInc(reinterpret_cast<unsigned*>(x + 255), 1U) == 1U;
  x[number()] = 1;
  if (__syncthreads_or(last ? 1 : 0) != 0) x[128 + thread()] = x[thread()];
}
void waited_copy(int* x) {
  emulated_cuda::copy_later(shared() + 4 * thread(), x + 4 * thread(), 16);
  emulated_cuda::finish_copies();
  shared()[4 * thread()] += 1;
}
void copy_that_nobody_waits_for(int* x) {
  emulated_cuda::copy_later(shared() + 4 * thread(), x + 4 * thread(), 16);
  shared()[512 + thread()] = shared()[4 * thread()];
  emulated_cuda::finish_copies();
}
void copies_but_the_last(int* x) {
  for (int i = 0; i < 2; ++i) {
    emulated_cuda::copy_later(shared() + 256 * i + 4 * thread(), x + 4 * thread(), 16);
    emulated_cuda::close_copies();
  }
  emulated_cuda::finish_copies(1);
  shared()[4 * thread()] += 1;
  emulated_cuda::finish_copies();
}
void copy_in_the_last_group(int* x) {
  emulated_cuda::copy_later(shared() + 4 * thread(), x + 4 * thread(), 16);
  emulated_cuda::close_copies();
  emulated_cuda::finish_copies(1);
  shared()[4 * thread()] += 1;
  emulated_cuda::finish_copies();
}
void product(int*) {
  emulated_cuda::hold_for_product(shared(), 256);
  emulated_cuda::finish_products();
  __syncthreads();
  shared()[thread()] = 0;
}
void product_on_its_way(int*) {
  emulated_cuda::hold_for_product(shared(), 256);
  __syncthreads();
  shared()[thread()] = 0;
  emulated_cuda::finish_products();
}
void read_first(int* x) { x[64 + thread()] = x[thread()]; }
void write_first(int* x) { x[thread()] = 1; }

}  // namespace

TEST_CASE("races: between the threads of a block") {
  CHECK(found_in(own) == none);
  CHECK(found_in(through_shared_memory) == none);
  CHECK(found_in(within_a_warp) == none);
  CHECK(found_in(one_place) == write_after_write);
  CHECK(found_in(without_first_barrier) == both_ways);
  CHECK(found_in(without_second_barrier) == both_ways);
  CHECK(found_in(through_fixed_memory) == both_ways);
  CHECK(found_in(beyond_a_warp) == both_ways);
  CHECK(found_in(by_a_shuffle) == read_after_write);
  CHECK(found_in(who_reads_first) == write_after_read);
}

TEST_CASE("races: between the blocks of a launch") {
  CHECK(found_in(other_blocks) == read_after_write);
  CHECK(found_in(after_a_ticket) == none);
  CHECK(found_in(before_its_ticket) == read_after_write);
}

TEST_CASE("races: with what the device does on its own") {
  CHECK(found_in(waited_copy) == none);
  CHECK(found_in(copies_but_the_last) == none);
  CHECK(found_in(copy_that_nobody_waits_for) == reports{"read, and a copy to it is on its way"});
  CHECK(found_in(copy_in_the_last_group) ==
        reports{"read, and a copy to it is on its way", "written, and a copy to it is on its way"});
  CHECK(found_in(product) == none);
  CHECK(found_in(product_on_its_way) == reports{"written, and a product of it is on its way"});
}

TEST_CASE("races: memory that is not the device's, or that nobody has written") {
  int host[256] = {};
  launch(own, 1, 64, host);
  CHECK(races::take_reports() == reports{"no memory of the device"});
  device_numbers const fresh(128);
  launch(read_first, 1, 64, fresh.data);
  CHECK(races::take_reports() == reports{"read, and never written"});
  cudaMemcpyAsync(host, fresh.data, 256, cudaMemcpyDeviceToHost, stream());
  CHECK(races::take_reports() == reports{"read, and never written"});
  emulated_cuda::hand_out(fresh.data, 256);  // half of it
  launch(own, 2, 64, fresh.data);
  CHECK(races::take_reports() == reports{"no memory of the device"});
}

TEST_CASE("races: between streams, unless an event or the host puts them in order") {
  device_numbers const numbers(128);
  cudaMemsetAsync(numbers.data, 0, numbers.bytes, stream());
  launch(read_first, 1, 64, numbers.data);
  CHECK(races::take_reports() == none);
  launch(write_first, 1, 64, numbers.data, another_stream());
  auto const both = reports{"written, and read by another task", "written, and written by another task"};
  CHECK(races::take_reports() == both);

  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  cudaEventRecord(event, another_stream());
  cudaStreamWaitEvent(stream(), event, 0);
  launch(read_first, 1, 64, numbers.data);
  CHECK(races::take_reports() == none);
  cudaEventDestroy(event);

  cudaStreamSynchronize(stream());
  launch(write_first, 1, 64, numbers.data, another_stream());
  CHECK(races::take_reports() == none);
}

TEST_CASE("races: between the nodes of a graph that has no edge between them") {
  auto found = [](bool edge) {
    device_numbers numbers(128);
    cudaMemsetAsync(numbers.data, 0, numbers.bytes, stream());
    cudaGraph_t graph = nullptr;
    cudaGraphCreate(&graph, 0);
    void* parameters[] = {&numbers.data};
    cudaGraphNode_t nodes[2] = {};
    int i = 0;
    for (auto const& kernel :
         {emulated_cuda::known("first", write_first), emulated_cuda::known("second", read_first)}) {
      cudaKernelNodeParams const p{const_cast<void*>(kernel), dim3(1), dim3(64), 0, parameters, nullptr};
      cudaGraphAddKernelNode(&nodes[i], graph, nodes, edge && i > 0 ? 1 : 0, &p);
      ++i;
    }
    cudaGraphExec_t ready = nullptr;
    cudaGraphInstantiate(&ready, graph, 0);
    cudaGraphLaunch(ready, stream());
    cudaGraphExecDestroy(ready);
    cudaGraphDestroy(graph);
    return races::take_reports();
  };
  CHECK(found(true) == none);
  CHECK(found(false) == reports{"written, and read by another task"});  // the last that was added runs first
}
