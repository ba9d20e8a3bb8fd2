// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of Backend, on the reference, on cpu, there with one thread, with two, and with more than processors, and on
// cuda.
#include <ouro_test/backends.hpp>
#include <ouro_test/laws/backend.hpp>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cuda.hpp>

TEST_CASE("Backend: reference") {
  ouro_test::backend_laws<ouro::reference>(ouro::dtype::f64);
  ouro_test::backend_laws<ouro::reference>(ouro::dtype::f32);
}
#if defined(OURO_HAS_CPU)
TEST_CASE("Backend: cpu") {
  int const before = ouro::cpu_threads();
  for (int threads : {1, 2, 5}) {
    INFO(threads << " threads");
    ouro::set_cpu_threads(threads);
    ouro_test::backend_laws<ouro::cpu>(ouro::dtype::f32);
    if (threads == 2) ouro_test::backend_laws<ouro::cpu>(ouro::dtype::f64);  // the reference's loops but for products
  }
  ouro::set_cpu_threads(before);
}
#endif
#if defined(OURO_HAS_CUDA)
TEST_CASE("Backend: cuda") {
  ouro_test::need_device();
  ouro_test::backend_laws<ouro::cuda>(ouro::dtype::f32);
  ouro_test::backend_laws<ouro::cuda>(ouro::dtype::f64);
}
#endif
