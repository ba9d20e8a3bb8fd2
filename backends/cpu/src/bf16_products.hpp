// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products of f32 matrices whose factors are rounded to bf16: twice as many multiplications an instruction.
#pragma once

#include <cstdint>

namespace ouro::cpu_kernels {

/// A matrix of f32 anywhere in memory.
struct matrix {
  float const* data;
  std::int64_t row_step;
  std::int64_t column_step;
};

/// The floats of working memory that a product (m,k)·(k,n) needs.
std::int64_t bf16_product_room(std::int64_t m, std::int64_t n, std::int64_t k);

/// c (m,n; row stride ldc) = factor · a b, or with `add` c += factor · a b. a and b are rounded to nearest even, sums are
/// f32. Only for a processor with AVX-512 BF16.
void bf16_product(float* c, std::int64_t ldc, matrix a, matrix b, std::int64_t m, std::int64_t n, std::int64_t k,
                  float factor, bool add, float* room);

}  // namespace ouro::cpu_kernels
