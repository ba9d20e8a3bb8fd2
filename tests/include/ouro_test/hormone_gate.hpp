// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Random hormone gates: every form of backbone, spread and of what follows.
#pragma once

#include <cmath>
#include <vector>

#include <ouro/ops/hormone_gate.hpp>
#include <ouro_test/random.hpp>

namespace ouro_test {

/// x (lanes, rows, width), y (lanes, rows, spread · width).
struct gate_sizes {
  std::int64_t lanes, rows, width, spread = 1;

  /// Widths are multiples of 4 · `scale`, rows grow with it.
  static gate_sizes random(int i, std::int64_t scale) {
    gate_sizes s{pick(1, 2), pick(1, 3 * scale), 4 * pick(1, 2 * scale)};
    s.spread = i % 3 != 0 ? pick(1, 4) : 1;
    return s;
  }
};

/// Case number `i`, which says what follows, and whether f is a layer norm where the sizes let it be.
template <class B>
struct gate_case {
  using T = ouro::tensor<B>;
  std::vector<T> inputs;  // x, h, f or scale, bias, query weight and bias, gate, projection weight and bias, residual
  bool normalises;
  bool gelu;
  bool remains;
  bool folds;  // the sum of y's parts is asked for too
  double dropout;

  gate_case(int i, std::int64_t scale, ouro::dtype type = ouro::dtype::f64)
      : gate_case(i, gate_sizes::random(i, scale), type) {}
  gate_case(int i, gate_sizes const& s, ouro::dtype type)
      : normalises(i % 3 == 0 && s.spread == 1),
        gelu(i % 2 == 0),
        remains(i % 4 < 2),
        folds(i % 4 >= 2 && i % 3 != 0),
        dropout(i % 5 == 0 ? 0.3 : 0.0) {
    auto const [lanes, rows, width, spread] = s;
    auto make = [type](ouro::shape const& dims, double size = 1) { return ouro::scale(noise<B>(dims, type), size); };
    inputs = {make({lanes, rows, width}),
              make({lanes, 1, width}),
              normalises ? make({width}) : make({lanes, rows, spread * width}),
              make({spread * width}),
              make({width}),
              make({width}),
              make({spread, width}),
              make({spread * width}, 0.5),
              make({spread * width}, 0.5)};
    if (remains) inputs.push_back(make({lanes, rows, spread * width}));
  }

  [[nodiscard]] ouro::hormone_gate_inputs<B> with(std::vector<T> const& v) const {
    return {v[0],
            v[1],
            normalises ? T{} : v[2],
            normalises ? v[2] : T{},
            v[3],
            v[4],
            v[5],
            v[6],
            v[7],
            v[8],
            remains ? v[9] : T{},
            gelu,
            dropout,
            {11, 7}};
  }
  /// A loss of what the gate says, and of its sum if it is asked for.
  [[nodiscard]] T loss(ouro::hormone_gate_result<B> const& r) const {
    auto const of_y = ouro::sum(r.y * weights(r.y.dims()));
    return folds ? of_y + ouro::sum(r.folded * weights(r.folded.dims())) : of_y;
  }
  [[nodiscard]] ouro::hormone_gate_result<B> result(std::vector<T> const& v) const {
    if (folds) return ouro::hormone_gate_and_fold(with(v));
    return {ouro::hormone_gate(with(v)), {}};
  }
  /// Weights that tell every element apart.
  [[nodiscard]] T weights(ouro::shape const& dims) const {
    std::vector<double> w;
    for (std::int64_t i = 0; i < dims.size(); ++i) w.push_back(std::sin(1.0 + 0.7 * static_cast<double>(i)));
    return T::from(w, dims, inputs[0].type());
  }
};

}  // namespace ouro_test
