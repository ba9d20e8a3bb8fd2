// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Operands that are one value, or overlapping parts of one: its gradient is the sum of those that values of their own have.
#include <algorithm>
#include <cmath>
#include <functional>

#include <ouro/autodiff/tape.hpp>
#include <ouro/ops/batch_norm.hpp>
#include <ouro/ops/hormone_gate.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/rwkv7_scan.hpp>
#include <ouro/ops/scaled_dot_product_attention.hpp>
#include <ouro/ops/ssd_scan.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/weigh.hpp>

using ouro::shape;

namespace {

template <class B, ouro::dtype Type>
struct shared_operands {
  using tensor = ouro::tensor<B>;
  using list = std::vector<tensor>;
  using function = std::function<tensor(list const&)>;

  /// The gradient of x, of which the operands are taken by `part`: from one value, or from one each.
  static std::vector<double> gradient(tensor const& x, std::size_t operands, bool one, function const& f,
                                      std::function<tensor(tensor const&, std::size_t)> const& part) {
    ouro::tape<B> t;
    t.watch(x);
    auto const value = ouro::scale(x, 0.5);
    list in;
    for (std::size_t i = 0; i < operands; ++i) in.push_back(part(one ? value : ouro::scale(x, 0.5), i));
    t.backward(f(in));
    return t.gradient(x).template values<double>();
  }
  static void check_parts(shape const& dims, std::size_t operands, function const& f,
                          std::function<tensor(tensor const&, std::size_t)> const& part) {
    auto const x = ouro_test::noise<B>(dims, Type);
    auto const right = gradient(x, operands, false, f, part);
    auto const got = gradient(x, operands, true, f, part);
    double largest = 0;
    double worst = 0;
    for (std::size_t i = 0; i < right.size(); ++i) {
      largest = std::max(largest, std::abs(right[i]));
      worst = std::max(worst, std::abs(right[i] - got[i]));
    }
    CHECK(worst < 1e-4 * std::max(largest, 1.0));
  }
  /// Every two of the operands of one shape are one value in turn; the others stay as they are.
  static void check_pairs(char const* name, std::vector<shape> const& dims, function const& f) {
    list own;
    for (auto const& d : dims) own.push_back(ouro_test::noise<B>(d, Type));
    for (std::size_t i = 0; i < dims.size(); ++i)
      for (std::size_t j = i + 1; j < dims.size(); ++j) {
        if (!(dims[i] == dims[j])) continue;
        INFO(name << ": operands " << i << " and " << j);
        check_parts(
            dims[i], 2,
            [&](list const& two) {
              auto all = own;
              all[i] = two[0];
              all[j] = two[1];
              return f(all);
            },
            [](tensor const& x, std::size_t) { return x; });
      }
  }
};

using backends =
    decltype(std::tuple_cat(std::tuple<ouro_test::in<ouro::reference, ouro::dtype::f64>>{}, ouro_test::accelerated{}));

}  // namespace

TEMPLATE_LIST_TEST_CASE("operands that share a value have a gradient each", "", backends) {
  TestType::need();
  INFO(TestType::name());
  using B = typename TestType::backend;
  using check = shared_operands<B, TestType::type>;
  using list = typename check::list;
  auto weigh = [](auto const& y) { return ouro_test::weigh(y); };

  for (std::int64_t const rows : {8, 40}) {
    ouro::attention_rule rule;
    rule.heads = 2;
    rule.scale = 0.3;
    auto attend = [&](list const& v) { return weigh(ouro::scaled_dot_product_attention(v[0], v[1], v[2], rule)); };
    shape const d{2, rows, 16};
    check::check_pairs("attention", {d, d, d}, attend);
    check::check_parts(d, 3, attend, [](auto const& x, std::size_t) { return x; });
    check::check_parts(d, 3, attend, [&](auto const& x, std::size_t i) {  // all, and its halves
      return i == 0 ? x : ouro::slice(x, 1, i == 1 ? 0 : rows / 2, rows / 2);
    });
    check::check_parts(d, 3, attend,
                       [](auto const& x, std::size_t i) {  // columns, of which the second lie on the first
                         return ouro::slice(x, 2, i == 1 ? 4 : 0, 8);
                       });
  }
  check::check_pairs("normalize_rows", {{5, 16}, {16}, {16}},
                     [&](list const& v) { return weigh(ouro::normalize_rows(v[0], v[1], v[2])); });
  check::check_pairs("batch_norm", {{5, 16}, {16}, {16}},
                     [&](list const& v) { return weigh(ouro::batch_norm(v[0], v[1], v[2]).y); });
  check::check_pairs("matmul", {{6, 6}, {6, 6}, {6, 6}},
                     [&](list const& v) { return weigh(ouro::matmul(v[0], v[1], v[2])); });
  check::check_pairs("divide", {{6, 6}, {6, 6}}, [&](list const& v) { return weigh(ouro::divide(v[0], v[1])); });
  shape const r{2, 5, 16};
  check::check_pairs("rwkv7_scan", {r, r, r, r, r, r, {2, 2, 8, 8}}, [&](list const& v) {
    auto const o = ouro::rwkv7_scan(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
    return weigh(o.y) + weigh(o.state);
  });
  check::check_pairs("ssd_scan", {{2, 5, 4}, {2, 5, 4}, {4}, {2, 5, 16}, {2, 5, 16}, {4}, {2, 4, 1, 8}},
                     [&](list const& v) {
                       auto const o = ouro::ssd_scan(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
                       return weigh(o.y) + weigh(o.state);
                     });
  shape const gate{1, 16};
  check::check_pairs("hormone_gate", {{1, 3, 16}, {1, 1, 16}, {1, 3, 16}, {16}, {16}, {16}, gate, {16}, {16}},
                     [&](list const& v) {
                       return weigh(ouro::hormone_gate<B>({.x = v[0],
                                                           .h = v[1],
                                                           .f = v[2],
                                                           .scale = {},
                                                           .bias = v[3],
                                                           .query_weight = v[4],
                                                           .query_bias = v[5],
                                                           .gate = v[6],
                                                           .proj_weight = v[7],
                                                           .proj_bias = v[8],
                                                           .residual = v[0]}));
                     });
}
