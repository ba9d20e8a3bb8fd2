// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products by cuBLASLt, or by cuBLAS where it has no algorithm for them. Columns are contiguous here.
#pragma once

#include "cublas.hpp"

namespace ouro::cuda_kernels {

/// A factor of a product, or a batch of them: as it is stored (CUBLAS_OP_N), or transposed (CUBLAS_OP_T).
struct factor {
  void const* data;
  cublasOperation_t how;
  index leading;  // from a column to the next
  index step;     // from a matrix of a batch to the next; 0 where they are one
};

struct product_types {
  cudaDataType factors;
  cudaDataType result;
  cublasComputeType_t sums;
};

/// c (m,n) = alpha · a (m,k) b (k,n), added to what is there or not.
struct library_product {
  index m;
  index n;
  index k;
  index batches;
  factor a;
  factor b;
  void* c;
  index leading;  // of c
  index step;
  product_types types;
  double alpha;
  bool accumulate;
  void const* bias = nullptr;  // (m), added to every column: of the result's type, at a multiple of 16 bytes
};

/// Computes it and returns true; false where neither library takes the bias with it, and nothing has happened.
bool multiply(library_product const& p);

}  // namespace ouro::cuda_kernels
