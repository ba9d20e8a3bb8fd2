// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the sources of the cuda backend need of CUDA and cuBLAS, in plain C++, so that their tests run where there is no
// device. The threads of a block are fibers that change only at barriers and shuffles, blocks run one after another, and
// every call is done when it returns. Device memory is heap memory of its own, filled with NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(threads)

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

namespace emulated_cuda {

/// Calls body(data) once for each thread of a grid. Threads of a block that wait for each other in vain end the program
/// with the kernel's name.
void run(char const* name, dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*), void* data);
/// The shared memory of the block that runs, NaN at its start.
void* shared_memory();
/// Gives `bits` to the warp, and takes what lane `source` gave.
std::uint64_t exchange(std::uint64_t bits, int source);
/// The lane of the thread that runs.
int lane();
/// How many bytes of device memory there are from now on; to test what happens when there are no more.
void limit_memory(std::size_t bytes);

}  // namespace emulated_cuda

/// Every thread of the warp must take part: `mask` is all ones.
template <class T>
T __shfl_sync(unsigned, T x, int source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof(T));
  bits = emulated_cuda::exchange(bits, source);
  std::memcpy(&x, &bits, sizeof(T));
  return x;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int lanes) {
  return __shfl_sync(mask, x, emulated_cuda::lane() ^ lanes);
}

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorNoDevice = 100 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
using cudaStream_t = struct emulated_stream*;
inline constexpr unsigned cudaStreamNonBlocking = 1;

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major;
  int minor;
  int multiProcessorCount;
};

char const* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaMalloc(void** p, std::size_t bytes);
cudaError_t cudaFree(void* p);
/// The side that is the device's must lie in one of its live blocks, the other must not.
cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0 };
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
using cublasHandle_t = struct emulated_products*;

char const* cublasGetStatusString(cublasStatus_t status);
cublasStatus_t cublasCreate(cublasHandle_t* handle);
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream);

namespace emulated_cuda {

/// Column-major products by plain loops.
template <class T>
cublasStatus_t gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, T const* a,
                    std::int64_t lda, std::int64_t step_a, T const* b, std::int64_t ldb, std::int64_t step_b, T beta,
                    T* c, std::int64_t ldc, std::int64_t step_c, std::int64_t batches) {
  for (std::int64_t s = 0; s < batches; ++s, a += step_a, b += step_b, c += step_c)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t i = 0; i < m; ++i) {
        T sum = 0;
        for (std::int64_t l = 0; l < k; ++l)
          sum += a[ta ? l + i * lda : i + l * lda] * b[tb ? j + l * ldb : l + j * ldb];
        T& to = c[i + j * ldc];
        to = beta == T(0) ? alpha * sum : alpha * sum + beta * to;
      }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace emulated_cuda

inline cublasStatus_t cublasSgemmStridedBatched_64(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb,
                                                   std::int64_t m, std::int64_t n, std::int64_t k, float const* alpha,
                                                   float const* a, std::int64_t lda, long long step_a, float const* b,
                                                   std::int64_t ldb, long long step_b, float const* beta, float* c,
                                                   std::int64_t ldc, long long step_c, std::int64_t batches) {
  return emulated_cuda::gemm(ta == CUBLAS_OP_T, tb == CUBLAS_OP_T, m, n, k, *alpha, a, lda, step_a, b, ldb, step_b,
                             *beta, c, ldc, step_c, batches);
}
inline cublasStatus_t cublasDgemmStridedBatched_64(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb,
                                                   std::int64_t m, std::int64_t n, std::int64_t k, double const* alpha,
                                                   double const* a, std::int64_t lda, long long step_a, double const* b,
                                                   std::int64_t ldb, long long step_b, double const* beta, double* c,
                                                   std::int64_t ldc, long long step_c, std::int64_t batches) {
  return emulated_cuda::gemm(ta == CUBLAS_OP_T, tb == CUBLAS_OP_T, m, n, k, *alpha, a, lda, step_a, b, ldb, step_b,
                             *beta, c, ldc, step_c, batches);
}
