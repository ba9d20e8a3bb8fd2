// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention of cuda on values that are stored in bf16, against the reference in f64 on the same values.
#include <cmath>

#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>

#if defined(OURO_HAS_CUDA)
namespace {
using C = ouro::cuda;
using R = ouro::reference;
using ouro::dtype;
using ouro_test::pick;

/// What is stored in what, and where rows lie.
struct storage {
  dtype y_slope = dtype::bf16;
  dtype gradients[3] = {dtype::bf16, dtype::bf16, dtype::bf16};  // of q, k and v
  bool adds[3] = {};
  std::int64_t shift = 0;  // columns before those of the operands
};
struct problem {
  std::int64_t lanes, heads, width, queries, keys;
  ouro::visibility sees;
  double dropout = 0;
};

/// (y, log-sum-exp, dq, dk, dv) of noise that bf16 holds exactly. Operands and gradients are slices of packed projections.
template <class B>
std::vector<std::vector<double>> results(problem const& c, storage const& s, bool narrow) {
  ouro::random_stream numbers(ouro::seed{7});
  std::int64_t const columns = c.heads * c.width;
  auto noise = [&](std::int64_t rows, std::int64_t parts, dtype type) {
    auto const x = ouro::normal<R>({c.lanes, rows, parts * columns + s.shift}, dtype::f32, numbers.next());
    auto const rounded = x.copy(dtype::bf16).template values<double>();
    return ouro::tensor<B>::from(rounded, x.dims(), narrow ? type : dtype::f64);
  };
  auto part = [&](auto const& x, std::int64_t n) { return x.slice(2, s.shift + n * columns, columns); };
  auto const q = noise(c.queries, 1, dtype::bf16), kv = noise(c.keys, 2, dtype::bf16);
  auto const dy = noise(c.queries, 1, s.y_slope);
  ouro::tensor<B> y({c.lanes, c.queries, columns}, narrow ? dtype::bf16 : dtype::f64);
  ouro::tensor<B> lse({c.lanes, c.heads, c.queries}, narrow ? dtype::f32 : dtype::f64);
  ouro::attention_rule const rule{.heads = c.heads,
                                  .scale = 1 / std::sqrt(static_cast<double>(c.width)),
                                  .sees = c.sees,
                                  .dropout = c.dropout,
                                  .draw = {3, 5}};
  B::attention(y.write(), lse.write(), part(q.read(), 0), part(kv.read(), 0), part(kv.read(), 1), rule);
  bool const packed = s.gradients[1] == s.gradients[2];  // dk and dv in one tensor, as a packed projection has them
  auto dq = noise(c.queries, 1, s.gradients[0]), dk = noise(c.keys, 2, s.gradients[1]),
       dv = noise(c.keys, 2, s.gradients[2]);
  B::attention_gradient({part(dq.write(), 0), s.adds[0]}, {part(dk.write(), 0), s.adds[1]},
                        {part((packed ? dk : dv).write(), 1), s.adds[2]}, part(q.read(), 0), part(kv.read(), 0),
                        part(kv.read(), 1), y.read(), lse.read(), part(dy.read(), 0), rule);
  std::vector<std::vector<double>> all;
  for (auto const& x : {y, lse, dq, dk, dv}) all.push_back(x.template values<double>());
  return all;
}

/// ‖a − b‖ / ‖b‖, where b is not taken for less than noise of a tenth.
double relative_distance(std::vector<double> const& a, std::vector<double> const& b) {
  double distance = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    distance += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  double const error = std::sqrt(distance / std::max(size, 0.01 * static_cast<double>(a.size())));
  return std::isfinite(error) ? error : INFINITY;
}

void check(problem const& c, storage const& s) {
  INFO(c.lanes << " lanes, " << c.heads << " heads of " << c.width << ", " << c.queries << " queries, " << c.keys
               << " keys, sees " << c.sees.prefix << "|" << c.sees.causal << "|" << c.sees.first << ", dropout "
               << c.dropout << ", shift " << s.shift << ", dy " << ouro::name_of(s.y_slope) << ", gradients "
               << ouro::name_of(s.gradients[0]) << " " << ouro::name_of(s.gradients[1]) << " "
               << ouro::name_of(s.gradients[2]) << ", adds " << s.adds[0] << s.adds[1] << s.adds[2]);
  auto const exact = results<R>(c, s, false);
  auto const rounded = results<C>(c, s, true);
  char const* const names[] = {"y", "log-sum-exp", "dq", "dk", "dv"};
  for (std::size_t i = 0; i < exact.size(); ++i) {
    INFO(names[i]);
    CHECK(relative_distance(rounded[i], exact[i]) < (i == 1 ? 1e-2 : 2e-2));
  }
  CHECK(results<C>(c, s, true) == rounded);
}

storage random_storage() {
  auto type = [] { return pick(0, 1) == 0 ? dtype::f32 : dtype::bf16; };
  storage s{.y_slope = type(), .gradients = {type(), type(), type()}, .adds = {}, .shift = 0};
  for (bool& add : s.adds) add = pick(0, 1) == 0;
  if (pick(0, 2) == 0) s.shift = pick(1, 9);
  return s;
}
ouro::visibility random_visibility(std::int64_t queries) {
  if (pick(0, 3) == 0) return {};
  if (pick(0, 2) == 0) return {0, queries, 0};
  std::int64_t const prefix = pick(1, queries);
  return {prefix, pick(0, queries), pick(0, 40)};
}
}  // namespace

