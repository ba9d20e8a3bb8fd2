// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Noise as a device stores it, and the same values in f64 on the reference.
#pragma once

#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>

namespace ouro_test {

struct stored_twin {
  ouro::tensor<ouro::reference> r;
  ouro::tensor<ouro::cuda> c;

  stored_twin(ouro::shape const& dims, ouro::dtype type)
      : r(noise<ouro::reference>(dims).copy(type).copy(ouro::dtype::f64)),
        c(ouro::tensor<ouro::cuda>::from(r.values<double>(), dims, type)) {}
  [[nodiscard]] double error() const { return relative_error(c, r); }
};

/// What an inner value may be stored in.
inline ouro::dtype any_inner() { return pick(0, 1) == 0 ? ouro::dtype::f32 : ouro::dtype::bf16; }

}  // namespace ouro_test
