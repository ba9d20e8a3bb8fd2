// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// `--backend`: where a life is computed. A life on disk belongs to no backend; it may be opened on another each time.
#pragma once

#include <string>
#include <type_traits>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cuda.hpp>

inline char const* const backend_help = "cpu, or cuda where this program was built with it";

/// Calls `f(std::type_identity<B>{})` with the backend of this name. Errors: an unknown one (argument), one that this
/// program was built without (unavailable).
template <class F>
void with_backend(std::string const& name, F&& f) {
  if (name == "cpu") return f(std::type_identity<ouro::cpu>{});
  ouro::require(name == "cuda", ouro::errc::argument, "backend", "unknown backend '", name, "'; there are cpu, cuda");
  if constexpr (ouro::has_cuda) f(std::type_identity<ouro::cuda>{});
  else ouro::fail(ouro::errc::unavailable, "backend", ouro::cuda_description());
}
