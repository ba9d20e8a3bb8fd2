// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A brain of one's own: rows look at an exponential moving average of the rows before, through a learned gate.
#pragma once

#include <string_view>

#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/nn/linear.hpp>
#include <ouro/ops/exp.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/softplus.hpp>
#include <ouro/ops/ssd_scan.hpp>

/// m_t = α ⊙ m_{t−1} + (1 − α) ⊙ V x_t with one learned α for each column; y_t = O (σ(G x_t) ⊙ m_t).
template <ouro::Backend B>
struct moving_average {
  using backend = B;
  using tensor = ouro::tensor<B>;
  static constexpr std::string_view name = "moving_average";
  struct carry {
    tensor mean;  // (B,D,1,1); absent before the first row
  };

  ouro::linear<B> value, gate, output;
  ouro::parameter<B> rate;  // (D): α = exp(−softplus(rate))
  OURO_MODULE(moving_average, value, gate, output, rate);

  moving_average() = default;
  moving_average(ouro::genesis<B>& g, ouro::mixer_place const& place)
      : value(g, place.width, place.width), gate(g, place.width, place.width), output(g, place.width, place.width) {
    std::vector<double> rates;  // columns forget within one row to some thousand rows
    for (std::int64_t i = 0; i < place.width; ++i)
      rates.push_back(-7.0 * static_cast<double>(i) / static_cast<double>(place.width));
    rate = tensor::from(rates, {place.width}, g.type);
  }

  /// x (B,T,D) → (B,T − skip,D); c becomes the average after the rows.
  tensor forward(ouro::context<B>& cx, tensor const& x, ouro::segments s, carry& c) const {
    std::int64_t const lanes = x.dim(0), rows = x.dim(1), width = x.dim(2);
    if (c.mean.empty()) c.mean = tensor::zeros({lanes, width, 1, 1}, x.type());
    auto ones = [&](std::int64_t columns) { return tensor::full({lanes, rows, columns}, x.type(), 1.0); };
    auto const slow = ouro::scale(ouro::softplus(rate.value()), -1.0);      // (D): log α
    auto const fresh = tensor::full({1}, x.type(), 1.0) - ouro::exp(slow);  // (D): 1 − α
    // The scan of Mamba-2 with a head for each column and nothing chosen by the input is this average.
    auto const average = ouro::ssd_scan(value(cx, x) * fresh, ones(width), slow, ones(1), ones(1),
                                        tensor::zeros({width}, x.type()), c.mean);  // (B,T,D)
    c.mean = average.state;
    auto asked = [&](tensor const& y) { return ouro::slice(y, 1, s.skip, rows - s.skip); };
    return output(cx, ouro::sigmoid(gate(cx, asked(x))) * asked(average.y));
  }
  tensor step(ouro::context<B>& cx, tensor const& x, carry& c) const { return forward(cx, x, {.input = x.dim(1)}, c); }
};
