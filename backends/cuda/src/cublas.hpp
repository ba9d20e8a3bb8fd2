// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The functions of cuBLASLt and cuBLAS, each loaded when the first product asks for it: a program that is linked with
// them holds 160 MB more from its start, with a device or without.
#pragma once

#include "device.hpp"

#if defined(__CUDACC__)
#include <cublasLt.h>
#include <dlfcn.h>
#endif

namespace ouro::cuda_kernels {

#if defined(__CUDACC__)

/// A shared library for the rest of the program's life.
class library {
 public:
  /// By its name, as the system finds it, else by the path it had when this was built. Errors (unavailable): neither is
  /// there.
  library(char const* name, char const* path) : handle_(::dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) handle_ = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
    require(handle_ != nullptr, errc::unavailable, "cuda", "cannot load ", name);
  }
  template <class F>
  [[nodiscard]] F find(char const* name) const {
    auto const function = reinterpret_cast<F>(::dlsym(handle_, name));
    require(function != nullptr, errc::unavailable, "cuda", "there is no ", name);
    return function;
  }

 private:
  void* handle_;
};

#define OURO_TEXT2(x) #x
#define OURO_TEXT(x) OURO_TEXT2(x)
#define OURO_LIBRARY(name, path) \
  library found { name ".so." OURO_TEXT(CUBLAS_VER_MAJOR), path }
#define OURO_FUNCTION(member, name) decltype(&::name) member = found.find<decltype(&::name)>(#name)

#else

#define OURO_LIBRARY(name, path)
#define OURO_FUNCTION(member, name) decltype(&::name) member = &::name

#endif

struct cublaslt_functions {
  OURO_LIBRARY("libcublasLt", OURO_CUBLASLT);
  OURO_FUNCTION(create, cublasLtCreate);
  OURO_FUNCTION(status_text, cublasLtGetStatusString);
  OURO_FUNCTION(create_operation, cublasLtMatmulDescCreate);
  OURO_FUNCTION(set_operation, cublasLtMatmulDescSetAttribute);
  OURO_FUNCTION(create_layout, cublasLtMatrixLayoutCreate);
  OURO_FUNCTION(set_layout, cublasLtMatrixLayoutSetAttribute);
  OURO_FUNCTION(create_preference, cublasLtMatmulPreferenceCreate);
  OURO_FUNCTION(set_preference, cublasLtMatmulPreferenceSetAttribute);
  OURO_FUNCTION(choose, cublasLtMatmulAlgoGetHeuristic);
  OURO_FUNCTION(matmul, cublasLtMatmul);
};

struct cublas_functions {
  OURO_LIBRARY("libcublas", OURO_CUBLAS);
  OURO_FUNCTION(create, cublasCreate_v2);
  OURO_FUNCTION(set_stream, cublasSetStream_v2);
  OURO_FUNCTION(status_text, cublasGetStatusString);
  OURO_FUNCTION(gemm, cublasGemmStridedBatchedEx_64);
};

#undef OURO_TEXT
#undef OURO_TEXT2
#undef OURO_LIBRARY
#undef OURO_FUNCTION

}  // namespace ouro::cuda_kernels
