// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Another creature: it hears a number at each step and says what it will be six steps later. Its five components are
// its own (creature.hpp); state, tape, trainer and optimiser are the library's. It must beat persistence, and its
// stateless twin.
//
// The series is that of Mackey & Glass (1977), dx/dt = 0.2 x(t−17) / (1 + x(t−17)¹⁰) − 0.1 x, sampled once a unit.
#include <cmath>
#include <cstdio>
#include <vector>

#include <ouro/ouro.hpp>

#include "creature.hpp"

namespace {

using B = ouro::cpu;
using creature = mackey_glass::creature<B>;

constexpr std::int64_t width = 32;
constexpr std::size_t ahead = 6;

ouro::state<B> newborn(std::int64_t lanes) { return mackey_glass::newborn<B>(lanes, width); }

std::vector<float> series(std::size_t n) {
  std::vector<double> x(18 * 10, 1.2);  // ten steps a unit
  while (x.size() < 10 * (n + 200)) {
    double const delayed = x[x.size() - 171];
    x.push_back(x.back() + 0.1 * (0.2 * delayed / (1 + std::pow(delayed, 10)) - 0.1 * x.back()));
  }
  std::vector<float> y;
  for (std::size_t i = 0; i < n; ++i) y.push_back(static_cast<float>(x[10 * (i + 200)] - 0.9));
  return y;
}

/// Root mean squared error on the last part of the series, after training on the rest; `remembers`: or the state is
/// cleared at every step, in training too.
double trained(std::vector<float> const& x, bool remembers) {
  constexpr std::size_t lanes = 16, span = 20, length = 250;
  auto model = mackey_glass::born<B>(width);
  ouro::trainer<creature> trainer(model, {.learning_rate = 5e-3, .weight_decay = 0, .warmup = 20, .total = 600});
  for (int u = 0; u < 600;) {
    auto s = newborn(lanes);
    for (std::size_t t = 0; t + span <= length - ahead && u < 600; t += span) {
      std::vector<ouro::lesson<creature>> lessons;
      for (std::size_t k = t; k < t + span; ++k) {
        ouro::lesson<creature> l;
        for (std::size_t b = 0; b < lanes; ++b) {
          l.input.push_back(x[b * length + k]);
          if (k >= 20) l.target.push_back(x[b * length + k + ahead]);
        }
        if (remembers) {
          lessons.push_back(l);
        } else if (!l.target.empty()) {
          s = newborn(lanes);
          if (k % 4 == 0) trainer.update(s, {l});
        }
      }
      if (remembers) trainer.update(s, lessons);
      ++u;
    }
  }
  double squares = 0;
  std::size_t count = 0;
  auto s = newborn(1);
  ouro::context<B> cx;
  for (std::size_t t = lanes * length; t + ahead < x.size(); ++t) {
    if (!remembers) s = newborn(1);
    auto r = ouro::wake(model, cx, s, {x[t]});
    s = r.state;
    if (t < lanes * length + 50) continue;
    double const error = static_cast<double>(model.actor.act(cx, r.seen, {x[t]})[0] - x[t + ahead]);
    squares += error * error;
    ++count;
  }
  return std::sqrt(squares / static_cast<double>(count));
}

}  // namespace

int main() {
  auto const x = series(5000);
  double squares = 0;
  std::size_t count = 0;
  for (std::size_t t = 4050; t + ahead < x.size(); ++t, ++count)
    squares += std::pow(static_cast<double>(x[t + ahead] - x[t]), 2);
  double const persistence = std::sqrt(squares / static_cast<double>(count));
  double const stateless = trained(x, false);
  double const living = trained(x, true);
  std::printf("root mean squared error, six steps ahead: persistence %.4f, stateless twin %.4f, with its state %.4f\n",
              persistence, stateless, living);
  return living < 0.5 * stateless && living < 0.5 * persistence ? 0 : 1;
}
