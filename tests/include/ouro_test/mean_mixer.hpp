// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The smallest SequenceMixer: y_t = W · mean of the rows seen.
#pragma once

#include <ouro/backend/reference.hpp>
#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/nn/context.hpp>
#include <ouro/nn/genesis.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/reduce.hpp>

namespace ouro_test {

template <class B>
struct mean_mixer_carry {
  ouro::tensor<B> sum;  // (B,1,D); absent before the first row
  std::int64_t count = 0;
};

template <ouro::Backend B>
struct mean_mixer {
  using backend = B;
  using carry = mean_mixer_carry<B>;
  ouro::parameter<B> weight;  // (D,D)
  OURO_MODULE(mean_mixer, weight);

  mean_mixer() = default;
  mean_mixer(ouro::genesis<B>& g, std::int64_t width, std::int64_t) : weight(g.xavier({width, width})) {}
  mean_mixer(ouro::genesis<B>& g, auto const& place) : mean_mixer(g, place.width, place.heads) {}

  ouro::tensor<B> forward(ouro::context<B>&, ouro::tensor<B> const& x, ouro::segments s, carry& c) const {
    std::int64_t const read = s.total() - s.skip;
    std::vector<double> share;
    for (std::int64_t i = 0; i < read; ++i)
      for (std::int64_t j = 0; j < s.total(); ++j) {
        auto const seen = s.sees().count(i, s.total());
        share.push_back(j < seen ? 1.0 / static_cast<double>(seen) : 0.0);
      }
    auto const means = ouro::tensor<B>::from(share, {read, s.total()}, x.type());
    c = {ouro::sum(x, 1), s.total()};
    return times(ouro::matmul(ouro::expand(means, {x.dim(0), read, s.total()}), x));
  }
  ouro::tensor<B> step(ouro::context<B>&, ouro::tensor<B> const& x, carry& c) const {
    c = {c.count == 0 ? x : c.sum + x, c.count + 1};
    return times((1.0 / static_cast<double>(c.count)) * c.sum);
  }

 private:
  ouro::tensor<B> times(ouro::tensor<B> const& x) const {
    auto const flat = ouro::reshape(x, {x.dim(0) * x.dim(1), x.dim(2)});
    return ouro::reshape(ouro::matmul(flat, ouro::transpose(weight.value(), 0, 1)), x.dims());
  }
};
static_assert(
    ouro::SequenceMixer<mean_mixer<ouro::reference>, ouro::context<ouro::reference>, ouro::tensor<ouro::reference>>);

}  // namespace ouro_test
