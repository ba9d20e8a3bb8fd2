// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// `--backend` and `--products`: where and how a life is computed. A life on disk belongs to neither; it may be opened with
// others each time.
#pragma once

#include <string>
#include <type_traits>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cuda.hpp>

inline char const* const backend_help = "cpu, or cuda where this program was built with it";

inline char const* const products_help =
    "what the factors of matrix products are rounded to: f32, bf16 (faster where the processor can), tf32 (cuda)";

struct computation_options {
  std::string backend = "cpu";
  std::string products = "f32";
};

inline ouro::product_precision precision_of(std::string const& name) {
  using enum ouro::product_precision;
  if (name == "f32") return f32;
  if (name == "tf32") return tf32;
  ouro::require(name == "bf16", ouro::errc::argument, "products", "unknown precision '", name,
                "'; there are f32, tf32, bf16");
  return bf16;
}

/// Calls `f(std::type_identity<B>{})` with the backend that is named, its products set. Errors: unknown names (argument),
/// what this program or machine does not have (unavailable).
template <class F>
void with_backend(computation_options const& o, F&& f) {
  auto const precision = precision_of(o.products);
  if (o.backend == "cpu") {
    ouro::set_cpu_products(precision);
    return f(std::type_identity<ouro::cpu>{});
  }
  ouro::require(o.backend == "cuda", ouro::errc::argument, "backend", "unknown backend '", o.backend,
                "'; there are cpu, cuda");
  if constexpr (ouro::has_cuda) {
    ouro::set_cuda_products(precision);
    f(std::type_identity<ouro::cuda>{});
  } else {
    ouro::fail(ouro::errc::unavailable, "backend", ouro::cuda_description());
  }
}
