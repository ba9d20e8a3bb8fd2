// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The backends that are built, for tests that are written once and run on each of them.
#pragma once

#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>

#include <string>
#include <tuple>
#include <type_traits>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cuda.hpp>
#include <ouro/backend/reference.hpp>

namespace ouro_test {

/// Skips the test where there is no device.
inline void need_device() {
  if (!ouro::cuda_available()) SKIP(ouro::cuda_description());
}

/// A backend and the dtype it computes in.
template <class B, ouro::dtype Type>
struct in {
  using backend = B;
  static constexpr ouro::dtype type = Type;
  static constexpr bool exact = Type == ouro::dtype::f64;

  /// "cpu f32", for messages.
  static std::string name() { return std::string(B::name()) + " " + ouro::name_of(Type); }
  /// Skips the test where the device is absent.
  static void need() {
    if (std::is_same_v<B, ouro::cuda>) need_device();
  }
};

/// What is worth a test against the reference; cpu computes f64 by the reference's loops.
using accelerated = decltype(std::tuple_cat(
#if defined(OURO_HAS_CUDA)
    std::tuple<in<ouro::cuda, ouro::dtype::f32>, in<ouro::cuda, ouro::dtype::f64>>{},
#endif
#if defined(OURO_HAS_CPU)
    std::tuple<in<ouro::cpu, ouro::dtype::f32>>{},
#endif
    std::tuple<>{}));

/// Calls f with this many threads, where the backend has threads.
template <class B, class F>
void with_threads([[maybe_unused]] int threads, F&& f) {
#if defined(OURO_HAS_CPU)
  int const before = ouro::cpu_threads();
  if (std::is_same_v<B, ouro::cpu>) ouro::set_cpu_threads(threads);
  f();
  ouro::set_cpu_threads(before);
#else
  f();
#endif
}

}  // namespace ouro_test
