// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The vector functions of the cpu backend, with errors of at most 4 ulp over the whole range.
#pragma once

#include <cstdint>

namespace ouro::cpu_math {

void exp(float const* x, float* y, std::int64_t n);
void tanh(float const* x, float* y, std::int64_t n);
void erf(float const* x, float* y, std::int64_t n);
void sigmoid(float const* x, float* y, std::int64_t n);

}  // namespace ouro::cpu_math
