// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products with few rows, as when one byte after the other is said: they read the second factor once and are over before
// a library has chosen how to compute them.
#pragma once

#include "device.hpp"

namespace ouro::cuda_kernels {

inline constexpr index few_rows = 4;

/// Whether row_products() is the better way for c = a b: few rows, of which a and c have contiguous ones.
bool has_few_rows(const_view const& c, const_view const& a, const_view const& b);

/// c (+)= alpha · a b + bias, where the bias (N) may be empty. Factors in f32 (b also in bf16) or all in f64; the products
/// are exact.
void row_products(destination const& c, const_view const& a, const_view const& b, double alpha, const_view const& bias);

}  // namespace ouro::cuda_kernels
