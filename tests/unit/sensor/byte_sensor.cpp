// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the compressor may compute in two ways.
#include <catch2/catch_test_macros.hpp>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/sensor/byte_sensor.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/weigh.hpp>

using R = ouro::reference;
using T = ouro::tensor<R>;
using ouro_test::noise;
using ouro_test::relative_error;
using ouro_test::weigh;

namespace {

/// A normalisation of three columns and the convolution after it, f64.
struct pair_of_layers {
  ouro::batch_norm_module<R> norm;
  ouro::convolution<R> next;

  pair_of_layers() {
    norm.running_mean = noise<R>({3});
    norm.running_var = T::from(std::vector<double>{0.5, 2, 1}, {3});
  }
  void fill(std::vector<T> const& v) {  // weight and bias of each
    norm.weight = v[1], norm.bias = v[2], next.weight = v[3], next.bias = v[4];
  }
  T apart(ouro::context<R>& cx, T const& x) const { return next.pointwise(cx, norm(cx, x)); }
  T folded(ouro::context<R>& cx, T const& x) const { return next.pointwise(x, norm.line(cx, x)); }
};

}  // namespace

TEST_CASE("a normalisation is the same in the weights of the product after it") {
  std::vector<T> const inputs{noise<R>({5, 3}), noise<R>({3}), noise<R>({3}), noise<R>({4, 3, 1}), noise<R>({4})};
  pair_of_layers layers;
  layers.fill(inputs);
  for (bool training : {false, true}) {
    CAPTURE(training);
    ouro::context<R> one{.training = training};
    ouro::context<R> other{.training = training};
    CHECK(relative_error(layers.folded(one, inputs[0]), layers.apart(other, inputs[0])) < 1e-12);
    REQUIRE(one.statistics.size() == (training ? 2 : 0));
    REQUIRE(other.statistics.size() == one.statistics.size());
    for (std::size_t i = 0; i < one.statistics.size(); ++i) {
      CHECK(one.statistics[i].target == other.statistics[i].target);
      CHECK(relative_error(one.statistics[i].batch, other.statistics[i].batch) < 1e-12);
    }
    auto const loss = [&](std::vector<T> const& v) {
      layers.fill(v);
      ouro::context<R> cx{.training = training};
      return weigh(layers.folded(cx, v[0]));
    };
    CHECK(ouro::gradient_error<R>(inputs, loss) < 1e-6);
  }
}
