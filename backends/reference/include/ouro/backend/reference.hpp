// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The reference backend: plain loops in f32 and f64, header-only, no dependency. The executable specification of
// every primitive, and the oracle of every other backend.
#pragma once

#include <string_view>

#include <ouro/backend/reference/elementwise.hpp>
#include <ouro/backend/reference/products.hpp>
#include <ouro/backend/reference/rows.hpp>
#include <ouro/backend/reference/scans.hpp>
#include <ouro/concepts/backend.hpp>
#include <ouro/tensor/host_memory.hpp>

namespace ouro {

struct reference : reference_kernels::elementwise,
                   reference_kernels::rows,
                   reference_kernels::products,
                   reference_kernels::scans {
  static constexpr std::string_view name() { return "reference"; }
  /// The pool behind every tensor of this backend; never destroyed, so that tensors may outlive main().
  static host_memory& memory() {
    static auto* pool = new host_memory;
    return *pool;
  }
  static void* allocate(std::size_t bytes) { return memory().allocate(bytes); }
  static void deallocate(void* p, std::size_t bytes) noexcept { memory().deallocate(p, bytes); }
};

static_assert(Backend<reference>);

}  // namespace ouro
