// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A backend that is not linked still has its type; using it is a named error.
#if defined(OURO_HAS_CPU)
#undef OURO_HAS_CPU
#endif
#if defined(OURO_HAS_CUDA)
#undef OURO_HAS_CUDA
#endif
// Other names, so that this program may hold the real types elsewhere.
#define cpu absent_cpu
#define cuda absent_cuda
#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cuda.hpp>
#undef cpu
#undef cuda

#include <catch2/catch_test_macros.hpp>

#include <ouro/tensor/tensor.hpp>

namespace {
template <class B>
void check_absent(char const* library) {
  try {
    ouro::tensor<B> t({1});
    FAIL("accepted");
  } catch (ouro::error const& e) {
    CHECK(e.code() == ouro::errc::unavailable);
    CHECK(std::string(e.what()).find(library) != std::string::npos);
  }
}
}  // namespace

TEST_CASE("an absent backend says so") {
  check_absent<ouro::absent_cpu>("ouro::cpu");
  check_absent<ouro::absent_cuda>("ouro::cuda");
}
