// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A creature that hears a number at each step and says what it will be six steps later: five small components of its
// own, on any backend. They are also the second models of the concepts that tests/laws holds to their laws.
#pragma once

#include <vector>

#include <ouro/backend/reference.hpp>
#include <ouro/nn/linear.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/tanh.hpp>
#include <ouro/system/newborn.hpp>
#include <ouro/system/system.hpp>

namespace mackey_glass {

/// Numbers (lanes) → disturbances (B,1,D).
template <ouro::Backend B>
struct ear {
  using backend = B;
  using input_type = std::vector<float>;
  ouro::linear<B> project;
  OURO_MODULE(ear, project);
  ouro::tensor<B> operator()(ouro::context<B>& cx, input_type const& x, ouro::state_view<B> const&,
                             ouro::tensor<B> const& hormone) const {
    auto const lanes = static_cast<std::int64_t>(x.size());
    return project(cx, ouro::tensor<B>::from(x, {lanes, 1, 1}, hormone.type()));
  }
};
static_assert(ouro::Sensor<ear<ouro::reference>, ouro::reference>);

/// working' = (1 − z) working + z tanh(W [x, working]): a gated recurrence of one row.
template <ouro::Backend B>
struct cell {
  using backend = B;
  ouro::linear<B> candidate;
  ouro::linear<B> gate;
  OURO_MODULE(cell, candidate, gate);
  ouro::brain_result<B> operator()(ouro::context<B>& cx, ouro::tensor<B> const& x, ouro::state_view<B> const& s,
                                   ouro::tensor<B> const&) const {
    auto const both = ouro::concat<B>({x, s.working}, 2);
    auto const next = s.working + ouro::sigmoid(gate(cx, both)) * (ouro::tanh(candidate(cx, both)) - s.working);
    return {next, next, s.self, {}};
  }
  ouro::brain_result<B> dream(ouro::context<B>&, ouro::tensor<B> const&, ouro::state_view<B> const& s,
                              ouro::tensor<B> const&) const {
    return {{}, s.working, s.self, {}};
  }
};
static_assert(ouro::Brain<cell<ouro::reference>, ouro::reference>);

/// Thought → the change until six steps later, with the mean squared error.
template <ouro::Backend B>
struct mouth {
  using backend = B;
  using input_type = std::vector<float>;
  using target_type = std::vector<float>;
  using output_type = std::vector<float>;
  ouro::linear<B> hidden;
  ouro::linear<B> project;
  OURO_MODULE(mouth, hidden, project);
  ouro::tensor<B> predict(ouro::context<B>& cx, ouro::impression<B> const& seen, input_type const& x) const {
    auto const y = project(cx, ouro::tanh(hidden(cx, seen.now)));
    return ouro::reshape(y, {y.size()}) + ouro::tensor<B>::from(x, {y.size()}, y.type());
  }
  ouro::actor_loss<B> loss(ouro::context<B>& cx, ouro::impression<B> const& seen, input_type const& x,
                           target_type const& target) const {
    if (target.empty()) return {};
    auto const y = predict(cx, seen, x);
    auto const error = y - ouro::tensor<B>::from(target, {y.size()}, y.type());
    return {ouro::mean(ouro::square(error)), y.size()};
  }
  output_type act(ouro::context<B>& cx, ouro::impression<B> const& seen, input_type const& x) const {
    return predict(cx, seen, x).template values<float>();
  }
};
static_assert(ouro::Actor<mouth<ouro::reference>, ouro::reference>);

/// The hormone never changes.
template <ouro::Backend B>
struct calm {
  using backend = B;
  bool exists = true;
  OURO_MODULE(calm, exists);
  ouro::tensor<B> operator()(ouro::context<B>&, ouro::tensor<B> const&, ouro::tensor<B> const&,
                             ouro::tensor<B> const& hormone) const {
    return hormone;
  }
};
static_assert(ouro::Hypothalamus<calm<ouro::reference>, ouro::reference>);

/// The dream is the working state; nothing is exchanged.
template <ouro::Backend B>
struct dreamless {
  using backend = B;
  bool exists = true;
  OURO_MODULE(dreamless, exists);
  ouro::tensor<B> inception(ouro::context<B>&, ouro::tensor<B> const&, ouro::tensor<B> const& working,
                            ouro::tensor<B> const&, ouro::random_stream&) const {
    return working;
  }
  struct exchanged {
    ouro::tensor<B> mem;
    ouro::tensor<B> working;
  };
  exchanged consolidate(ouro::context<B>&, ouro::tensor<B> const& mem, ouro::tensor<B> const& working,
                        ouro::random_stream&) const {
    return {mem, working};
  }
};
static_assert(ouro::Hippocampus<dreamless<ouro::reference>, ouro::reference>);

template <ouro::Backend B>
using creature = ouro::system<B, ear<B>, cell<B>, mouth<B>, calm<B>, dreamless<B>>;

template <ouro::Backend B>
creature<B> born(std::int64_t width, ouro::dtype type = ouro::dtype::f32) {
  ouro::genesis<B> g(ouro::seed{1}, type);
  return {{{g, 1, width}}, {{g, 2 * width, width}, {g, 2 * width, width}}, {{g, width, width}, {g, width, 1}}, {}, {},
          {64, 0, 0}};
}

template <ouro::Backend B>
ouro::state<B> newborn(std::int64_t lanes, std::int64_t width) {
  return ouro::newborn<B>({.width = width, .hormone = 1}, ouro::seed{2}, lanes);
}

}  // namespace mackey_glass
