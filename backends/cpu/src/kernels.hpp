// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The table of f32 kernels that is filled once for each instruction set. Plain pointers and lengths only, so that the
// translation units compiled with wide instructions share no inline function with the others.
#pragma once

#include <cstdint>

namespace ouro::cpu_kernels {

/// Whether this processor runs the kernels for AVX-512.
bool has_avx512();

using index = std::int64_t;

inline constexpr int mask_rounds = 7;  // ouro::philox::mask_rounds

/// A dropout (ouro::dropout_mask) of the numbers of one draw; threshold 0 keeps everything.
struct drop_rule {
  float factor;
  int bits;
  std::uint32_t threshold;
  std::uint64_t key, site;
};

struct adamw_numbers {
  float beta1, one_minus_beta1, beta2, one_minus_beta2, scale, correction1, correction2, epsilon, shrink, rate;
};

/// The hormone gate's operands (ouro/concepts/hormone_gate.hpp); absent ones are null.
struct gate_rows {
  float const *x, *h, *f, *scale, *bias, *query_weight, *query_bias, *gate, *gate_sum, *gate_squares, *proj_weight,
      *proj_bias, *residual;
  drop_rule drop;
  float epsilon;
  bool gelu;
  index width, spread, lane_rows;
};
struct gate_slopes {
  float* x;
  bool x_adds;
  float* f;
  bool f_adds;
  float *h, *scale, *bias, *query_weight, *query_bias, *gate, *proj_weight, *proj_bias;  // sums over rows
};

/// One lane and head of an attention: rows of q, k, v start ld apart.
struct attention_head {
  float const *q, *k, *v;
  index ldq, ldk, ldv, width, queries, keys;
  index prefix, causal, first;  // who sees whom: ouro::visibility
  float scale;
  drop_rule drop;
  index flat;   // the number of its first row among all rows
  bool rounds;  // products in bf16
};
struct attention_slopes {
  float* q;
  bool q_adds;
  float *k, *v;         // null: not wanted; they are added to
  index ldq, ldk, ldv;  // from a row to the next
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
  void (*column_sums)(double* sum, float const* x, index stride, index rows, index n);  // sum_c += Σ_r x_rc
  void (*column_squares)(double* sum, float const* x, index stride, float const* mean, index rows, index n);
  float (*dot)(float const* a, float const* b, index n);
  void (*layer_norm)(float* y, float* mean, float* rstd, float const* x, float const* w, float const* b, float eps,
                     index rows, index width);
  void (*layer_norm_gradient)(float* dx, float* dw, float* db, float const* x, float const* mean, float const* rstd,
                              float const* w, float const* dy, index rows, index width, bool add);
  float (*exp_shifted)(float* x, float factor, float shift, index n);  // x = exp(factor·x − shift); returns Σ
  float (*maximum)(float const* x, index n);
  void (*dropout)(float* y, float const* before, float const* x, drop_rule const& rule, std::uint64_t first,
                  index n);  // of elements first, first + 1, …
  void (*row_products)(float* c, index ldc, float const* a, index lda, float const* w, index ldw, index m, index n,
                       index k, float factor, bool add);  // c (m,n) (+)= factor · a wᵀ
  void (*narrow_row_products)(float* c, index ldc, float const* a, index lda, std::uint16_t const* w, index ldw,
                              index m, index n, index k, float factor, bool add);   // the same for w in bf16
  index (*attention_scratch)(index keys, index width, bool gradient, bool rounds);  // floats
  void (*attention)(attention_head const& h, float* y, index ldy, float* lse, float* scratch);
  void (*attention_gradient)(attention_head const& h, attention_slopes const& to, float const* lse, float const* dy,
                             index wide, float* scratch);  // dy has rows `wide` apart
  void (*gate)(gate_rows const& g, float* y, float* folded, float* stats, float* scratch, index first,
               index rows);  // scratch: D; folded: may be null
  void (*gate_gradient)(gate_rows const& g, gate_slopes const& to, float const* stats, float const* dy,
                        float const* dfolded, float* scratch, index first,
                        index rows);  // scratch: 5 D + 4 eD; dfolded: may be null
  void (*adamw)(float* p, float* m, float* v, float const* g, adamw_numbers const& s, index n);
};

table const& generic();
table const& avx2();
table const& avx512();
/// The best table this machine can run.
table const& best();

}  // namespace ouro::cpu_kernels
