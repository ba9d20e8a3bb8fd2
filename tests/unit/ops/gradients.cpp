// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Every operation's gradient against central differences in f64, on random shapes with 1 and odd extents.
#include <catch2/catch_test_macros.hpp>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/batch_norm.hpp>
#include <ouro/ops/cross_entropy.hpp>
#include <ouro/ops/dropout.hpp>
#include <ouro/ops/exp.hpp>
#include <ouro/ops/gather_sum.hpp>
#include <ouro/ops/gelu.hpp>
#include <ouro/ops/log.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/normalize_rows.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/relu.hpp>
#include <ouro/ops/scaled_dot_product_attention.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/silu.hpp>
#include <ouro/ops/softmax.hpp>
#include <ouro/ops/square.hpp>
#include <ouro/ops/square_root.hpp>
#include <ouro/ops/tanh.hpp>
#include <ouro/ops/unit.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/weigh.hpp>

using R = ouro::reference;
using T = ouro::tensor<R>;
using list = std::vector<T>;
using ouro_test::noise;
using ouro_test::pick;
using ouro_test::weigh;

namespace {
constexpr int shapes = 20;
constexpr double limit = 1e-6;

}  // namespace

TEST_CASE("elementwise functions") {
  for (int i = 0; i < shapes; ++i) {
    T const x = noise<R>({pick(1, 3), pick(1, 5)});
    auto check = [&](auto f) {
      CHECK(ouro::gradient_error<R>({x}, [&](list const& v) { return weigh(f(v[0])); }) < limit);
    };
    check([](T const& v) { return ouro::gelu(v); });
    check([](T const& v) { return ouro::tanh(v); });
    check([](T const& v) { return ouro::sigmoid(v); });
    check([](T const& v) { return ouro::silu(v); });
    check([](T const& v) { return ouro::exp(v); });
    check([](T const& v) { return ouro::square(v); });
    check([](T const& v) { return ouro::square_root(ouro::exp(v)); });
    check([](T const& v) { return ouro::log(ouro::square(v) + 0.5); });
    check([](T const& v) { return 2.0 / (1.0 + ouro::exp(v)) - (v - 1.0) / 3.0; });
    check([](T const& v) { return ouro::relu(v) * v; });
    check([](T const& v) { return ouro::scale(v, -1.5); });
  }
}

TEST_CASE("arithmetic broadcasts") {
  for (int i = 0; i < shapes; ++i) {
    std::int64_t const n = pick(1, 4);
    std::int64_t const m = pick(1, 3);
    T const a = noise<R>({n, m, 3});
    for (auto const& dims :
         {ouro::shape{n, m, 3}, ouro::shape{3}, ouro::shape{1}, ouro::shape{m, 1}, ouro::shape{n, 1, 3}}) {
      T const b = noise<R>(dims);
      auto check = [&](auto f) {
        CHECK(ouro::gradient_error<R>({a, b}, [&](list const& v) { return weigh(f(v[0], v[1])); }) < limit);
        CHECK(ouro::gradient_error<R>({b, a}, [&](list const& v) { return weigh(f(v[0], v[1])); }) < limit);
      };
      check([](T const& x, T const& y) { return x + y; });
      check([](T const& x, T const& y) { return x - y; });
      check([](T const& x, T const& y) { return x * y; });
      check([](T const& x, T const& y) { return ouro::divide(x, ouro::exp(y)); });
    }
  }
  T const x = noise<R>({3, 2});
  CHECK(ouro::gradient_error<R>({x}, [](list const& v) { return weigh(v[0] * v[0] + v[0]); }) < limit);
  CHECK_THROWS_AS(noise<R>({2, 3}) + noise<R>({2, 2}), ouro::error);
}

TEST_CASE("movement") {
  for (int i = 0; i < shapes; ++i) {
    T const x = noise<R>({pick(1, 3), pick(2, 5), pick(1, 4)});
    T const y = noise<R>({x.dim(0), pick(1, 3), x.dim(2)});
    CHECK(ouro::gradient_error<R>({x, y}, [](list const& v) {
            auto const c = ouro::concat<R>({v[0], v[1], v[0]}, 1);
            return weigh(ouro::transpose(ouro::slice(c, 1, 1, c.dim(1) - 1), 0, 2)) + weigh(ouro::reverse(c, 1)) +
                   weigh(ouro::reshape(v[0], {v[0].size()}));
          }) < limit);
    T const row = noise<R>({1, x.dim(2)});
    CHECK(ouro::gradient_error<R>({row}, [&](list const& v) { return weigh(ouro::expand(v[0], x.dims())); }) < limit);
    for (int axis = 0; axis < 3; ++axis)
      CHECK(ouro::gradient_error<R>({x}, [&](list const& v) {
              return weigh(ouro::sum(v[0], axis)) + weigh(ouro::square(ouro::mean(v[0], axis)));
            }) < limit);
  }
  // Slices of slices, that overlap, whose gradients are computed in place or handed over, beside the whole.
  CHECK(ouro::gradient_error<R>({noise<R>({4, 6}), noise<R>({3, 2})}, [](list const& v) {
          auto const rows = ouro::slice(v[0], 0, 1, 3);
          auto const part = ouro::slice(ouro::slice(rows, 0, 0, 2), -1, 1, 3);
          return weigh(ouro::matmul(part, ouro::slice(rows, -1, 0, 2))) +
                 weigh(ouro::square(ouro::slice(v[0], -1, 2, 4)) * ouro::slice(v[0], -1, 0, 4)) +
                 weigh(ouro::square(ouro::slice(v[0], 0, 2, 2))) + weigh(ouro::matmul(part, v[1])) +
                 weigh(ouro::reshape(rows, {18})) + weigh(v[0]);
        }) < limit);
  CHECK_THROWS_AS(ouro::slice(noise<R>({2, 3}), 1, 2, 2), ouro::error);
  CHECK_THROWS_AS(ouro::reshape(noise<R>({2, 3}), {5}), ouro::error);
}

