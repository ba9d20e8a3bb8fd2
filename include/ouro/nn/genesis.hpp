// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// How parameters come into the world: dtype and random stream of a model under construction.
#pragma once

#include <ouro/nn/module.hpp>
#include <ouro/ops/noise.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// Makes parameters. A blank one gives all of them their shapes, and no memory: for a network that is loaded next.
template <Backend B>
struct genesis {
  random_stream random;
  dtype type = dtype::f32;
  bool blank = false;

  explicit genesis(seed s, dtype t = dtype::f32) : random(s), type(t) {}

  tensor<B> zeros(shape const& dims) const { return blank ? bare(dims) : tensor<B>::zeros(dims, type); }
  tensor<B> ones(shape const& dims) const { return blank ? bare(dims) : tensor<B>::full(dims, type, 1.0); }
  /// Uniform in ±bound.
  tensor<B> uniform(shape const& dims, double bound) {
    if (blank) return bare(dims);
    return ouro::uniform<B>(dims, type, random.next(), -bound, bound);
  }
  /// N(0, deviation²).
  tensor<B> normal(shape const& dims, double deviation) {
    if (blank) return bare(dims);
    auto const z = ouro::normal<B>(dims, type, random.next());
    tensor<B> y(dims, type);
    B::scale(y.write(), z.read(), deviation);
    return y;
  }
  /// Xavier uniform for a weight (out, in): ±gain · √(6 / (in + out)) (Glorot & Bengio, 2010).
  tensor<B> xavier(shape const& dims, double gain = 1.0) {
    return uniform(dims, gain * elementary::sqrt(6.0 / static_cast<double>(dims[0] + dims[1])));
  }
  /// Uniform in ±1/√in, for what sums `in` inputs.
  tensor<B> fan_in(shape const& dims, std::int64_t in) {
    return uniform(dims, 1.0 / elementary::sqrt(static_cast<double>(in)));
  }

 private:
  tensor<B> bare(shape const& dims) const { return tensor<B>::repeated(dims, type, 0); }
};

}  // namespace ouro
