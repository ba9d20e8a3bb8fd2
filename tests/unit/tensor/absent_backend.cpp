// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A backend that is not linked still has its type; using it is a named error.
#if defined(OURO_HAS_CPU)
#undef OURO_HAS_CPU
#endif
// Another name, so that this program may hold the real type elsewhere.
#define cpu absent_cpu
#include <ouro/backend/cpu.hpp>
#undef cpu

#include <catch2/catch_test_macros.hpp>

#include <ouro/tensor/tensor.hpp>

TEST_CASE("an absent backend says so") {
  try {
    ouro::tensor<ouro::absent_cpu> t({1});
    FAIL("accepted");
  } catch (ouro::error const& e) {
    CHECK(e.code() == ouro::errc::unavailable);
    CHECK(std::string(e.what()).find("ouro::cpu") != std::string::npos);
  }
}