TEST_CASE("products") {
  for (int i = 0; i < shapes; ++i) {
    std::int64_t const m = pick(1, 5);
    std::int64_t const k = pick(1, 4);
    std::int64_t const n = pick(1, 5);
    CHECK(ouro::gradient_error<R>({noise<R>({m, k}), noise<R>({n, k})}, [](list const& v) {
            return weigh(ouro::matmul(v[0], ouro::transpose(v[1], 0, 1)));
          }) < limit);
    CHECK(ouro::gradient_error<R>({noise<R>({2, m, k}), noise<R>({2, k, n})},
                                  [](list const& v) { return weigh(ouro::matmul(v[0], v[1])); }) < limit);
    CHECK(ouro::gradient_error<R>({noise<R>({2, m, k}), noise<R>({2, k, n}), noise<R>({i % 2 + 1, 1, n})},
                                  [](list const& v) { return weigh(ouro::matmul(v[0], v[1], v[2])); }) < limit);
    CHECK(ouro::gradient_error<R>({noise<R>({2, m, k}), noise<R>({n, k}), noise<R>({n})},
                                  [](list const& v) { return weigh(ouro::linear_map(v[0], v[1], v[2])); }) < limit);
  }
  try {
    static_cast<void>(ouro::matmul(noise<R>({8, 64}), noise<R>({32, 128})));
    FAIL("accepted");
  } catch (ouro::error const& e) {
    CHECK(std::string(e.what()) == "[matmul] inner dimensions must agree, got (8,64) and (32,128)");
    CHECK(e.code() == ouro::errc::shape);
  }
  CHECK_THROWS_AS(ouro::matmul(noise<R>({2, 3}), noise<R>({3, 4}), noise<R>({3, 4})), ouro::error);
  CHECK_THROWS_AS(ouro::matmul(noise<R>({2, 3}), noise<R>({3, 4}), noise<R>({4})), ouro::error);
}

TEST_CASE("normalisations") {
  for (int i = 0; i < shapes; ++i) {
    std::int64_t const width = pick(3, 7);
    T const x = noise<R>({pick(3, 6), width});
    T const w = noise<R>({width});
    T const b = noise<R>({width});
    CHECK(ouro::gradient_error<R>(
              {x, w, b}, [](list const& v) { return weigh(ouro::normalize_rows(v[0], v[1], v[2])); }, 1e-4) < limit);
    CHECK(ouro::gradient_error<R>(
              {x, w, b}, [](list const& v) { return weigh(ouro::batch_norm(v[0], v[1], v[2]).y); }, 1e-4) < limit);
    auto const moments = [](list const& v) {
      auto const m = ouro::column_moments(v[0]);
      return weigh(m.mean) + weigh(m.variance * m.variance);
    };
    CHECK(ouro::gradient_error<R>({x}, moments) < limit);
    CHECK(ouro::gradient_error<R>({x}, [](list const& v) { return weigh(ouro::unit(v[0])); }) < limit);
    CHECK(ouro::gradient_error<R>({x}, [](list const& v) { return weigh(ouro::softmax(v[0])); }) < limit);
  }
  auto const zero = ouro::unit(T::zeros({2, 3}, ouro::dtype::f64)).values<double>();
  CHECK(std::all_of(zero.begin(), zero.end(), [](double v) { return v == 0; }));
}

TEST_CASE("attention") {
  for (int i = 0; i < shapes; ++i) {
    std::int64_t const heads = pick(1, 3);
    std::int64_t const width = heads * pick(1, 3);
    std::int64_t const rows = pick(1, 6);
    std::int64_t const lanes = pick(1, 2);
    ouro::attention_rule rule{
        .heads = heads, .scale = 0.7, .sees = {}, .dropout = i % 3 == 0 ? 0.3 : 0.0, .draw = {3, 5}};
    std::int64_t const prefix = pick(1, rows);
    if (i % 2 == 0) rule.sees = {prefix, pick(0, rows - prefix), 0};
    // Operands are strided slices of one packed projection, as in a network.
    CHECK(ouro::gradient_error<R>({noise<R>({lanes, rows, 3 * width})}, [&](list const& v) {
            auto part = [&](int n) { return ouro::slice(v[0], 2, n * width, width); };
            return weigh(ouro::scaled_dot_product_attention(part(0), part(1), part(2), rule));
          }) < limit);
    rule.sees = {};
    CHECK(ouro::gradient_error<R>(
              {noise<R>({lanes, 3, width}), noise<R>({lanes, rows, width}), noise<R>({lanes, rows, width})},
              [&](list const& v) { return weigh(ouro::scaled_dot_product_attention(v[0], v[1], v[2], rule)); }) <
          limit);
  }
}

