// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A class chosen from logits: a block for each row finds how many classes come before each, and one thread walks through
// the weights of those that may be chosen, in f64 as the reference does.
#include "device.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

constexpr int sample_threads = 256;

template <class T>
__global__ void sample_kernel(std::int32_t* chosen, T const* logits, index width, sampling_rule rule) {
  double* const value = shared_memory<double>();  // (V)
  double* const weight = value + width;           // (V)
  __shared__ index best;
  for (index i = threadIdx.x; i < width; i += blockDim.x) {
    T const x = logits[static_cast<index>(blockIdx.x) * width + i];
    value[i] = x != x ? -HUGE_VAL : static_cast<double>(x);
  }
  __syncthreads();
  for (index i = threadIdx.x; i < width; i += blockDim.x) {
    index before = 0;
    for (index j = 0; j < width; ++j) before += value[j] != value[i] ? value[j] > value[i] : j < i;
    weight[i] = rule.top_k <= 0 || before < rule.top_k ? 1.0 : 0.0;
    if (before == 0) best = i;
  }
  __syncthreads();
  if (rule.temperature > 0)
    for (index i = threadIdx.x; i < width; i += blockDim.x)
      if (weight[i] > 0) weight[i] = std::exp((value[i] - value[best]) / rule.temperature);
  __syncthreads();
  if (threadIdx.x != 0) return;
  bool const finite = value[best] < HUGE_VAL && value[best] > -HUGE_VAL;
  auto choice = finite ? static_cast<std::int32_t>(best) : -1;
  if (finite && rule.temperature > 0) {
    double sum = 0;
    for (index i = 0; i < width; ++i) sum += weight[i];
    double rest = rule.draw.uniform(rule.first + blockIdx.x) * sum;
    for (index i = 0; i < width && rest >= 0; ++i) {
      if (weight[i] > 0) choice = static_cast<std::int32_t>(i);
      rest -= weight[i];
    }
  }
  chosen[blockIdx.x] = choice;
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::sample(view chosen, const_view logits, sampling_rule const& rule) {
  index const width = logits.dims.back();
  with_real(logits.type, "sample", [&]<class T>(std::type_identity<T>) {
    launch("sample", sample_kernel<T>, logits.dims.rows(), sample_threads,
           2 * static_cast<std::size_t>(width) * sizeof(double), chosen.as<std::int32_t>(), logits.as<T>(), width,
           rule);
  });
}

}  // namespace ouro
