// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Matrix products by cuBLAS, in full f32 and f64 unless cuda_products() says otherwise. Rows are contiguous here and
// columns there, so c = a b is asked for as cᵀ = bᵀ aᵀ. What cuBLAS cannot express is packed first.
#include <atomic>
#include <mutex>
#include <optional>

#include "cublas.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// One handle for the one stream; its calls are made one at a time.
struct products : cublas_functions {
  std::mutex mutex;
  cublasHandle_t handle = nullptr;
  products() {
    check(create(&handle), "cublasCreate");
    check(set_stream(handle, stream()), "cublasSetStream");
  }
  void check(cublasStatus_t status, char const* what) const {
    require(status == CUBLAS_STATUS_SUCCESS, errc::unavailable, "cuda", what, ": ", status_text(status));
  }
};
products& cublas() {
  static auto* p = new products;
  return *p;
}

std::atomic<product_precision> precision{product_precision::f32};

cublasComputeType_t computed_in(dtype type) {
  if (type == dtype::f64) return CUBLAS_COMPUTE_64F;
  switch (precision.load()) {
    case product_precision::tf32: return CUBLAS_COMPUTE_32F_FAST_TF32;
    case product_precision::bf16: return CUBLAS_COMPUTE_32F_FAST_16BF;
    default: return CUBLAS_COMPUTE_32F;
  }
}

/// A matrix as row-major products take it: with contiguous rows, or transposed.
struct operand {
  cublasOperation_t how;
  index leading;
};
std::optional<operand> fits(shape const& dims, shape const& steps) {
  index const rows = dims[-2];
  index const columns = dims[-1];
  auto at_least = [](index x, index least) { return x > least ? x : least; };
  if ((steps[-1] == 1 || columns == 1) && (steps[-2] >= columns || rows == 1))
    return operand{CUBLAS_OP_N, rows == 1 ? columns : at_least(steps[-2], columns)};
  if ((steps[-2] == 1 || rows == 1) && (steps[-1] >= rows || columns == 1))
    return operand{CUBLAS_OP_T, columns == 1 ? rows : at_least(steps[-1], rows)};
  return std::nullopt;
}

/// A view that cuBLAS can read: itself, or a dense copy.
class readable {
 public:
  explicit readable(const_view const& v) : view_(v) {
    if (fits(v.dims, v.steps)) return;
    dense_.emplace(v.size() * size_of(v.type));
    view const packed(dense_->data(), v.type, v.dims);
    cuda::copy(packed, v, false);
    view_ = packed;
  }
  [[nodiscard]] const_view const& operator*() const { return view_; }

 private:
  const_view view_;
  std::optional<device_array<char>> dense_;
};

view transposed(view const& v) { return v.transpose(v.dims.rank() - 2, v.dims.rank() - 1); }
const_view transposed(const_view const& v) { return v.transpose(v.dims.rank() - 2, v.dims.rank() - 1); }

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::matmul(destination c, const_view a, const_view b, double alpha) {
  if (c.out.size() == 0) return;
  if (a.dims[-1] == 0) {  // a sum of nothing
    if (!c.accumulate) fill(c.out, 0.0);
    return;
  }
  auto const z = fits(c.out.dims, c.out.steps);
  if (!z) {
    device_array<char> const dense(c.out.size() * size_of(c.out.type));
    view const packed(dense.data(), c.out.type, c.out.dims);
    matmul(packed, a, b, alpha);
    return copy(c.out, packed, c.accumulate);
  }
  if (z->how == CUBLAS_OP_T) return matmul({transposed(c.out), c.accumulate}, transposed(b), transposed(a), alpha);
  readable const left(a);
  readable const right(b);
  auto const x = *fits((*left).dims, (*left).steps);
  auto const y = *fits((*right).dims, (*right).steps);
  bool const batched = a.dims.rank() == 3;
  auto step = [batched](auto const& v) { return batched ? v.steps[0] : 0; };
  with_real(a.type, "matmul", [&]<class T>(std::type_identity<T>) {
    auto const factor = static_cast<T>(alpha);
    T const beta = c.accumulate ? T(1) : T(0);
    auto& products = cublas();
    std::lock_guard const lock(products.mutex);
    auto const stored = a.type == dtype::f64 ? CUDA_R_64F : CUDA_R_32F;
    products.check(
        products.gemm(products.handle, y.how, x.how, b.dims[-1], a.dims[-2], a.dims[-1], &factor, (*right).data, stored,
                      y.leading, step(*right), (*left).data, stored, x.leading, step(*left), &beta, c.out.data, stored,
                      z->leading, step(c.out), batched ? a.dims[0] : 1, computed_in(a.type), CUBLAS_GEMM_DEFAULT),
        "matmul");
  });
}

product_precision cuda_products() { return cuda_kernels::precision; }
void set_cuda_products(product_precision p) { cuda_kernels::precision = p; }

}  // namespace ouro
