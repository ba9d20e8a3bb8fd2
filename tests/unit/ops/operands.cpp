// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What operations refuse, by name: operands that are absent, of another type, or of a shape that they have no use for.
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <limits>
#include <string>

#include <ouro/autodiff/tape.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/ops/batch_norm.hpp>
#include <ouro/ops/cross_entropy.hpp>
#include <ouro/ops/dropout.hpp>
#include <ouro/ops/exp.hpp>
#include <ouro/ops/gather_sum.hpp>
#include <ouro/ops/hormone_gate.hpp>
#include <ouro/ops/log.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/norm.hpp>
#include <ouro/ops/relu.hpp>
#include <ouro/ops/scaled_dot_product_attention.hpp>
#include <ouro/ops/unit.hpp>
#include <ouro_test/random.hpp>

using R = ouro::reference;
using T = ouro::tensor<R>;
using ouro::dtype;
using ouro::errc;
using ouro_test::noise;

namespace {

/// What the error says, without the values; the test fails if there is none, or one of another kind.
template <class F>
std::string refusal(errc code, F const& f) {
  try {
    static_cast<void>(f());
  } catch (ouro::error const& e) {
    CHECK(e.code() == code);
    return e.what();
  }
  FAIL_CHECK("accepted");
  return {};
}

}  // namespace

TEST_CASE("operations need operands that are there") {
  T const x = noise<R>({2, 3});
  for (auto const& said :
       {refusal(errc::argument, [&] { return x + T{}; }), refusal(errc::argument, [&] { return T{} + x; }),
        refusal(errc::argument, [&] { return 2.0 * T{}; }), refusal(errc::argument, [&] { return ouro::tanh(T{}); }),
        refusal(errc::argument, [&] { return ouro::unit(T{}); }),
        refusal(errc::argument, [&] { return ouro::sum(T{}); }),
        refusal(errc::argument, [&] { return ouro::dropout(T{}, 0.5, {}); }),
        refusal(errc::argument, [&] { return ouro::add_dropped(T{}, x, 0.5, {}); }),
        refusal(errc::argument, [&] { return ouro::expand(T{}, {2}); }),
        refusal(errc::argument, [&] { return ouro::reshape(T{}, {1}); })})
    CHECK(said.find("absent") != std::string::npos);
}

TEST_CASE("operands are computed in one type") {
  auto f32 = [](ouro::shape const& dims) { return noise<R>(dims, dtype::f32); };
  auto f64 = [](ouro::shape const& dims) { return noise<R>(dims, dtype::f64); };
  T const tokens = T::from(std::vector<std::int32_t>{0, 1}, {2, 1});
  ouro::attention_rule const rule;
  for (auto const& said :
       {refusal(errc::shape,
                [&] {
                  return ouro::normalize_rows(f64({2, 4}), f32({4}), f32({4}));
                }),
        refusal(errc::shape,
                [&] {
                  return ouro::normalize_rows(f32({2, 4}), f32({4}), f64({4}));
                }),
        refusal(errc::shape,
                [&] {
                  return ouro::batch_norm(f64({2, 4}), f32({4}), f32({4})).y;
                }),
        refusal(errc::shape,
                [&] {
                  return ouro::scaled_dot_product_attention(f64({1, 2, 4}), f32({1, 2, 4}), f32({1, 2, 4}), rule);
                }),
        refusal(errc::shape,
                [&] {
                  return ouro::gather_sum(f64({1, 3, 4}), tokens, f32({4}));
                }),
        refusal(errc::shape,
                [&] {
                  return ouro::matmul(f64({2, 2}), f32({2, 2}));
                }),
        refusal(errc::shape, [&] { return f32({2}) + f64({2}); }),
        refusal(errc::shape,
                [&] {
                  return ouro::concat<R>({f32({2}), f64({2})}, 0);
                }),
        refusal(errc::shape, [&] {
          return ouro::hormone_gate<R>({.x = f64({1, 2, 8}),
                                        .h = f32({1, 1, 8}),
                                        .f = f32({1, 2, 8}),
                                        .scale = {},
                                        .bias = f32({8}),
                                        .query_weight = f32({8}),
                                        .query_bias = f32({8}),
                                        .gate = f32({1, 8}),
                                        .proj_weight = f32({8}),
                                        .proj_bias = f32({8}),
                                        .residual = {}});
        })})
    CHECK(said.find("dtypes must agree") != std::string::npos);
  // What a backend has no kernel for it does not read either.
  CHECK_THROWS_AS(f32({2, 2}) + f32({2, 2}).copy(dtype::bf16), ouro::error);
  CHECK_THROWS_AS(ouro::matmul(f32({2, 2}), f32({2, 2}), {}, dtype::f64), ouro::error);
}

