// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the sources of the cuda backend need of CUDA, cuBLAS and cuBLASLt, in plain C++, so that their tests run where
// there is no device. The threads of a block are fibers that change only at barriers and shuffles, blocks run one after
// another, and every call is done when it returns. Device memory is heap memory of its own, filled with NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
/// Of a function whose accesses to memory are not a kernel's, and are not looked at for races.
#define OURO_UNCHECKED __attribute__((no_sanitize("thread")))

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
  dim3(unsigned i = 1, unsigned j = 1, unsigned k = 1) : x(i), y(j), z(k) {}  // NOLINT: implicit as in CUDA
};

/// Of the thread that runs.
extern dim3 threadIdx;
extern dim3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

void __syncthreads();
int __syncthreads_or(int predicate);
void __syncwarp();
inline void __threadfence() {}
/// Counts up to `most`, then from 0 again; returns what was there before.
unsigned atomicInc(unsigned* count, unsigned most);

namespace emulated_cuda {

/// A kernel as the runtime knows it.
struct kernel {
  char const* name;
  void (*function)();
  void (*call)(void (*function)(), void** parameters);
  std::vector<std::size_t> sizes;  // of its parameters
};
/// The one of this function.
kernel const* known(kernel const& k);
template <class... P>
void const* known(char const* name, void (*function)(P...)) {
  auto const call = [](void (*f)(), void** parameters) OURO_UNCHECKED {
    [&]<std::size_t... I>(std::index_sequence<I...>) OURO_UNCHECKED {
      reinterpret_cast<void (*)(P...)>(f)(*static_cast<P*>(parameters[I])...);
    }
    (std::index_sequence_for<P...>());
  };
  return known({name, reinterpret_cast<void (*)()>(function), call, {sizeof(P)...}});
}
/// Calls body(data) once for each thread of a grid. Threads of a block that wait for each other in vain end the program
/// with the kernel's name.
void run(char const* name, dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*), void* data);
/// The shared memory of the block that runs, NaN at its start.
void* shared_memory();
/// Gives `bits` to the warp, and takes what every lane gave: 32 words that stay until the warp has met once more.
std::uint64_t const* exchange(std::uint64_t bits);
/// Waits for the other lanes of the warp, as instructions of a warp do, which order nothing in memory.
void meet();
/// Bytes on their way to shared memory, in the group that is open, or zeroes if they come from nowhere: they come when they
/// are waited for, and not before.
void copy_later(void* to, void const* from, std::size_t bytes);
void close_copies();
/// Waits for all groups that this thread has closed but the last `but`, or for everything.
void finish_copies(unsigned but);
void finish_copies();
/// What a product of the device reads on its own, until its warp waits for all.
void hold_for_product(void const* factor, std::size_t bytes);
void finish_products();
/// The lane of the thread that runs.
int lane();
/// How many bytes of device memory there are from now on; to test what happens when there are no more.
void limit_memory(std::size_t bytes);
/// Whether this thread is in a call of the driver, which has failed already if the host had no memory, and else has what it
/// needs: for tests in which there is no more.
bool inside() noexcept;
/// How much shared memory a block can ask for: as little as any device of compute capability 8.x has, unless it is set.
inline std::size_t shared_memory_limit = std::size_t{99} << 10U;
/// Of a block of fresh device memory no more than this is asked for: the rest is nobody's.
void hand_out(void* p, std::size_t bytes);
/// Whether blocks of device memory are used again as on a device, and not fresh each time; false unless it is set, or the
/// environment has OURO_EMULATED_CUDA_KEEPS_MEMORY.
inline bool keeps_memory = std::getenv("OURO_EMULATED_CUDA_KEEPS_MEMORY") != nullptr;
/// How many products of cuBLASLt there were until now, and how many of them had a bias.
struct product_count {
  int all;
  int with_bias;
};
product_count products();
/// How many graphs were made and launched until now, and how many of their nodes were set anew.
struct graph_count {
  int made;
  int launches;
  int nodes_set;
};
graph_count graphs();

}  // namespace emulated_cuda

/// Every thread of the warp must take part: `mask` is all ones.
template <class T>
T __shfl_sync(unsigned, T x, int source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof(T));
  bits = emulated_cuda::exchange(bits)[source];
  std::memcpy(&x, &bits, sizeof(T));
  return x;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int lanes) {
  return __shfl_sync(mask, x, emulated_cuda::lane() ^ lanes);
}

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorNotReady = 600
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
/// Work is done when it is enqueued, but in streams of the last priority when somebody waits for it: until then all others
/// are before it, as far as the events that it waits for allow.
using cudaStream_t = struct emulated_stream*;
inline constexpr unsigned cudaStreamNonBlocking = 1;

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major;
  int minor;
  int multiProcessorCount;
  std::size_t sharedMemPerBlockOptin;
};

