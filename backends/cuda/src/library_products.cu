// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
#include "library_products.hpp"

#include <map>
#include <mutex>

namespace ouro::cuda_kernels {
namespace {

/// alpha and what was there before is multiplied with, in the type that sums are scaled in.
class scalars {
 public:
  scalars(bool in_f64, double alpha, bool accumulate)
      : in_f64_(in_f64),
        f64_{alpha, accumulate ? 1.0 : 0.0},
        f32_{static_cast<float>(f64_[0]), static_cast<float>(f64_[1])} {}
  [[nodiscard]] void const* alpha() const { return at(0); }
  [[nodiscard]] void const* beta() const { return at(1); }

 private:
  [[nodiscard]] void const* at(int i) const {
    if (in_f64_) return &f64_[i];
    return &f32_[i];
  }

  bool in_f64_;
  double f64_[2];
  float f32_[2];
};

/// The largest power of two that divides an address, 256 at most.
std::uint32_t alignment(void const* p) {
  auto const address = reinterpret_cast<std::uintptr_t>(p) | 256U;
  return static_cast<std::uint32_t>(address & (~address + 1U));
}

/// All that decides how a product is computed.
auto kind_of(library_product const& p) {
  auto of = [](factor const& f) { return std::tuple(f.how, f.leading, f.step, alignment(f.data)); };
  return std::tuple(p.m, p.n, p.k, p.batches, of(p.a), of(p.b), p.leading, p.step, alignment(p.c), p.types.factors,
                    p.types.result, p.types.sums, p.accumulate, p.bias == nullptr ? 0U : alignment(p.bias));
}

/// A kind of product in the words of cuBLASLt, and what its heuristic says of it.
struct plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr;
  cublasLtMatrixLayout_t b = nullptr;
  cublasLtMatrixLayout_t c = nullptr;
  bool in_f64 = false;
  bool accumulate = false;
  bool possible = false;
  bool tried = false;  // and the library took it
  cublasLtMatmulAlgo_t algorithm{};
};

/// One product of a plan, without padding.
struct planned_product {
  plan const* how;
  void const* a;
  void const* b;
  void* c;
  void const* bias;
  void* workspace;
  double alpha;
};

#if defined(__CUDACC__)
constexpr std::uint64_t workspace_bytes = 32U << 20U;
#else
constexpr std::uint64_t workspace_bytes = 1024;  // the tests run short of memory
#endif
constexpr index most_batches = 65535;  // more are refused for some shapes only when they are to be computed

/// `text` says what a status means. Errors: std::bad_alloc where memory is exhausted.
template <class Text>
void check_products(cublasStatus_t status, char const* what, Text const& text) {
  if (status == CUBLAS_STATUS_ALLOC_FAILED) throw std::bad_alloc();
  require(status == CUBLAS_STATUS_SUCCESS, errc::unavailable, "cuda", what, ": ", text(status));
}

/// Products by cuBLASLt. A plan is made once, without timing anything, and kept: a product has the same bits from run to
/// run. Calls are made one at a time; those of one strand share a workspace.
class cublaslt_products {
 public:
  cublaslt_products() {
    check(lt_.create(&handle_), "cublasLtCreate");
    check(lt_.create_preference(&preference_), "cublasLtMatmulPreferenceCreate");
    set(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
    // Parts of a sum are kept in f32 and added in their order, not in the result and its type.
    set(preference_, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  }

  /// Whether there is an algorithm; it is then on its way.
  bool multiply(library_product const& p) {
    std::lock_guard const lock(mutex_);
    auto const kind = kind_of(p);
    auto at = plans_.find(kind);
    if (at == plans_.end()) at = plans_.emplace(kind, planned(p)).first;
    plan& how = at->second;
    if (!how.possible) return false;
    void*& workspace = workspaces_[strand()];
    if (workspace == nullptr) workspace = cuda::allocate(workspace_bytes);
    planned_product const now{&how, p.a.data, p.b.data, p.c, p.bias, workspace, p.alpha};
    if (how.tried) {
      enqueue(
          [](void const* operands, cudaStream_t to) {
            auto const& products = loaded();
            products.check(products.computed(*static_cast<planned_product const*>(operands), to), "cublasLtMatmul");
          },
          &now, sizeof(now));
      return true;
    }
    launch_calls();
    auto const status = computed(now, stream());
    how.possible = status != CUBLAS_STATUS_NOT_SUPPORTED;  // which the heuristic did not know
    if (how.possible) check(status, "cublasLtMatmul");
    how.tried = true;
    return how.possible;
  }

  /// Never destroyed: products may be asked for until the program ends.
  static cublaslt_products& loaded() {
    static auto* p = [] {
      stream();  // without a device there is nothing to load
      return new cublaslt_products;
    }();
    return *p;
  }

 private:
  [[nodiscard]] cublasStatus_t computed(planned_product const& p, cudaStream_t to) const {
    plan const& how = *p.how;
    std::lock_guard const lock(describing_);
    if (p.bias != nullptr) set(how.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    scalars const by(how.in_f64, p.alpha, how.accumulate);
    return lt_.matmul(handle_, how.operation, by.alpha(), p.a, how.a, p.b, how.b, by.beta(), p.c, how.c, p.c, how.c,
                      &how.algorithm, p.workspace, workspace_bytes, to);
  }

  void check(cublasStatus_t status, char const* what) const { check_products(status, what, lt_.status_text); }
  template <class T>
  void set(cublasLtMatmulDesc_t of, cublasLtMatmulDescAttributes_t attribute, T const& value) const {
    check(lt_.set_operation(of, attribute, &value, sizeof(T)), "cublasLtMatmulDescSetAttribute");
  }
  template <class T>
  void set(cublasLtMatrixLayout_t of, cublasLtMatrixLayoutAttribute_t attribute, T const& value) const {
    check(lt_.set_layout(of, attribute, &value, sizeof(T)), "cublasLtMatrixLayoutSetAttribute");
  }
  template <class T>
  void set(cublasLtMatmulPreference_t of, cublasLtMatmulPreferenceAttributes_t attribute, T const& value) const {
    check(lt_.set_preference(of, attribute, &value, sizeof(T)), "cublasLtMatmulPreferenceSetAttribute");
  }

  [[nodiscard]] cublasLtMatrixLayout_t layout(cudaDataType type, index rows, index columns, index leading,
                                              index batches, index step) const {
    cublasLtMatrixLayout_t made = nullptr;
    check(
        lt_.create_layout(&made, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), leading),
        "cublasLtMatrixLayoutCreate");
    set(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(batches));
    set(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, step);
    return made;
  }
  [[nodiscard]] cublasLtMatrixLayout_t layout(cudaDataType type, factor const& f, index rows, index columns,
                                              index batches) const {
    bool const turned = f.how == CUBLAS_OP_T;
    return layout(type, turned ? columns : rows, turned ? rows : columns, f.leading, batches, f.step);
  }

  [[nodiscard]] plan planned(library_product const& p) const {
    plan made;
    if (p.batches > most_batches) return made;
    check(lt_.create_operation(&made.operation, p.types.sums,
                               p.types.sums == CUBLAS_COMPUTE_64F ? CUDA_R_64F : CUDA_R_32F),
          "cublasLtMatmulDescCreate");
    set(made.operation, CUBLASLT_MATMUL_DESC_TRANSA, static_cast<std::int32_t>(p.a.how));
    set(made.operation, CUBLASLT_MATMUL_DESC_TRANSB, static_cast<std::int32_t>(p.b.how));
    if (p.bias != nullptr) {
      set(made.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<std::uint32_t>(CUBLASLT_EPILOGUE_BIAS));
      set(made.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);  // the heuristic looks at its alignment
    }
    made.a = layout(p.types.factors, p.a, p.m, p.k, p.batches);
    made.b = layout(p.types.factors, p.b, p.k, p.n, p.batches);
    made.c = layout(p.types.result, p.m, p.n, p.leading, p.batches, p.step);
    set(preference_, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.a.data));
    set(preference_, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.b.data));
    set(preference_, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.c));
    set(preference_, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.c));
    cublasLtMatmulHeuristicResult_t first{};
    int count = 0;
    auto const status =
        lt_.choose(handle_, made.operation, made.a, made.b, made.c, made.c, preference_, 1, &first, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "cublasLtMatmulAlgoGetHeuristic");
    made.in_f64 = p.types.sums == CUBLAS_COMPUTE_64F;
    made.accumulate = p.accumulate;
    made.possible = count > 0 && first.state == CUBLAS_STATUS_SUCCESS;
    made.algorithm = first.algo;
    return made;
  }

  cublaslt_functions lt_;
  std::mutex mutex_;
  mutable std::mutex describing_;  // held while a plan has this product's bias; nothing else is asked for under it
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  void* workspaces_[strands] = {};
  std::map<decltype(kind_of(std::declval<library_product const&>())), plan> plans_;
};

