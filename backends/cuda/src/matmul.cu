// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Matrix products by cuBLAS, in full f32 and f64 unless cuda_products() says otherwise. Rows are contiguous here and
// columns there, so c = a b is asked for as cᵀ = bᵀ aᵀ. What cuBLAS cannot express is packed first. The factors of a large
// product in bf16 are rounded by a pass of their own, after which the tensor cores are twice as fast as in tf32.
#include <atomic>
#include <mutex>
#include <optional>

#include "cublas.hpp"
#include "f32_copies.hpp"
#include "row_products.hpp"

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

template <class View>
View transposed(View const& v) {
  return v.transpose(v.dims.rank() - 2, v.dims.rank() - 1);
}

/// One operand in the words of cuBLAS.
struct factor {
  void const* data;
  cublasOperation_t how;
  index leading;
  index step;  // from a matrix of a batch to the next; 0 where they are one

  factor(const_view const& v, operand lies)
      : data(v.data), how(lies.how), leading(lies.leading), step(v.dims.rank() == 3 ? v.steps[0] : 0) {}
};

/// The same in bf16: as it is, or in memory of its own, rows (or columns) as they lie, each at a multiple of 16 bytes.
class narrow_factor : public factor {
 public:
  narrow_factor(const_view const& v, operand lies) : factor(v, lies) {
    if (v.type != dtype::bf16) round(lying(v, lies));
  }

 private:
  /// A batch of matrices with contiguous rows; matrices that are one are one.
  static const_view lying(const_view const& v, operand lies) {
    const_view m = lies.how == CUBLAS_OP_T ? transposed(v) : v;
    if (m.dims.rank() == 2) return {m.data, m.type, {1, m.dims[0], m.dims[1]}, {0, m.steps[0], m.steps[1]}};
    return m.steps[0] == 0 ? m.slice(0, 0, 1) : m;
  }
  void round(const_view const& m) {
    leading = divide_up(m.dims[2], 8) * 8;
    step = m.dims[0] > 1 ? m.dims[1] * leading : 0;
    memory_.emplace(m.dims[0] * m.dims[1] * leading);
    data = memory_->data();
    cuda::copy({memory_->data(), dtype::bf16, m.dims, {m.dims[1] * leading, leading, 1}}, m, false);
  }

  std::optional<device_array<bf16>> memory_;
};

/// Multiplications from which rounding by a pass pays.
#if defined(__CUDACC__)
constexpr double large_product = 1 << 30U;
#else
constexpr double large_product = 1 << 12U;  // the tests' are small
#endif

double multiplications(const_view const& a, const_view const& b) {
  return static_cast<double>(a.size()) * static_cast<double>(b.dims[-1]);
}

std::atomic<dtype> inner{dtype::f32};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::matmul(destination c, const_view a, const_view b, double alpha) {
  if (c.out.size() == 0) return;
  if (a.dims[-1] == 0) {  // a sum of nothing
    if (!c.accumulate) fill(c.out, 0.0);
    return;
  }
  if (has_few_rows(c.out, a, b)) return row_products(c, a, b, alpha, {});
  auto const asked = cuda_products();
  bool const large = multiplications(a, b) >= large_product;
  bool const both = a.type == dtype::bf16 && b.type == dtype::bf16;
  bool const narrow =
      both || c.out.type == dtype::bf16 || (asked == product_precision::bf16 && large && c.out.type == dtype::f32);
  if (!narrow && (a.type == dtype::bf16 || b.type == dtype::bf16))
    return matmul(c, f32_values(a).get(), f32_values(b).get(), alpha);
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
  index const m = a.dims[-2];
  index const n = b.dims[-1];
  index const k = a.dims[-1];
  index const batches = a.dims.rank() == 3 ? a.dims[0] : 1;
  auto multiply = [&]<class T>(std::type_identity<T>, factor const& l, factor const& r, cudaDataType factors,
                               cudaDataType result, cublasComputeType_t computed) {
    auto const scale = static_cast<T>(alpha);
    T const beta = c.accumulate ? T(1) : T(0);
    auto& products = cublas();
    std::lock_guard const lock(products.mutex);
    products.check(products.gemm(products.handle, r.how, l.how, n, m, k, &scale, r.data, factors, r.leading, r.step,
                                 l.data, factors, l.leading, l.step, &beta, c.out.data, result, z->leading,
                                 batches > 1 ? c.out.steps[0] : 0, batches, computed, CUBLAS_GEMM_DEFAULT),
                   "matmul");
  };
  if (a.type == dtype::f64) {
    std::type_identity<double> const in_f64;
    return multiply(in_f64, factor(*left, x), factor(*right, y), CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F);
  }
  require(is_real(a.type), errc::shape, "matmul", "needs real values, got ", name_of(a.type));
  std::type_identity<float> const in_f32;
  if (narrow)
    return multiply(in_f32, narrow_factor(*left, x), narrow_factor(*right, y), CUDA_R_16BF,
                    c.out.type == dtype::bf16 ? CUDA_R_16BF : CUDA_R_32F, CUBLAS_COMPUTE_32F);
  multiply(in_f32, factor(*left, x), factor(*right, y), CUDA_R_32F, CUDA_R_32F,
           asked == product_precision::f32 ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_32F_FAST_TF32);
}

void cuda::affine(view c, const_view a, const_view b, const_view bias) {
  if (c.size() == 0) return;
  if (has_few_rows(c, a, b)) return row_products(c, a, b, 1.0, bias);
  copy(c, bias.expand(c.dims), false);
  matmul({c, true}, a, b, 1.0);
}

dtype cuda::inner_values() { return inner; }
void set_cuda_inner_values(dtype type) {
  require(type == dtype::f32 || type == dtype::bf16, errc::argument, "set_cuda_inner_values", "needs f32 or bf16, got ",
          name_of(type));
  inner = type;
}
product_precision cuda_products() { return cuda_kernels::precision; }
void set_cuda_products(product_precision p) { cuda_kernels::precision = p; }

}  // namespace ouro
