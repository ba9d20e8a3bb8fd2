// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Matrix products by oneDNN (f32; a few rows and bf16 by kernels of our own) and Eigen (f64, and f32 where oneDNN is
// absent), each thread on rows or columns of its own.
#include <algorithm>
#include <atomic>
#include <new>

#include <ouro/backend/cpu.hpp>
#include <ouro/tensor/tensor.hpp>

#include "bf16_products.hpp"
#include "kernels.hpp"
#include "scratch.hpp"
#include "signals.hpp"
#include "threads.hpp"

#if defined(OURO_WITH_DNNL)
#include <dnnl.h>
#endif
#if defined(OURO_WITH_OPENMP)
#include <omp.h>
#endif
#if defined(OURO_WITH_EIGEN)
#define EIGEN_DONT_PARALLELIZE  // the threads are ours
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

namespace ouro {
namespace cpu_matrices {
namespace {

#if defined(OURO_WITH_EIGEN)
template <class T>
void by_eigen(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, T const* a, std::int64_t lda,
              T const* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
  using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using map = Eigen::Map<matrix const, 0, Eigen::OuterStride<>>;
  Eigen::Map<matrix, 0, Eigen::OuterStride<>> out(c, m, n, Eigen::OuterStride<>(ldc));
  map const x(a, ta ? k : m, ta ? m : k, Eigen::OuterStride<>(lda));
  map const y(b, tb ? n : k, tb ? k : n, Eigen::OuterStride<>(ldb));
  if (beta == T(0)) out.setZero();
  if (ta && tb) out.noalias() += alpha * (x.transpose() * y.transpose());
  else if (ta) out.noalias() += alpha * (x.transpose() * y);
  else if (tb) out.noalias() += alpha * (x * y.transpose());
  else out.noalias() += alpha * (x * y);
}
#endif

template <class T>
void plain(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, T const* a, std::int64_t lda,
           T const* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
#if defined(OURO_WITH_EIGEN)
  by_eigen(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
#else
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      T sum = 0;
      for (std::int64_t l = 0; l < k; ++l)
        sum += (ta ? a[l * lda + i] : a[i * lda + l]) * (tb ? b[j * ldb + l] : b[l * ldb + j]);
      c[i * ldc + j] = alpha * sum + (beta == T(0) ? T(0) : c[i * ldc + j]);
    }
#endif
}

/// c (m,n; row stride ldc) = alpha · a b + beta · c on this thread; a (m,k) or transposed, b (k,n) or transposed.
void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, float const* a,
          std::int64_t lda, float const* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
#if defined(OURO_WITH_DNNL)
  cpu_threading::signals_blocked const quiet;
#if defined(OURO_WITH_OPENMP)
  int const before = omp_get_max_threads();
  if (before != 1) omp_set_num_threads(1);
#endif
  auto const status = dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
#if defined(OURO_WITH_OPENMP)
  if (before != 1) omp_set_num_threads(before);
#endif
  if (status != dnnl_success) throw std::bad_alloc();  // its operands are what it takes
#else
  plain(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
#endif
}

std::atomic<product_precision> precision{product_precision::f32};

/// A matrix as row-major products take it: untransposed or transposed, with a leading dimension.
struct operand {
  bool transposed;
  std::int64_t leading;
};

bool fits(shape const& dims, shape const& steps, operand& out) {
  std::int64_t const rows = dims[-2];
  std::int64_t const columns = dims[-1];
  if ((steps[-1] == 1 || columns == 1) && (steps[-2] >= columns || rows == 1)) {
    out = {false, std::max<std::int64_t>({steps[-2], columns, 1})};
    return true;
  }
  if ((steps[-2] == 1 || rows == 1) && (steps[-1] >= rows || columns == 1)) {
    out = {true, std::max<std::int64_t>({steps[-1], rows, 1})};
    return true;
  }
  return false;
}

constexpr std::int64_t few = 4;  // rows of a product that only reads its other matrix

template <class T>
void product([[maybe_unused]] bool rounds, bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, T alpha,
             T const* a, std::int64_t lda, T const* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
  if constexpr (sizeof(T) == sizeof(float)) {
#if defined(OURO_X86)
    if (rounds) {
      scratch room(cpu_kernels::bf16_product_room(m, n, k));
      return cpu_kernels::bf16_product(c, ldc, ta ? cpu_kernels::matrix{a, 1, lda} : cpu_kernels::matrix{a, lda, 1},
                                       tb ? cpu_kernels::matrix{b, 1, ldb} : cpu_kernels::matrix{b, ldb, 1}, m, n, k,
                                       alpha, beta != 0.0F, room.data());
    }
#endif
    if (m <= few && !ta && tb)
      return cpu_kernels::best().row_products(c, ldc, a, lda, b, ldb, m, n, k, alpha, beta != 0.0F);
    gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  } else {
    plain(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
}

std::int64_t row_grain(std::int64_t m, std::int64_t k) {
  return std::max<std::int64_t>(16, 32768 / std::max<std::int64_t>(1, m * k));
}

/// A few rows times a matrix of weights in bf16, which are read as they are.
void narrow_rows(destination const& c, const_view const& a, const_view const& b, operand const& x, operand const& y,
                 operand const& z, double alpha) {
  std::int64_t const m = a.dims[-2];
  std::int64_t const k = a.dims[-1];
  cpu_threading::parallel(b.dims[-1], row_grain(m, k), [&](std::int64_t begin, std::int64_t end) {
    cpu_kernels::best().narrow_row_products(c.out.as<float>() + begin, z.leading, a.as<float>(), x.leading,
                                            static_cast<std::uint16_t const*>(b.data) + begin * y.leading, y.leading, m,
                                            end - begin, k, static_cast<float>(alpha), c.accumulate);
  });
}

}  // namespace

}  // namespace cpu_matrices

void cpu::matmul(destination c, const_view a, const_view b, double alpha) {
  using cpu_matrices::operand;
  operand x{};
  operand y{};
  operand z{};
  if (c.out.size() == 0) return;
  bool const usable = a.size() > 0 && cpu_matrices::fits(a.dims, a.steps, x) &&
                      cpu_matrices::fits(b.dims, b.steps, y) && cpu_matrices::fits(c.out.dims, c.out.steps, z);
  if (b.type == dtype::bf16) {
    bool const rows = usable && a.dims.rank() == 2 && a.dims[-2] <= cpu_matrices::few && !x.transposed &&
                      y.transposed && !z.transposed;
    if (rows) return cpu_matrices::narrow_rows(c, a, b, x, y, z, alpha);
    scratch wide(b.size());
    view const same(wide.data(), dtype::f32, b.dims);
    copy(same, b, false);
    return matmul(c, a, same, alpha);
  }
  if (!usable) return reference::matmul(c, a, b, alpha);
  if (z.transposed) {  // cᵀ = bᵀ aᵀ
    auto const swapped = c.out.transpose(-2 + c.out.dims.rank(), -1 + c.out.dims.rank());
    auto const at = a.transpose(-2 + a.dims.rank(), -1 + a.dims.rank());
    auto const bt = b.transpose(-2 + b.dims.rank(), -1 + b.dims.rank());
    return matmul({swapped, c.accumulate}, bt, at, alpha);
  }
  bool const batched = a.dims.rank() == 3;
  std::int64_t const batches = batched ? a.dims[0] : 1;
  std::int64_t const m = a.dims[-2];
  std::int64_t const n = b.dims[-1];
  std::int64_t const k = a.dims[-1];
  with_real(a.type, "matmul", [&]<class T>(std::type_identity<T>) {
    T const beta = c.accumulate ? T(1) : T(0);
    bool const rounds = std::min({m, n, k}) >= 16 && cpu_products() == product_precision::bf16;
    // Each thread takes whole batches, else rows, else columns; small products stay on one.
    std::int64_t const work = std::max<std::int64_t>(1, n * k);
    bool const by_batch = batches > 1;
    bool const by_row = m >= n;
    std::int64_t const enough = 200000;  // multiplications that are worth a thread
    std::int64_t const parts = by_batch ? batches : by_row ? m : n;
    std::int64_t const grain = by_batch ? std::max<std::int64_t>(1, enough / (work * std::max<std::int64_t>(m, 1)))
                               : by_row ? std::max<std::int64_t>(8, enough / work)
                               : m <= cpu_matrices::few
                                   ? cpu_matrices::row_grain(m, k)
                                   : std::max<std::int64_t>(8, enough / std::max<std::int64_t>(1, m * k));
    cpu_threading::parallel(parts, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = by_batch ? begin : 0; i < (by_batch ? end : 1); ++i) {
        T const* pa = a.as<T>() + (batched ? i * a.steps[0] : 0);
        T const* pb = b.as<T>() + (batched ? i * b.steps[0] : 0);
        T* pc = c.out.as<T>() + (batched ? i * c.out.steps[0] : 0);
        std::int64_t rows = m;
        std::int64_t columns = n;
        if (!by_batch && by_row) {
          pa += begin * (x.transposed ? 1 : x.leading);
          pc += begin * z.leading;
          rows = end - begin;
        } else if (!by_batch) {
          pb += begin * (y.transposed ? y.leading : 1);
          pc += begin;
          columns = end - begin;
        }
        cpu_matrices::product<T>(rounds, x.transposed, y.transposed, rows, columns, k, static_cast<T>(alpha), pa,
                                 x.leading, pb, y.leading, beta, pc, z.leading);
      }
    });
  });
}

product_precision cpu_products() { return cpu_matrices::precision; }
product_precision cpu::products() { return cpu_products(); }
bool cpu_has_products(product_precision p) {
#if defined(OURO_X86)
  if (p == product_precision::bf16) return cpu_kernels::has_avx512() && __builtin_cpu_supports("avx512bf16");
#endif
  return p == product_precision::f32;
}
void set_cpu_products(product_precision p) {
  require(cpu_has_products(p), errc::unavailable, "set_cpu_products",
          p == product_precision::bf16 ? "this processor has no AVX-512 BF16" : "the cpu has no tf32");
  cpu_matrices::precision = p;
}

}  // namespace ouro
