// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What chooses a backend by name compiles where there is no cuda, and says so there.
#include <cstdio>

#include <ouro/tensor/error.hpp>

#include "../../examples/gridman/backends.hpp"

#if defined(OURO_HAS_CUDA)
#error "this program is one without cuda"
#endif

int main() {
  try {
    with_backend({.backend = "cuda"}, [](auto) { std::puts("cuda is there"); });
  } catch (ouro::error const& e) {
    std::puts(e.what());
    return e.code() == ouro::errc::unavailable ? 0 : 1;
  }
  return 1;
}