TEST_CASE("cuda: attention of values in bf16") {
  if (!ouro::cuda_available()) SKIP(ouro::cuda_description());
  std::int64_t const widths[] = {16, 64, 128, 20, 64, 32};
  for (int i = 0; i < 48; ++i) {
    bool const is_long = i % 4 == 3;
    std::int64_t const queries = is_long ? pick(60, 130) : pick(1, 130);
    std::int64_t const keys = is_long ? pick(129, 200) : pick(1, 128);
    problem const c{.lanes = is_long ? 1 : pick(1, 2),
                    .heads = pick(1, 2),
                    .width = widths[i % 6],
                    .queries = queries,
                    .keys = keys,
                    .sees = random_visibility(queries),
                    .dropout = pick(0, 1) == 0 ? 0.0 : 0.3};
    check(c, random_storage());
  }
}

TEST_CASE("cuda: attention of values in bf16 at the edges") {
  if (!ouro::cuda_available()) SKIP(ouro::cuda_description());
  check({2, 2, 64, 1, 200, {}, 0.3}, {});  // a single query
  check({2, 2, 64, 2, 1, {}, 0.0}, {});
  check({1, 2, 20, 70, 90, {20, 50, 0}, 0.3}, {.adds = {true, true, true}});
  check({3, 2, 64, 48, 48, {0, 48, 0}, 0.1}, {});
  check({1, 2, 64, 130, 200, {60, 70, 0}, 0.3}, {.adds = {true, false, true}});
  check({1, 1, 128, 129, 128, {0, 128, 0}, 0.3}, {.adds = {true, true, false}, .shift = 8});
  check({1, 1, 64, 70, 65, {0, 65, 0}, 0.0}, {.y_slope = dtype::f32, .shift = 3});
}

// Operands in f32, whose gradients may be in bf16, whether products are rounded or not.
TEST_CASE("cuda: gradients of attention in bf16 of values in f32") {
  if (!ouro::cuda_available()) SKIP(ouro::cuda_description());
  for (auto const products : {ouro::product_precision::f32, ouro::product_precision::bf16}) {
    ouro::set_cuda_products(products);
    auto run = [&](dtype type) {
      ouro::random_stream numbers(ouro::seed{9});
      ouro::attention_rule const rule{.heads = 2, .scale = 0.2, .sees = {10, 40, 0}, .dropout = 0.1, .draw = {3, 5}};
      ouro::shape const dims{2, 70, 64};
      auto noise = [&] { return ouro::normal<C>(dims, dtype::f32, numbers.next()); };
      auto const q = noise(), k = noise(), v = noise();
      auto const dy = noise().copy(dtype::bf16).copy(type);
      ouro::tensor<C> y(dims, dtype::f32), lse({2, 2, 70}, dtype::f32), dq(dims, type), dk(dims, type), dv(dims, type);
      C::attention(y.write(), lse.write(), q.read(), k.read(), v.read(), rule);
      C::attention_gradient(dq.write(), dk.write(), dv.write(), q.read(), k.read(), v.read(), y.read(), lse.read(),
                            dy.read(), rule);
      return std::vector<ouro::tensor<C>>{dq, dk, dv};
    };
    auto const exact = run(dtype::f32);
    auto const rounded = run(dtype::bf16);
    for (std::size_t i = 0; i < exact.size(); ++i)
      CHECK(rounded[i].values<float>() == exact[i].copy(dtype::bf16).values<float>());
  }
  ouro::set_cuda_products(ouro::product_precision::f32);
}
#endif
