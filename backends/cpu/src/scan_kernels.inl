// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The recurrence kernels of one instruction set, and those of the short convolution. Included after kernels.inl, whose
// functions of one number they use.
#include "rwkv7_kernels.inl"
#include "ssd_kernels.inl"

namespace ouro::cpu_scans {
namespace {

void k_taps(float* y, float const* const* source, float const* weight, index taps, index n) {
  for (index j = 0; j < taps; ++j) {
    float const* x = source[j];
    float const* w = weight + j * n;
    for (index i = 0; i < n; ++i) y[i] += w[i] * x[i];
  }
}

void k_row_products(float* y, float const* a, index a_step, float const* b, index b_step, index rows, index n) {
  index i = 0;
  for (; i + lanes <= n; i += lanes) {
    float sum[lanes] = {};
    for (index t = 0; t < rows; ++t)
      for (int l = 0; l < lanes; ++l) sum[l] += a[t * a_step + i + l] * b[t * b_step + i + l];
    for (int l = 0; l < lanes; ++l) y[i + l] += sum[l];
  }
  for (; i < n; ++i) {
    float sum = 0;
    for (index t = 0; t < rows; ++t) sum += a[t * a_step + i] * b[t * b_step + i];
    y[i] += sum;
  }
}

}  // namespace

table const& OURO_KERNELS() {
  static constexpr table t{k_rwkv7_scratch, k_rwkv7,        k_rwkv7_gradient, k_ssd_scratch,
                           k_ssd,           k_ssd_gradient, k_taps,           k_row_products};
  return t;
}

}  // namespace ouro::cpu_scans
