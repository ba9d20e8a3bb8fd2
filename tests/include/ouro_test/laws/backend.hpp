// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of a Backend (ouro/concepts/backend.hpp): every primitive is listed once, as a call on any backend, and held
// to agreement, destination and determinism; then randomness.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <functional>
#include <limits>
#include <string>

#include <ouro/backend/reference.hpp>
#include <ouro/tensor/normal.hpp>
#include <ouro_test/laws/lives.hpp>

namespace ouro_test {

/// A call of a primitive: operands (f64, with values that f32 has too, or i32), the shapes of the results, and the call
/// itself on results and operands of one backend.
struct primitive {
  std::string name;
  std::vector<ouro::tensor<ouro::reference>> in;
  std::vector<ouro::shape> out;
  bool accumulates;  ///< its results are destinations
  std::function<void(std::vector<ouro::destination> const&, std::vector<ouro::const_view> const&)> call;
};

/// The primitives of backend X on operands that are the same at each call.
template <class X>
std::vector<primitive> primitives() {
  using ouro::shape;
  using R = ouro::reference;
  using numbers = ouro::tensor<R>;
  using to = std::vector<ouro::destination> const&;
  using from = std::vector<ouro::const_view> const&;
  std::vector<primitive> list;
  std::uint64_t draws = 0;
  auto rounded = [](numbers const& x) { return x.copy(ouro::dtype::f32).copy(ouro::dtype::f64); };
  auto random = [&](shape const& dims) { return rounded(ouro::normal<R>(dims, ouro::dtype::f64, {9, draws++})); };
  auto positive = [&](shape const& dims) {
    return rounded(ouro::uniform<R>(dims, ouro::dtype::f64, {9, draws++}, 0.5, 2.0));
  };
  auto indices = [&](shape const& dims, std::int64_t below) {  // −1 among them
    std::vector<std::int32_t> v;
    ouro::random_draw const draw{9, draws++};
    for (std::int64_t i = 0; i < dims.size(); ++i)
      v.push_back(
          static_cast<std::int32_t>(draw.word(static_cast<std::uint64_t>(i)) % static_cast<std::uint64_t>(below + 1)) -
          1);
    return numbers::from(v, dims);
  };
  auto add = [&](std::string name, bool accumulates, std::vector<numbers> in, std::vector<shape> out, auto call) {
    for (auto const& x : in) name += " " + x.dims().str();
    list.push_back({name, std::move(in), std::move(out), accumulates, call});
  };

  for (auto const& dims : {shape{0}, shape{1}, shape{3, 1, 5}, shape{2, 9, 17}, shape{5, 0, 2}, shape{37, 1030}}) {
    add("fill", false, {}, {dims}, [](to y, from) { X::fill(y[0].out, 0.3); });
    add("scale", true, {random(dims)}, {dims}, [](to y, from x) { X::scale(y[0], x[0], 0.3); });
    add("copy", true, {random(dims)}, {dims}, [](to y, from x) { X::copy(y[0].out, x[0], y[0].accumulate); });
    add("sum_of_squares", false, {random(dims), random({5, 3}), random({1})}, {{4}}, [](to y, from x) {
      ouro::tensor<X> sum({1}, ouro::dtype::f64);
      for (std::size_t n = 0; n <= 3; ++n) {
        X::sum_of_squares(sum.write(), x.data(), n);
        X::copy(y[0].out.slice(0, static_cast<std::int64_t>(n), 1), sum.read(), false);
      }
    });
    add("scale_by", true, {random(dims), random({5, 3}), random({1})}, {dims, {5, 3}}, [](to y, from x) {
      std::array<ouro::destination, 2> const places{y[0], y[1]};
      for (std::size_t n = 0; n <= 2; n += 2) X::scale_by(places.data(), x.data(), n, x[2]);
    });
    for (int i = 0; i <= static_cast<int>(ouro::unary::relu); ++i) {
      auto const f = static_cast<ouro::unary>(i);
      add("map " + std::to_string(i), false, {positive(dims)}, {dims},
          [f](to y, from x) { X::map(f, y[0].out, x[0]); });
      add("map_gradient " + std::to_string(i), true, {positive(dims), random(dims)}, {dims},
          [f](to y, from x) { X::map_gradient(f, y[0], x[0], x[1]); });
    }
    shape ones = dims;
    for (int i = 0; i < ones.rank(); ++i) ones[i] = 1;
    for (auto const& other : {dims, shape{dims[-1]}, ones, dims.with(0, 1)})
      for (int i = 0; i <= static_cast<int>(ouro::binary::divide); ++i)
        add("combine " + std::to_string(i), true, {random(dims), positive(other)}, {dims},
            [f = static_cast<ouro::binary>(i), dims](to y, from x) { X::combine(f, y[0], x[0], x[1].expand(dims)); });
    for (auto const& kept : {ones, dims.with(0, 1), dims.with(-1, 1)})
      add("reduce_sum to " + kept.str(), true, {random(dims)}, {kept},
          [](to y, from x) { X::reduce_sum(y[0], x[0], 0.1); });
    add("dropout", true, {random(dims)}, {dims}, [](to y, from x) { X::dropout(y[0], x[0], 0.3, {4, 5}); });
    add("adamw", false,
        {random(dims), random(dims), positive(dims), random({3, 7}), random({3, 7}), positive({3, 7}), random(dims),
         random({3, 7})},
        {dims, dims, dims, {3, 7}, {3, 7}, {3, 7}}, [](to y, from x) {
          for (std::size_t i = 0; i < 6; ++i) X::copy(y[i].out, x[i], false);
          ouro::adamw_step step{.learning_rate = 0.01,
                                .weight_decay = 0.1,
                                .correction1 = 0.2,
                                .correction2 = 0.1,
                                .gradient_scale = 0.7};
          ouro::adamw_update updates[2] = {{y[0].out, y[1].out, y[2].out, x[6], step},
                                           {y[3].out, y[4].out, y[5].out, x[7], step}};
          updates[1].step.correction1 = 0.5;
          X::adamw(updates, 2);
        });
  }
  add("copy transposed", true, {random({4, 9, 70})}, {{70, 9, 4}},
      [](to y, from x) { X::copy(y[0].out, x[0].transpose(0, 2), y[0].accumulate); });

  for (auto const& d : {shape{0, 3, 4}, shape{3, 0, 4}, shape{3, 4, 0}, shape{1, 1, 1}, shape{1, 70, 33},
                        shape{65, 1, 9}, shape{130, 90, 120}})
    for (bool ta : {false, true})
      for (bool tb : {false, true})
        add(std::string("matmul ") + (ta ? "t" : "n") + (tb ? "t" : "n"), true,
            {random(ta ? shape{d[1], d[0]} : shape{d[0], d[1]}), random(tb ? shape{d[2], d[1]} : shape{d[1], d[2]})},
            {{d[0], d[2]}}, [ta, tb](to y, from x) {
              X::matmul(y[0], ta ? x[0].transpose(0, 1) : x[0], tb ? x[1].transpose(0, 1) : x[1], 0.1);
            });
  for (std::int64_t batches : {0, 1, 3})
    add("matmul batched", true, {random({batches, 5, 7}), random({batches, 7, 9})}, {{batches, 5, 9}},
        [](to y, from x) { X::matmul(y[0], x[0], x[1], 0.3); });

  for (auto const& d : {shape{0, 4}, shape{1, 1}, shape{1, 7}, shape{33, 1}, shape{5, 65}, shape{700, 48}}) {
    shape const rows{d[0]}, width{d[1]};
    auto const x = random(d), w = random(width), b = random(width), dy = random(d);
    numbers y(d, ouro::dtype::f64), first(rows, ouro::dtype::f64), second(rows, ouro::dtype::f64);
    add("layer_norm", false, {x, w, b}, {d, rows, rows},
        [](to o, from i) { X::layer_norm(o[0].out, o[1].out, o[2].out, i[0], i[1], i[2], 1e-2); });
    R::layer_norm(y.write(), first.write(), second.write(), x.read(), w.read(), b.read(), 1e-2);
    add("layer_norm_gradient", true, {x, rounded(first), rounded(second), w, dy}, {d, width, width},
        [](to o, from i) { X::layer_norm_gradient(o[0], o[1], o[2], i[0], i[1], i[2], i[3], i[4]); });
    add("unit", false, {x}, {d, rows}, [](to o, from i) { X::unit(o[0].out, o[1].out, i[0], 1e-5); });
    R::unit(y.write(), first.write(), x.read(), 1e-5);
    add("unit_gradient", true, {rounded(y), positive(rows), dy}, {d},
        [](to o, from i) { X::unit_gradient(o[0], i[0], i[1], i[2], 1e-5); });
    add("softmax", false, {x}, {d}, [](to o, from i) { X::softmax(o[0].out, i[0]); });
    add("softmax_gradient", true, {x, dy}, {d}, [](to o, from i) { X::softmax_gradient(o[0], i[0], i[1]); });
    auto const target = indices(rows, d[1]);
    add("cross_entropy", false, {x, target}, {rows}, [](to o, from i) { X::cross_entropy(o[0].out, i[0], i[1]); });
    add("cross_entropy_gradient", true, {x, target, random(rows)}, {d},
        [](to o, from i) { X::cross_entropy_gradient(o[0], i[0], i[1], i[2]); });
    auto const index = indices({d[0], 3}, 6);
    add("gather_sum", false, {random({3, 6, d[1]}), index, random(width)}, {d, d}, [](to o, from i) {
      X::gather_sum(o[0].out, i[0], i[1], {});
      X::gather_sum(o[1].out, i[0], i[1], i[2]);
    });
    add("scatter_sum", true, {index, dy}, {{3, 6, d[1]}}, [](to o, from i) { X::scatter_sum(o[0], i[0], i[1]); });
    if (d[0] == 0) continue;  // no rows have no mean
    add("column_moments", false, {x}, {width, width},
        [](to o, from i) { X::column_moments(o[0].out, o[1].out, i[0]); });
    add("batch_norm", false, {x, w, b}, {d, width, width},
        [](to o, from i) { X::batch_norm(o[0].out, o[1].out, o[2].out, i[0], i[1], i[2], 1e-2); });
    add("batch_norm_gradient", true, {x, random(width), positive(width), w, dy}, {d, width, width},
        [](to o, from i) { X::batch_norm_gradient(o[0], o[1], o[2], i[0], i[1], i[2], i[3], i[4], 1e-2); });
  }

  for (auto const& d :
       {shape{0, 2, 3, 2}, shape{1, 1, 1, 1}, shape{2, 7, 7, 4}, shape{1, 1, 40, 3}, shape{2, 90, 90, 5}})
    for (double rate : {0.0, 0.2}) {
      std::int64_t const heads = 2, width = heads * d[3];
      shape const q{d[0], d[1], width}, k{d[0], d[2], width};
      ouro::attention_rule const rule{
          .heads = heads, .scale = 0.4, .sees = {d[2] / 3, d[2] / 3, 0}, .dropout = rate, .draw = {3, 5}};
      auto const qs = random(q), kv = random({d[0], d[2], 2 * width}), dy = random(q);
      auto keys = [width](ouro::const_view x) { return x.slice(2, 0, width); };
      auto values = [width](ouro::const_view x) { return x.slice(2, width, width); };
      if (rule.sees.prefix == 0 && d[2] < 3 && d[2] > 1) continue;
      add("attention", false, {qs, kv}, {q, {d[0], heads, d[1]}},
          [=](to o, from i) { X::attention(o[0].out, o[1].out, i[0], keys(i[1]), values(i[1]), rule); });
      numbers y(q, ouro::dtype::f64), lse({d[0], heads, d[1]}, ouro::dtype::f64);
      R::attention(y.write(), lse.write(), qs.read(), keys(kv.read()), values(kv.read()), rule);
      add("attention_gradient", true, {qs, kv, rounded(y), rounded(lse), dy}, {q, k, k}, [=](to o, from i) {
        X::attention_gradient(o[0], o[1], o[2], i[0], keys(i[1]), values(i[1]), i[2], i[3], i[4], rule);
      });
    }
  return list;
}

/// The results of a primitive on a backend: `only` one of them, or all (−1). They hold `before` at first: what is added
/// to, or what must be overwritten.
template <class X>
std::vector<ouro::tensor<X>> results(primitive const& p, ouro::dtype type, double before, bool accumulate,
                                     int only = -1) {
  std::vector<ouro::tensor<X>> in, out;
  for (auto const& x : p.in)
    in.push_back(ouro::is_floating(x.type()) ? ouro::tensor<X>::from(x.template values<double>(), x.dims(), type)
                                             : ouro::tensor<X>::from(x.template values<std::int32_t>(), x.dims()));
  for (auto const& dims : p.out) out.push_back(ouro::tensor<X>::full(dims, type, before));
  std::vector<ouro::const_view> reads;
  std::vector<ouro::destination> writes;
  for (auto const& x : in) reads.push_back(x.read());
  for (std::size_t i = 0; i < out.size(); ++i)
    writes.push_back(only < 0 || static_cast<std::size_t>(only) == i ? ouro::destination(out[i].write(), accumulate)
                                                                     : ouro::destination());
  p.call(writes, reads);
  return out;
}

/// Holds B to the laws in one dtype. Call it at each number of threads, where a backend has threads.
template <class B>
void backend_laws(ouro::dtype type) {
  static_assert(ouro::Backend<B>);
  using R = ouro::reference;
  // Sums of up to a thousand terms of about 1, in any order, measured against the largest result or 1.
  double const near = type == ouro::dtype::f64 ? 1e-12 : 3e-5;
  double const nothing = std::numeric_limits<double>::quiet_NaN();
  auto const own = primitives<B>();
  auto const oracle = primitives<R>();
  for (std::size_t n = 0; n < own.size(); ++n) {
    auto const& p = own[n];
    INFO(p.name);
    auto const fresh = results<B>(p, type, nothing, false);
    auto const exact = results<R>(oracle[n], ouro::dtype::f64, nothing, false);
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      INFO("result " << i);
      CHECK(relative_error(fresh[i], exact[i], 1.0) < near);  // agreement
    }
    CHECK(same_bits(results<B>(p, type, nothing, false), fresh));  // determinism
    if (!p.accumulates) continue;
    auto const added = results<B>(p, type, 0.75, true);
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      INFO("result " << i);
      ouro::tensor<R> sum(p.out[i], ouro::dtype::f64);
      R::fill(sum.write(), 0.75);
      R::copy(sum.write(), ouro::tensor<R>::from(fresh[i].template values<double>(), p.out[i]).read(), true);
      CHECK(relative_error(added[i], sum, 1.0) < near);  // destination
      // An absent destination is skipped, and the others are as they were.
      if (fresh.size() > 1)
        CHECK(relative_error(results<B>(p, type, nothing, false, static_cast<int>(i))[i], fresh[i], 1.0) < near);
    }
  }

  // Randomness: number i of a draw is random_draw's number i, but for the rounding of a logarithm, a root and a cosine.
  ouro::dropout_mask const quarter(0.25), half(0.5);
  double const ulps = type == ouro::dtype::f64 ? 1e-14 : 2e-6;
  for (std::int64_t n : {0, 1, 5, 4099}) {
    ouro::random_draw const draw{11, static_cast<std::uint64_t>(n)};
    auto const normal = ouro::normal<B>({n}, type, draw).template values<double>();
    auto const uniform = ouro::uniform<B>({n}, type, draw, -2.0, 3.0).template values<double>();
    ouro::tensor<B> kept({n}, type);
    B::dropout(kept.write(), ouro::tensor<B>::full({n}, type, 3.0).read(), 0.25, draw);
    auto const mask = kept.template values<double>();
    int wrong = 0;
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(n); ++i) {
      wrong += !(std::abs(normal[i] - ouro::standard_normal(draw, i)) < ulps * 4);
      wrong += !(std::abs(uniform[i] - (-2.0 + 5.0 * draw.uniform(i))) < ulps);
      wrong += !(std::abs(mask[i] - (quarter.keeps(draw, i) ? 4.0 : 0.0)) < ulps);
    }
    CHECK(wrong == 0);
  }
  // The weights an attention drops: queries of zero weigh all keys alike, and value j is the j-th unit vector.
  std::int64_t const lanes = 2, heads = 2, count = 5, width = heads * count;
  ouro::attention_rule const rule{.heads = heads, .scale = 1, .sees = {}, .dropout = 0.5, .draw = {12, 13}};
  std::vector<double> units(static_cast<std::size_t>(lanes * count * width));
  for (std::int64_t i = 0; i < lanes * count; ++i)
    for (std::int64_t h = 0; h < heads; ++h) units[static_cast<std::size_t>(i * width + h * count + i % count)] = 1;
  auto const zero = ouro::tensor<B>::zeros({lanes, count, width}, type);
  ouro::tensor<B> y({lanes, count, width}, type), lse({lanes, heads, count}, type);
  B::attention(y.write(), lse.write(), zero.read(), zero.read(), ouro::tensor<B>::from(units, zero.dims(), type).read(),
               rule);
  auto const weight = y.template values<double>();
  int wrong = 0;
  for (std::int64_t n = 0; n < lanes; ++n)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t j = 0; j < count; ++j) {
          auto const place = static_cast<std::uint64_t>(((n * heads + h) * count + i) * 32 + j);
          double const expected = half.keeps(rule.draw, place) ? 2.0 / static_cast<double>(count) : 0.0;
          wrong +=
              !(std::abs(weight[static_cast<std::size_t>((n * count + i) * width + h * count + j)] - expected) < ulps);
        }
  CHECK(wrong == 0);
}

}  // namespace ouro_test
