// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A dropout as the kernels take it. Not part of kernels.hpp: units compiled with wide instructions share no inline
// function with the others.
#pragma once

#include <ouro/tensor/random.hpp>

#include "kernels.hpp"

namespace ouro::cpu_kernels {

static_assert(mask_rounds == philox::mask_rounds);

inline drop_rule dropper(double rate, random_draw const& draw) {
  dropout_mask const mask(rate);
  return {static_cast<float>(mask.factor), mask.bits, mask.threshold, draw.key, draw.site};
}

}  // namespace ouro::cpu_kernels
