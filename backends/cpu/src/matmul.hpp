// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// One product on one thread, as attention uses it.
#pragma once

#include <cstdint>

namespace ouro::cpu_products {

/// c (m,n; row stride ldc) = alpha · a b + beta · c; a (m,k) or transposed, b (k,n) or transposed, row-major.
void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, float const* a,
          std::int64_t lda, float const* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc);

}  // namespace ouro::cpu_products
