// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The table of recurrence kernels that is filled once for each instruction set, as kernels.hpp is: each works on one
// lane and head, in scratch of the caller's.
#pragma once

#include <cstdint>

namespace ouro::cpu_scans {

using index = std::int64_t;

/// The columns of one lane and head: row t starts at `at + t · step`.
struct rows_in {
  float const* at;
  index step;
};
struct rows_out {
  float* at;  // null: not wanted
  index step;
  bool add;
};
struct state_out {
  float* at;  // null: not wanted
  bool add;
};

struct rwkv7_head {
  index rows, key, value;
  rows_in r, w, k, v, a, b;
  float const* state;  // (value,key)
};
struct rwkv7_slopes {
  rows_out r, w, k, v, a, b;
  state_out state;
};

struct ssd_head {
  index rows, key, value;
  rows_in x, step, b, c;
  double rate, skip;
  float const* state;  // (value,key)
};
struct ssd_slopes {
  rows_out x, step, b, c;
  double *rate, *skip;  // of this lane and head
  state_out state;
};

struct table {
  /// Floats of scratch, which must be zero at the start.
  index (*rwkv7_scratch)(index rows, index key, index value, bool gradient);
  void (*rwkv7)(rwkv7_head const& h, rows_out y, float* last, float* scratch);
  void (*rwkv7_gradient)(rwkv7_head const& h, rwkv7_slopes const& to, rows_in dy, float const* dlast, float* scratch);
  index (*ssd_scratch)(index rows, index key, index value, bool gradient);
  void (*ssd)(ssd_head const& h, rows_out y, float* last, float* scratch);
  void (*ssd_gradient)(ssd_head const& h, ssd_slopes const& to, rows_in dy, float const* dlast, float* scratch);
  /// y (+)= Σ_j weight_j ⊙ source_j over n columns; the weights are rows of n.
  void (*taps)(float* y, float const* const* source, float const* weight, index taps, index n);
  /// y (+)= Σ_t a_t ⊙ b_t over n columns.
  void (*row_products)(float* y, float const* a, index a_step, float const* b, index b_step, index rows, index n);
};

table const& generic();
table const& avx2();
table const& avx512();
/// The best table this machine can run.
table const& best();

}  // namespace ouro::cpu_scans