TEST_CASE("axes and extents that are not there") {
  T const x = noise<R>({2, 3});
  for (int const axis : {2, 7, -3}) {
    for (auto const& said :
         {refusal(errc::shape, [&] { return ouro::sum(x, axis); }),
          refusal(errc::shape, [&] { return ouro::mean(x, axis); }),
          refusal(errc::shape, [&] { return ouro::transpose(x, 0, axis); }),
          refusal(errc::shape, [&] { return ouro::reverse(x, axis); }),
          refusal(errc::shape, [&] { return ouro::slice(x, axis, 0, 1); }), refusal(errc::shape, [&] {
            return ouro::concat<R>({x, x}, axis);
          })})
      CHECK(said.find("no axis " + std::to_string(axis) + " in shape (2,3)") != std::string::npos);
  }
  CHECK(ouro::transpose(x, -1, -2).dims() == ouro::shape{3, 2});
  CHECK(ouro::sum(x, -1).dims() == ouro::shape{2, 1});
  CHECK_THROWS_AS(ouro::reshape(x, {-2, -3}), ouro::error);
  std::int64_t const many = std::int64_t{1} << 40U;
  for (auto const& dims : {ouro::shape{many, many}, ouro::shape{std::int64_t{1} << 62U}, ouro::shape{0, many, many}})
    CHECK(refusal(errc::shape, [&] { return T(dims); }).find("too many elements") != std::string::npos);
  CHECK_THROWS_AS(ouro::normalize_rows(noise<R>({}), noise<R>({}), noise<R>({})), ouro::error);
}

TEST_CASE("a slice lies inside its axis, however long it says it is") {
  T const x = noise<R>({2, 3});
  auto const huge = std::numeric_limits<std::int64_t>::max();
  static_cast<void>(refusal(errc::shape, [&] { return ouro::slice(x, 0, huge, 1); }));
  static_cast<void>(refusal(errc::shape, [&] { return ouro::slice(x, 0, 1, huge); }));
  static_cast<void>(refusal(errc::shape, [&] { return ouro::slice(x, 1, 3, 1); }));
  CHECK(ouro::slice(x, 1, 3, 0).size() == 0);
  for (int axis : {2, 9, -3}) static_cast<void>(refusal(errc::shape, [&] { return x.dim(axis); }));
  CHECK(x.dim(-2) == 2);
}

TEST_CASE("labels and indices name what is there") {
  T const x = noise<R>({2, 3});
  T const table = noise<R>({1, 4, 3});
  auto labels = [](std::int32_t a) { return T::from({a, 0}, {2}); };
  CHECK(refusal(errc::argument, [&] { return ouro::cross_entropy(x, labels(3)); }).find("no 3 among 3") !=
        std::string::npos);
  static_cast<void>(refusal(errc::argument, [&] { return ouro::cross_entropy(x, labels(300000000)); }));
  CHECK(ouro::cross_entropy(x, labels(-1)).values<double>()[0] == 0);
  static_cast<void>(refusal(errc::argument, [&] { return ouro::gather_sum(table, T::from({4, 0}, {2, 1})); }));
  CHECK(ouro::gather_sum(table, T::from({3, -1}, {2, 1})).values<double>()[3] == 0);
}

TEST_CASE("numbers beside tensors, and lists of them") {
  T const x = T::from({1.0, 2.0, 4.0}, {3});
  using numbers = std::vector<double>;
  CHECK((x + 1.0).values<double>() == numbers{2, 3, 5});
  CHECK((1.0 + x).values<double>() == numbers{2, 3, 5});
  CHECK((x - 1.0).values<double>() == numbers{0, 1, 3});
  CHECK((1.0 - x).values<double>() == numbers{0, -1, -3});
  CHECK((x / 2.0).values<double>() == numbers{0.5, 1, 2});
  CHECK((4.0 / x).values<double>() == numbers{4, 2, 1});
  CHECK(ouro::concat({x, 2.0 * x}, 0).values<double>() == numbers{1, 2, 4, 2, 4, 8});
  CHECK(ouro::relu(x - 2.0).values<double>() == numbers{0, 0, 2});
  CHECK(ouro::log(ouro::exp(x)).values<double>()[2] == 4);
  CHECK(std::isnan(ouro::relu(T::from({std::nan("")}, {1})).item()));
}

TEST_CASE("a copy in another type has a gradient in that of the original") {
  for (auto const& [from, to] : {std::pair{dtype::f32, dtype::f64}, std::pair{dtype::f64, dtype::f32}}) {
    T const x = noise<R>({3}, from);
    ouro::tape<R> t;
    t.watch(x);
    auto const y = ouro::copied(x, to);
    t.backward(ouro::sum(y * y));
    CHECK(t.gradient(x).type() == from);
    CHECK(ouro_test::relative_error(t.gradient(x), ouro::scale(x.detach(), 2.0)) < 1e-6);
  }
}

TEST_CASE("a dropout always leaves something") {
  for (double const rate : {0.999, 0.9999847, 0.999999999}) {
    auto const y = ouro::dropout(T::full({4096}, dtype::f64, 1), rate, {3, 4});
    CHECK(std::isfinite(ouro::norm_of<R>({y})));
  }
}

TEST_CASE("a norm is finite exactly when every element is") {
  T const x = noise<R>({3, 4});
  CHECK(std::abs(ouro::norm_of<R>({x, {}, x}) - std::sqrt(2 * ouro::sum(x * x).item())) < 1e-12);
  for (double const odd : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
    CHECK_FALSE(std::isfinite(ouro::norm_of<R>({x, T::full({1}, dtype::f64, odd)})));
}
