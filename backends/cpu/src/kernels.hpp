// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The table of f32 kernels that is filled once for each instruction set. Plain pointers and lengths only, so that the
// translation units compiled with wide instructions share no inline function with the others.
#pragma once

#include <cstdint>

namespace ouro::cpu_kernels {

using index = std::int64_t;

struct adamw_numbers {
  float beta1, one_minus_beta1, beta2, one_minus_beta2, scale, correction1, correction2, epsilon, shrink, rate;
};

struct table {
  char const* name;
  void (*exp)(float const* x, float* y, index n);
  void (*tanh)(float const* x, float* y, index n);
  void (*erf)(float const* x, float* y, index n);
  void (*map)(int f, float* y, float const* x, index n);
  void (*map_gradient)(int f, float* dx, float const* saved, float const* dy, index n, bool add);
  void (*combine)(int f, float* c, float const* a, float const* b, index n, bool add);  // b has n values
  void (*combine_scalar)(int f, float* c, float const* a, float b, index n, bool add);
  void (*scale)(float* y, float const* x, float factor, index n, bool add);
  float (*sum)(float const* x, index n);
  double (*sum_of_squares)(float const* x, index n);
  float (*dot)(float const* a, float const* b, index n);
  void (*layer_norm)(float* y, float* mean, float* rstd, float const* x, float const* w, float const* b, float eps,
                     index rows, index width);
  void (*layer_norm_gradient)(float* dx, float* dw, float* db, float const* x, float const* mean, float const* rstd,
                              float const* w, float const* dy, index rows, index width, bool add);
  float (*exp_shifted)(float* x, float factor, float shift, index n);  // x = exp(factor·x − shift); returns Σ
  float (*maximum)(float const* x, index n);
  void (*dropout)(float* y, float const* x, float keep, std::uint32_t threshold, std::uint64_t key, std::uint64_t site,
                  std::uint64_t first_word, index n, bool add);  // first_word is a multiple of 4
  void (*adamw)(float* p, float* m, float* v, float const* g, adamw_numbers const& s, index n);
};

table const& generic();
table const& avx2();
table const& avx512();
/// The best table this machine can run.
table const& best();

}  // namespace ouro::cpu_kernels