using cudaEvent_t = struct emulated_event*;
char const* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaDeviceGetStreamPriorityRange(int* last, int* first);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
inline constexpr unsigned cudaEventDisableTiming = 2;
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaMalloc(void** p, std::size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaMallocHost(void** p, std::size_t bytes);
cudaError_t cudaFreeHost(void* p);
/// The side that is the device's must lie in one of its live blocks, the other must not.
cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
/// Within one of the device's live blocks.
cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t stream);

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaFuncSetAttribute(void const* function, cudaFuncAttribute attribute, int value);
/// `function` as emulated_cuda::known() gives it.
cudaError_t cudaLaunchKernel(void const* function, dim3 grid, dim3 block, void** parameters, std::size_t shared_bytes,
                             cudaStream_t stream);

/// Graphs, whose nodes keep copies of what they are given.
using cudaGraph_t = struct emulated_graph*;
using cudaGraphExec_t = struct emulated_graph*;
using cudaGraphNode_t = struct emulated_node*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
struct cudaKernelNodeParams {
  void* func;
  dim3 gridDim;
  dim3 blockDim;
  unsigned sharedMemBytes;
  void** kernelParams;
  void** extra;
};
cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, cudaGraphNode_t const* before,
                                   std::size_t count, cudaKernelNodeParams const* params);
cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph, cudaGraphNode_t const* before,
                                     std::size_t count, void* to, void const* from, std::size_t bytes,
                                     cudaMemcpyKind kind);
cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t* node, cudaGraph_t graph, cudaGraphNode_t const* before,
                                       std::size_t count, cudaGraph_t part);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready);
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t ready, cudaGraphNode_t node,
                                             cudaKernelNodeParams const* params);
cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t ready, cudaGraphNode_t node, void* to, void const* from,
                                               std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream);
/// What a product of cuBLASLt puts into the stream becomes a node until the end.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
using cublasHandle_t = struct emulated_products*;

char const* cublasGetStatusString(cublasStatus_t status);
cublasStatus_t cublasCreate_v2(cublasHandle_t* handle);
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream);

enum cudaDataType { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16BF = 14 };
enum cublasComputeType_t {
  CUBLAS_COMPUTE_32F = 68,
  CUBLAS_COMPUTE_32F_FAST_16BF = 75,
  CUBLAS_COMPUTE_32F_FAST_TF32 = 77,
  CUBLAS_COMPUTE_64F = 70
};
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 };

/// Column-major products by plain loops.
cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb, std::int64_t m,
                                             std::int64_t n, std::int64_t k, void const* alpha, void const* a,
                                             cudaDataType type_a, std::int64_t lda, long long step_a, void const* b,
                                             cudaDataType type_b, std::int64_t ldb, long long step_b, void const* beta,
                                             void* c, cudaDataType type_c, std::int64_t ldc, long long step_c,
                                             std::int64_t batches, cublasComputeType_t computed,
                                             cublasGemmAlgo_t algorithm);

using cublasLtHandle_t = cublasHandle_t;
using cublasLtMatmulDesc_t = struct emulated_operation*;
using cublasLtMatrixLayout_t = struct emulated_layout*;
using cublasLtMatmulPreference_t = struct emulated_preference*;

enum cublasLtMatmulDescAttributes_t {
  CUBLASLT_MATMUL_DESC_TRANSA = 3,
  CUBLASLT_MATMUL_DESC_TRANSB = 4,
  CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
  CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8
};
enum cublasLtEpilogue_t { CUBLASLT_EPILOGUE_DEFAULT = 1, CUBLASLT_EPILOGUE_BIAS = 4 };
enum cublasLtMatrixLayoutAttribute_t {
  CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT = 5,
  CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 6
};
enum cublasLtMatmulPreferenceAttributes_t {
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
  CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8
};
enum cublasLtReductionScheme_t { CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2, CUBLASLT_REDUCTION_SCHEME_MASK = 7 };

struct cublasLtMatmulAlgo_t {
  std::uint64_t data[8];
};
struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  std::size_t workspaceSize;
  cublasStatus_t state;
};

char const* cublasLtGetStatusString(cublasStatus_t status);
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle);
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t computed,
                                        cudaDataType scaled);
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                              void const* value, std::size_t bytes);
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading);
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, void const* value,
                                                std::size_t bytes);
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference);
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, void const* value,
                                                    std::size_t bytes);
/// Knows an algorithm for f32 and bf16, so that products in f64 show what is done without one.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t* results, int* count);
/// Refuses addresses that are not aligned as the heuristic was told, sizes that do not fit, and a workspace that is too
/// small.
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, void const* alpha, void const* a,
                              cublasLtMatrixLayout_t of_a, void const* b, cublasLtMatrixLayout_t of_b, void const* beta,
                              void const* c, cublasLtMatrixLayout_t of_c, void* d, cublasLtMatrixLayout_t of_d,
                              cublasLtMatmulAlgo_t const* algorithm, void* workspace, std::size_t workspace_bytes,
                              cudaStream_t stream);
