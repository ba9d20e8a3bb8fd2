// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Matrix products by cuBLASLt, in full f32 and f64 unless cuda_products() says otherwise. Rows are contiguous here and
// columns there, so c = a b is asked for as cᵀ = bᵀ aᵀ. What it cannot express is packed first. The factors of a large
// product in bf16 are rounded by a pass of their own, after which the tensor cores are twice as fast as in tf32.
#include <atomic>
#include <optional>

#include "f32_copies.hpp"
#include "library_products.hpp"
#include "row_products.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

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

/// A view that cuBLASLt can read: itself, or a dense copy.
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

factor factor_of(const_view const& v, operand lies) {
  bool const several = v.dims.rank() == 3 && v.dims[0] > 1;
  return {v.data, lies.how, lies.leading, several ? v.steps[0] : 0};
}

/// The same in bf16: as it is, or in memory of its own, rows (or columns) as they lie, each at a multiple of 16 bytes.
class narrow_factor : public factor {
 public:
  narrow_factor(const_view const& v, operand lies) : factor(factor_of(v, lies)) {
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

/// A bias as a product adds it: in the type of the result, at a multiple of 16 bytes; as it is, or a copy.
class added_bias {
 public:
  added_bias(const_view const& bias, dtype type)
      : bias_(bias.data), copy_(serves(bias, type) ? 0 : bias.size() * size_of(type)) {
    if (copy_.data() != nullptr) cuda::copy(view(copy_.data(), type, bias.dims), bias, false);
  }
  [[nodiscard]] void const* data() const { return copy_.data() != nullptr ? copy_.data() : bias_; }

 private:
  static bool serves(const_view const& bias, dtype type) {
    bool const aligned = reinterpret_cast<std::uintptr_t>(bias.data) % 16 == 0;
    return bias.empty() || (bias.type == type && bias.contiguous() && aligned);
  }

  void const* bias_;
  device_array<char> copy_;
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

/// c = bias for every row, to which a product is to be added; without a bias c as it is.
destination started(destination const& c, const_view const& bias) {
  if (bias.empty()) return c;
  cuda::copy(c.out, bias.expand(c.out.dims), false);
  return {c.out, true};
}

product_types types_of(dtype factors, dtype result, bool narrow, product_precision asked) {
  if (factors == dtype::f64) return {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F};
  if (narrow) return {CUDA_R_16BF, result == dtype::bf16 ? CUDA_R_16BF : CUDA_R_32F, CUBLAS_COMPUTE_32F};
  bool const exact = asked == product_precision::f32;
  return {CUDA_R_32F, CUDA_R_32F, exact ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_32F_FAST_TF32};
}

/// c = p, or c += p, by a library, with the bias or after it; c has contiguous rows.
void multiply_with(const_view const& bias, destination const& c, library_product p) {
  added_bias const added(bias, c.out.type);
  p.bias = added.data();
  if (multiply(p)) return;
  p.bias = nullptr;
  p.accumulate = started(c, bias).accumulate;
  multiply(p);
}

/// c = alpha · a b + bias, or c += alpha · a b; the bias (N) may be absent.
void product(destination const& c, const_view const& a, const_view const& b, double alpha, const_view const& bias) {
  if (c.out.size() == 0) return;
  if (a.dims[-1] == 0) {  // a sum of nothing
    if (!started(c, bias).accumulate) cuda::fill(c.out, 0.0);
    return;
  }
  if (has_few_rows(c.out, a, b)) return row_products(c, a, b, alpha, f32_values(bias).get());
  auto const asked = cuda_products();
  bool const large = multiplications(a, b) >= large_product;
  bool const both = a.type == dtype::bf16 && b.type == dtype::bf16;
  bool const narrow =
      both || c.out.type == dtype::bf16 || (asked == product_precision::bf16 && large && c.out.type == dtype::f32);
  if (!narrow && (a.type == dtype::bf16 || b.type == dtype::bf16))
    return product(c, f32_values(a).get(), f32_values(b).get(), alpha, bias);
  auto const z = fits(c.out.dims, c.out.steps);
  if (!z) {
    device_array<char> const dense(c.out.size() * size_of(c.out.type));
    view const packed(dense.data(), c.out.type, c.out.dims);
    product(packed, a, b, alpha, bias);
    return cuda::copy(c.out, packed, c.accumulate);
  }
  if (z->how == CUBLAS_OP_T) {  // where the bias would run along rows
    destination const to = started(c, bias);
    return product({transposed(to.out), to.accumulate}, transposed(b), transposed(a), alpha, {});
  }
  require(is_real(a.type), errc::shape, "matmul", "needs real values, got ", name_of(a.type));
  readable const left(a);
  readable const right(b);
  auto const x = *fits((*left).dims, (*left).steps);
  auto const y = *fits((*right).dims, (*right).steps);
  factor const to = factor_of(c.out, *z);
  auto multiply_factors = [&](factor const& l, factor const& r) {
    multiply_with(bias, c,
                  {.m = b.dims[-1],
                   .n = a.dims[-2],
                   .k = a.dims[-1],
                   .batches = a.dims.rank() == 3 ? a.dims[0] : 1,
                   .a = r,
                   .b = l,
                   .c = c.out.data,
                   .leading = to.leading,
                   .step = to.step,
                   .types = types_of(a.type, c.out.type, narrow, asked),
                   .alpha = alpha,
                   .accumulate = c.accumulate});
  };
  if (narrow) return multiply_factors(narrow_factor(*left, x), narrow_factor(*right, y));
  multiply_factors(factor_of(*left, x), factor_of(*right, y));
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::matmul(destination c, const_view a, const_view b, double alpha) { product(c, a, b, alpha, {}); }
void cuda::affine(view c, const_view a, const_view b, const_view bias) { product(c, a, b, 1.0, bias); }

dtype cuda::inner_values() { return inner; }
void set_cuda_inner_values(dtype type) {
  require(type == dtype::f32 || type == dtype::bf16, errc::argument, "set_cuda_inner_values", "needs f32 or bf16, got ",
          name_of(type));
  inner = type;
}
product_precision cuda_products() { return cuda_kernels::precision; }
product_precision cuda::products() { return cuda_products(); }
void set_cuda_products(product_precision p) { cuda_kernels::precision = p; }

}  // namespace ouro
