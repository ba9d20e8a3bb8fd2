// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Choosing a class: within the options, as often as the softmax says, and the same on every backend.
#include <cmath>
#include <limits>

#include <ouro/tensor/tensor.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>

namespace {

template <class B>
std::vector<std::int32_t> choices(std::vector<double> const& logits, ouro::shape const& dims, ouro::dtype type,
                                  ouro::sampling_rule const& rule) {
  auto const x = ouro::tensor<B>::from(logits, dims, type);
  ouro::tensor<B> chosen({dims[0]}, ouro::dtype::i32);
  B::sample(chosen.write(), x.read(), rule);
  return chosen.template values<std::int32_t>();
}

/// Many rows of the same logits.
std::vector<double> repeated(std::vector<double> const& row, std::int64_t rows) {
  std::vector<double> all;
  for (std::int64_t r = 0; r < rows; ++r) all.insert(all.end(), row.begin(), row.end());
  return all;
}

}  // namespace

TEST_CASE("sampling keeps to its options") {
  using R = ouro::reference;
  double const nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> row(258, -10.0);
  row[65] = row[66] = 3;
  row[67] = 2;
  row[3] = nan;
  std::int64_t const rows = 500;
  ouro::shape const dims{rows, 258};
  auto all = [&](ouro::sampling_rule const& rule) {
    return choices<R>(repeated(row, rows), dims, ouro::dtype::f64, rule);
  };
  for (auto c : all({.temperature = 0, .top_k = 0, .draw = {}})) CHECK(c == 65);
  for (auto c : all({.temperature = 1, .top_k = 1, .draw = {1, 2}})) CHECK(c == 65);
  std::size_t seen[3] = {};
  for (auto c : all({.temperature = 1, .top_k = 2, .draw = {1, 2}})) {
    REQUIRE((c == 65 || c == 66));
    ++seen[c - 65];
  }
  CHECK(seen[0] > 150);
  CHECK(seen[1] > 150);
  for (auto c : all({.temperature = 1, .top_k = 3, .draw = {1, 2}})) {
    REQUIRE((c >= 65 && c <= 67));
    if (c == 67) ++seen[2];
  }
  CHECK(seen[2] > 40);
}

TEST_CASE("sampling chooses as often as the softmax says") {
  using R = ouro::reference;
  std::vector<double> const row{0.5, -1, 2, 0, 1};
  std::int64_t const rows = 40000;
  double const temperature = 0.7;
  double sum = 0;
  for (double x : row) sum += std::exp(x / temperature);
  std::vector<double> count(row.size(), 0.0);
  for (auto c : choices<R>(repeated(row, rows), {rows, 5}, ouro::dtype::f64, {temperature, 0, {9, 4}}))
    ++count[static_cast<std::size_t>(c)];
  for (std::size_t i = 0; i < row.size(); ++i) {
    double const p = std::exp(row[i] / temperature) / sum;
    CHECK(std::abs(count[i] / static_cast<double>(rows) - p) < 5 * std::sqrt(p / static_cast<double>(rows)));
  }
}

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

TEMPLATE_LIST_TEST_CASE("backends: sampling", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  for (std::int64_t classes : {1, 2, 30, 258, 1000})
    for (std::int64_t k : {0, 1, 7, 300})
      for (double temperature : {0.0, 0.4, 2.0}) {
        ouro::shape const dims{40, classes};
        auto logits = ouro_test::noise<ouro::reference>(dims).template values<double>();
        for (std::size_t i = 0; i < logits.size(); i += 3) logits[i] = logits[i / 2];  // several are equal
        if (classes > 2) logits[1] = std::numeric_limits<double>::quiet_NaN();
        ouro::sampling_rule const rule{temperature, k, {3, 4}, 17};
        CHECK(choices<C>(logits, dims, TestType::type, rule) ==
              choices<ouro::reference>(logits, dims, TestType::type, rule));
      }
}

#endif
