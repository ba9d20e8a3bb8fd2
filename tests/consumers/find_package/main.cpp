// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A program of somebody else's, built against the installed package.
#include <cstdio>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cuda.hpp>
#include <ouro/ops/matmul.hpp>

int main() {
  using T = ouro::tensor<ouro::cpu>;
  auto const y = ouro::matmul(T::full({2, 3}, ouro::dtype::f32, 2.0), T::full({3, 2}, ouro::dtype::f32, 0.5));
  std::printf("%s: %g\n", ouro::cpu_description().c_str(), y.values<double>()[0]);
  std::printf("%s\n", ouro::cuda_description().c_str());
  return y.values<double>()[0] == 3.0 ? 0 : 1;
}
