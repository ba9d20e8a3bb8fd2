// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// `--backend`, `--products` and `--inner`: where and how a life is computed. A life on disk belongs to neither; it may be opened with
// others each time.
#pragma once

#include <string>
#include <type_traits>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cuda.hpp>

inline char const* const backend_help = "cpu, or cuda where this program was built with it";

inline char const* const products_help =
    "what the factors of matrix products are rounded to: f32, bf16 (faster, where the processor can), tf32 (cuda), or "
    "auto: bf16 where it can, else f32; where nothing is said train and tune take bf16 on cuda";

inline char const* const inner_help =
    "how values between the products of a layer are stored while training: f32, or bf16 (cuda; half as much memory and "
    "traffic; taken there by train and tune where nothing is said)";

inline char const* const weights_help =
    "how the weights that every byte reads are stored while it speaks: f32 or bf16 (half as much to read); the life "
    "keeps them as they are";

struct computation_options {
  std::string backend = "cpu";
  std::string products = "f32";
  std::string inner = "f32";
};

/// Lets training on cuda be in bf16 where nobody has said how products are computed, or inner values stored.
inline void suit_training(computation_options& o, bool products_said, bool inner_said) {
  if (o.backend != "cuda") return;
  if (!products_said) o.products = "bf16";
  if (!inner_said && o.products == "bf16") o.inner = "bf16";
}

/// The dtype that an option names. Errors: an unknown name.
inline ouro::dtype dtype_named(char const* option, std::string const& name) {
  ouro::require(name == "f32" || name == "bf16", ouro::errc::argument, option, "unknown dtype '", name,
                "'; there are f32 and bf16");
  return name == "bf16" ? ouro::dtype::bf16 : ouro::dtype::f32;
}

inline ouro::product_precision precision_of(computation_options const& o) {
  using enum ouro::product_precision;
  if (o.products == "auto") return o.backend == "cuda" || ouro::cpu_has_products(bf16) ? bf16 : f32;
  if (o.products == "f32") return f32;
  if (o.products == "tf32") return tf32;
  ouro::require(o.products == "bf16", ouro::errc::argument, "products", "unknown precision '", o.products,
                "'; there are f32, tf32, bf16 and auto");
  return bf16;
}

/// Calls `f(std::type_identity<B>{})` with the backend that is named, its products set. Errors: unknown names (argument),
/// what this program or machine does not have (unavailable).
template <class F>
void with_backend(computation_options const& o, F&& f) {
  auto const precision = precision_of(o);
  auto const inner = dtype_named("inner", o.inner);
  if (o.backend == "cpu") {
    ouro::require(inner == ouro::dtype::f32, ouro::errc::argument, "inner", "cpu stores inner values in f32");
    ouro::set_cpu_products(precision);
    return f(std::type_identity<ouro::cpu>{});
  }
  ouro::require(o.backend == "cuda", ouro::errc::argument, "backend", "unknown backend '", o.backend,
                "'; there are cpu, cuda");
  if constexpr (ouro::has_cuda) {
    ouro::set_cuda_products(precision);
    ouro::set_cuda_inner_values(inner);
    f(std::type_identity<ouro::cuda>{});
  } else {
    ouro::fail(ouro::errc::unavailable, "backend", ouro::cuda_description());
  }
}
