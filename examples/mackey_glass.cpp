// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Another creature: it hears a number at each step and says what it will be six steps later. Its five components are
// its own; state, tape, trainer and optimiser are the library's. It must beat persistence, and its stateless twin.
//
// The series is that of Mackey & Glass (1977), dx/dt = 0.2 x(t−17) / (1 + x(t−17)¹⁰) − 0.1 x, sampled once a unit.
#include <cmath>
#include <cstdio>
#include <vector>

#include <ouro/ouro.hpp>

using B = ouro::cpu;
using T = ouro::tensor<B>;
using cx = ouro::context<B>;

namespace {

constexpr std::int64_t width = 32;
constexpr std::size_t ahead = 6;

/// Numbers (lanes) → disturbances (B,1,D).
struct ear {
  using backend = B;
  using input_type = std::vector<float>;
  ouro::linear<B> project;
  OURO_MODULE(ear, project);
  T operator()(cx& c, input_type const& x, ouro::state_view<B> const&, T const&) const {
    return project(c, T::from(x, {static_cast<std::int64_t>(x.size()), 1, 1}));
  }
};

/// working' = (1 − z) working + z tanh(W [x, working]): a gated recurrence of one row.
struct cell {
  using backend = B;
  ouro::linear<B> candidate;
  ouro::linear<B> gate;
  OURO_MODULE(cell, candidate, gate);
  ouro::brain_result<B> operator()(cx& c, T const& x, ouro::state_view<B> const& s, T const&) const {
    auto const both = ouro::concat<B>({x, s.working}, 2);
    auto const next = s.working + ouro::sigmoid(gate(c, both)) * (ouro::tanh(candidate(c, both)) - s.working);
    return {next, next, s.self, {}};
  }
  ouro::brain_result<B> dream(cx&, T const&, ouro::state_view<B> const& s, T const&) const { return {{}, s.working, s.self, {}}; }
};

/// Thought → the change until six steps later, with the mean squared error.
struct mouth {
  using backend = B;
  using input_type = std::vector<float>;
  using target_type = std::vector<float>;
  using output_type = std::vector<float>;
  ouro::linear<B> hidden;
  ouro::linear<B> project;
  OURO_MODULE(mouth, hidden, project);
  T predict(cx& c, ouro::impression<B> const& seen, input_type const& x) const {
    auto const y = project(c, ouro::tanh(hidden(c, seen.now)));
    return ouro::reshape(y, {y.size()}) + T::from(x, {y.size()});
  }
  ouro::actor_loss<B> loss(cx& c, ouro::impression<B> const& seen, input_type const& x, target_type const& t) const {
    if (t.empty()) return {};
    auto const error = predict(c, seen, x) - T::from(t, {static_cast<std::int64_t>(t.size())});
    return {ouro::mean(ouro::square(error)), static_cast<std::int64_t>(t.size())};
  }
  output_type act(cx& c, ouro::impression<B> const& seen, input_type const& x) const { return predict(c, seen, x).values<float>(); }
};

/// The hormone never changes.
struct calm {
  using backend = B;
  bool exists = true;
  OURO_MODULE(calm, exists);
  T operator()(cx&, T const&, T const&, T const& hormone) const { return hormone; }
};

/// The dream is the working state; nothing is exchanged.
struct dreamless {
  using backend = B;
  bool exists = true;
  OURO_MODULE(dreamless, exists);
  T inception(cx&, T const&, T const& working, T const&, ouro::random_stream&) const { return working; }
  struct exchanged {
    T mem;
    T working;
  };
  exchanged consolidate(cx&, T const& mem, T const& working, ouro::random_stream&) const { return {mem, working}; }
};

using creature = ouro::system<B, ear, cell, mouth, calm, dreamless>;

creature born() {
  ouro::genesis<B> g(ouro::seed{1});
  return {{{g, 1, width}}, {{g, 2 * width, width}, {g, 2 * width, width}}, {{g, width, width}, {g, width, 1}}, {}, {}, {64, 0, 0}};
}
ouro::state<B> newborn(std::int64_t lanes) {
  ouro::state<B> s;
  s.mem = s.working = s.self = T::zeros({lanes, 1, width});
  s.hormone = T::zeros({lanes, 1, 1});
  s.oscillator = T::full({lanes, 2}, ouro::dtype::f32, 0.7);
  return s;
}

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
  auto model = born();
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
  cx c;
  for (std::size_t t = lanes * length; t + ahead < x.size(); ++t) {
    if (!remembers) s = newborn(1);
    auto r = ouro::wake(model, c, s, {x[t]});
    s = r.state;
    if (t < lanes * length + 50) continue;
    double const error = static_cast<double>(model.actor.act(c, r.seen, {x[t]})[0] - x[t + ahead]);
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
  for (std::size_t t = 4050; t + ahead < x.size(); ++t, ++count) squares += std::pow(static_cast<double>(x[t + ahead] - x[t]), 2);
  double const persistence = std::sqrt(squares / static_cast<double>(count));
  double const stateless = trained(x, false);
  double const living = trained(x, true);
  std::printf("root mean squared error, six steps ahead: persistence %.4f, stateless twin %.4f, with its state %.4f\n",
              persistence, stateless, living);
  return living < 0.5 * stateless && living < 0.5 * persistence ? 0 : 1;
}