/// Products by cuBLAS, one call at a time.
class cublas_products {
 public:
  cublas_products() { check(cublas_.create(&handle_), "cublasCreate"); }
  void multiply(library_product const& p) {
    std::lock_guard const lock(mutex_);
    scalars const by(p.types.sums == CUBLAS_COMPUTE_64F, p.alpha, p.accumulate);
    launch_calls();  // it wants memory of its own, which graphs do not have
    check(cublas_.set_stream(handle_, stream()), "cublasSetStream");
    check(cublas_.gemm(handle_, p.a.how, p.b.how, p.m, p.n, p.k, by.alpha(), p.a.data, p.types.factors, p.a.leading,
                       p.a.step, p.b.data, p.types.factors, p.b.leading, p.b.step, by.beta(), p.c, p.types.result,
                       p.leading, p.step, p.batches, p.types.sums, CUBLAS_GEMM_DEFAULT),
          "cublasGemmStridedBatchedEx");
  }

 private:
  void check(cublasStatus_t status, char const* what) const { check_products(status, what, cublas_.status_text); }

  cublas_functions cublas_;
  std::mutex mutex_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace

bool multiply(library_product const& p) {
  if (cublaslt_products::loaded().multiply(p)) return true;
  if (p.bias != nullptr) return false;
  static auto* others = new cublas_products;  // never destroyed either
  others->multiply(p);
  return true;
}

}  // namespace ouro::cuda_kernels
