// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A program that needs no library: plain loops.
#include <cstdio>

#include <ouro/backend/reference.hpp>
#include <ouro/ops/matmul.hpp>

int main() {
  using T = ouro::tensor<ouro::reference>;
  auto const y = ouro::matmul(T::full({2, 3}, ouro::dtype::f32, 2.0), T::full({3, 2}, ouro::dtype::f32, 0.5));
  std::printf("reference: %g\n", y.values<double>()[0]);
  return y.values<double>()[0] == 3.0 ? 0 : 1;
}
