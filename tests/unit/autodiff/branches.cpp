// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Gradients of weights leave the order of a backward pass for a branch: who waits for it, and who does not.
#include <catch2/catch_test_macros.hpp>

#include <utility>
#include <vector>

#include <ouro/autodiff/tape.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/tanh.hpp>
#include <ouro_test/random.hpp>

namespace {

/// Computes at once, and counts how often a branch that was begun is joined.
struct branching : ouro::reference {
  static inline bool unjoined = false;
  static inline int joined = 0;
  static void begin_branch() { unjoined = true; }
  static void end_branch() {}
  static void join_branch() { joined += std::exchange(unjoined, false) ? 1 : 0; }
};
using tensor = ouro::tensor<branching>;

/// How often a backward pass through three layers in a row waits for their weights' gradients; `layer` is given the layer's input
/// and what its weights make of it.
template <class Layer>
int waits(Layer const& layer) {
  std::vector<tensor> const weights{ouro_test::noise<branching>({4, 4}), ouro_test::noise<branching>({4, 4}),
                                    ouro_test::noise<branching>({4, 4})};
  auto const bias = ouro_test::noise<branching>({4});
  auto h = ouro_test::noise<branching>({2, 3, 4});
  ouro::tape<branching> tape;
  for (auto const& w : weights) tape.watch(w);
  tape.watch(bias);
  tape.watch(h);
  for (auto const& w : weights) h = layer(h, ouro::linear_map(h, w, bias));
  branching::joined = 0;
  tape.backward(ouro::sum(h));
  return branching::joined;
}

}  // namespace

TEST_CASE("branches: no layer waits for the gradients of the weights behind it") {
  CHECK(waits([](tensor const&, tensor const& y) { return ouro::tanh(y); }) == 1);
}

TEST_CASE("branches: a gradient that two share may be added to where it is, so each of its readers is waited for") {
  auto const other = ouro_test::noise<branching>({4, 4});
  CHECK(waits([&](tensor const& x, tensor const& y) { return y + ouro::linear_map(x, other, {}); }) == 4);
}