TEST_CASE("attention of parts of one tensor, however they lie in it") {
  constexpr std::int64_t width = 4;
  ouro::attention_rule const rule{.heads = 2, .scale = 0.7, .sees = {}, .draw = {}};
  auto error = [&](std::int64_t parts, auto const& attend) {
    return ouro::gradient_error<R>({noise<R>({2, 3, parts * width})}, [&](list const& v) {
      auto part = [&](std::int64_t n, std::int64_t count = 1) {
        return ouro::slice(v[0], 2, n * width, count * width);
      };
      return weigh(attend(part, v[0]));
    });
  };
  auto look = [&](T const& q, T const& k, T const& v) { return ouro::scaled_dot_product_attention(q, k, v, rule); };
  auto half = [&](T const& x, int n) { return ouro::slice(x, 2, n * width, width); };
  CHECK(error(3, [&](auto const& part, T const&) { return look(part(2), part(0), part(1)); }) < limit);
  CHECK(error(3, [&](auto const& part, T const&) {  // keys and values are parts of a part
          auto const both = part(1, 2);
          return look(part(0), half(both, 0), half(both, 1));
        }) < limit);
  CHECK(error(2, [&](auto const& part, T const&) { return look(part(0), part(0), part(1)); }) < limit);
  CHECK(error(2, [&](auto const& part, T const&) {
          auto const both = part(0);
          return look(both, both, part(1));
        }) < limit);
  CHECK(error(4, [&](auto const& part, T const&) { return look(part(0), part(1), part(3)); }) < limit);
  CHECK(error(3, [&](auto const& part, T const& whole) {  // the whole has a gradient before, or gets more after
          auto const y = look(part(0), part(1), part(2));
          return y + ouro::slice(ouro::tanh(whole), 2, 1, width) + ouro::gelu(part(1));
        }) < limit);
  CHECK(error(3, [&](auto const& part, T const&) {
          auto const y = look(part(0), part(1), part(2));
          return look(y, part(1), part(2)) + look(part(2), y, part(0));
        }) < limit);
}

TEST_CASE("attention equals its composition") {
  T const q = noise<R>({1, 4, 3});
  T const k = noise<R>({1, 5, 3});
  T const v = noise<R>({1, 5, 3});
  auto const y = ouro::scaled_dot_product_attention(q, k, v, {.heads = 1, .scale = 0.5, .sees = {}, .draw = {}});
  auto const p = ouro::softmax(ouro::scale(ouro::matmul(q, ouro::transpose(k, 1, 2)), 0.5));
  CHECK(ouro_test::relative_error(y, ouro::matmul(p, v)) < 1e-14);
}

TEST_CASE("tables, losses and dropout") {
  for (int i = 0; i < shapes; ++i) {
    std::int64_t const rows = pick(1, 5);
    std::vector<std::int32_t> index;
    std::vector<std::int32_t> targets;
    for (std::int64_t r = 0; r < rows; ++r) {
      for (int k = 0; k < 2; ++k) index.push_back(static_cast<std::int32_t>(pick(-1, 3)));
      targets.push_back(static_cast<std::int32_t>(pick(-1, 4)));
    }
    auto const at = T::from(index, {rows, 2});
    CHECK(ouro::gradient_error<R>({noise<R>({2, 4, 3})},
                                  [&](list const& v) { return weigh(ouro::gather_sum(v[0], at)); }) < limit);
    CHECK(ouro::gradient_error<R>({noise<R>({2, 4, 3}), noise<R>({3})},
                                  [&](list const& v) { return weigh(ouro::gather_sum(v[0], at, v[1])); }) < limit);
    auto const labels = T::from(targets, {rows});
    CHECK(ouro::gradient_error<R>({noise<R>({rows, 5})},
                                  [&](list const& v) { return weigh(ouro::cross_entropy(v[0], labels)); }) < limit);
    CHECK(ouro::gradient_error<R>({noise<R>({rows, 7})}, [&](list const& v) {
            return weigh(ouro::dropout(v[0], 0.4, {9, 2}));
          }) < limit);
  }
  auto const y = ouro::dropout(T::full({100000}, ouro::dtype::f64, 1.0), 0.25, {1, 2}).values<double>();
  auto const dropped = std::count(y.begin(), y.end(), 0.0);
  CHECK(dropped > 24500);
  CHECK(dropped < 25500);
}
