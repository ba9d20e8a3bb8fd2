// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A backend that is not linked still has its type; using it is a named error. Other parts of this program are linked with it: theirs
// is another type.
#if defined(OURO_HAS_CPU)
#undef OURO_HAS_CPU
#endif
#if defined(OURO_HAS_CUDA)
#undef OURO_HAS_CUDA
#endif
#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cuda.hpp>

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
  check_absent<ouro::cpu>("ouro::cpu");
  check_absent<ouro::cuda>("ouro::cuda");
  CHECK_FALSE((ouro::has_cpu || ouro::has_cuda));
  CHECK_THROWS_AS(ouro::set_cpu_threads(2), ouro::error);
}
