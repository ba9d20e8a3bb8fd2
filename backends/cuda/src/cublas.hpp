// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The functions of cuBLAS, which is loaded when the first product asks for them: a program that is linked with it holds
// 160 MB more from its start, with a device or without.
#pragma once

#include "device.hpp"

#if defined(__CUDACC__)
#include <dlfcn.h>
#endif

namespace ouro::cuda_kernels {

#if defined(__CUDACC__)

#define OURO_TEXT2(x) #x
#define OURO_TEXT(x) OURO_TEXT2(x)

/// A shared library for the rest of the program's life.
class library {
 public:
  /// By its name, as the system finds it, else by the path it had when this was built. Errors (unavailable): neither is there.
  library(char const* name, char const* path) : handle_(::dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) handle_ = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
    require(handle_ != nullptr, errc::unavailable, "cuda", "cannot load ", name);
  }
  template <class F>
  void find(F& function, char const* name) const {
    function = reinterpret_cast<F>(::dlsym(handle_, name));
    require(function != nullptr, errc::unavailable, "cuda", "there is no ", name);
  }

 private:
  void* handle_;
};

struct cublas_functions {
  decltype(&::cublasCreate_v2) create;
  decltype(&::cublasSetStream_v2) set_stream;
  decltype(&::cublasGetStatusString) status_text;
  decltype(&::cublasGemmStridedBatchedEx_64) gemm;

  cublas_functions() {
    library const cublas("libcublas.so." OURO_TEXT(CUBLAS_VER_MAJOR), OURO_CUBLAS);
    cublas.find(create, "cublasCreate_v2");
    cublas.find(set_stream, "cublasSetStream_v2");
    cublas.find(status_text, "cublasGetStatusString");
    cublas.find(gemm, "cublasGemmStridedBatchedEx_64");
  }
};

#undef OURO_TEXT
#undef OURO_TEXT2

#else

struct cublas_functions {
  decltype(&::cublasCreate) create = &::cublasCreate;
  decltype(&::cublasSetStream) set_stream = &::cublasSetStream;
  decltype(&::cublasGetStatusString) status_text = &::cublasGetStatusString;
  decltype(&::cublasGemmStridedBatchedEx_64) gemm = &::cublasGemmStridedBatchedEx_64;
};

#endif

}  // namespace ouro::cuda_kernels
