// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Which kernels this machine runs.
#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cpu/math.hpp>

#include "kernels.hpp"

namespace ouro {

namespace cpu_kernels {
bool has_avx512() {
#if defined(OURO_X86)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}
table const& best() {
  static table const& chosen = []() -> table const& {
#if defined(OURO_X86)
    if (has_avx512()) return avx512();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2();
#endif
    return generic();
  }();
  return chosen;
}
}  // namespace cpu_kernels

namespace cpu_math {
void exp(float const* x, float* y, std::int64_t n) { cpu_kernels::best().exp(x, y, n); }
void tanh(float const* x, float* y, std::int64_t n) { cpu_kernels::best().tanh(x, y, n); }
void erf(float const* x, float* y, std::int64_t n) { cpu_kernels::best().erf(x, y, n); }
void sigmoid(float const* x, float* y, std::int64_t n) {
  cpu_kernels::best().map(static_cast<int>(unary::sigmoid), y, x, n);
}
}  // namespace cpu_math

std::string cpu_description() {
  return std::string(cpu_kernels::best().name) + " kernels, products " +
         (cpu_products() == product_precision::bf16 ? "in bf16, else by " : "by ") +
#if defined(OURO_WITH_DNNL)
         "oneDNN" +
#elif defined(OURO_WITH_EIGEN)
         "Eigen" +
#else
         "plain loops" +
#endif
         ", " + std::to_string(cpu_threads()) + " threads";
}

}  // namespace ouro
