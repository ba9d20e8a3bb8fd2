// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Rows mixed with those before them: by operations against central differences, in one pass against the operations.
#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/ops/mix_rows.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/weigh.hpp>

using ouro::dtype;
using ouro_test::noise;
using ouro_test::pick;
using R = ouro::reference;

namespace {
template <class B>
using list = std::vector<ouro::tensor<B>>;

template <class B>
ouro::tensor<B> weighed(list<B> const& mixed) {
  auto sum = ouro_test::weigh(mixed[0], 0);
  for (std::size_t q = 1; q < mixed.size(); ++q) sum = sum + ouro_test::weigh(mixed[q], static_cast<double>(q));
  return sum;
}
/// What is mixed of rows that are stored in `type`, then the gradients of x, before and shares.
template <class B>
list<B> everything(list<B> const& in, dtype type) {
  ouro::tape<B> t;
  for (auto const& x : in) t.watch(x);
  auto const mixed = ouro::mix_rows(ouro::copied(in[0], type), ouro::copied(in[1], type), in[2]);
  list<B> out;
  for (auto const& y : mixed) out.push_back(y.detach());
  t.backward(weighed(mixed));
  for (auto const& x : in) out.push_back(t.gradient(x));
  return out;
}
}  // namespace

TEST_CASE("mix_rows: gradient by differences, and refusals") {
  list<R> const in{noise<R>({2, 3, 4}), noise<R>({2, 3, 4}), noise<R>({3, 4})};
  CHECK(ouro::gradient_error<R>(in, [](list<R> const& v) { return weighed(ouro::mix_rows(v[0], v[1], v[2])); }) < 1e-6);
  CHECK_THROWS_AS(ouro::mix_rows(in[0], noise<R>({2, 2, 4}), in[2]), ouro::error);
  CHECK_THROWS_AS(ouro::mix_rows(in[0], in[1], noise<R>({3, 5})), ouro::error);
}

TEMPLATE_LIST_TEST_CASE("mix_rows: the backends agree with the reference", "", ouro_test::accelerated) {
  TestType::need();
  INFO(TestType::name());
  using C = typename TestType::backend;
  for (int i = 0; i < 24; ++i) {
    std::int64_t const columns = i % 3 == 0 ? 16 * pick(1, 10) : pick(1, 70);
    std::int64_t const rows = i % 4 == 0 ? pick(100, 300) : pick(1, 40);
    std::int64_t const count = i % 2 == 0 ? 6 : pick(1, 8);
    bool const narrow = std::is_same_v<C, ouro::cuda> && !TestType::exact && i % 2 == 1;
    INFO(rows << " rows of " << columns << ", " << count << " shares, narrow " << narrow);
    list<R> const in{noise<R>({2, rows, columns}), noise<R>({2, rows, columns}), noise<R>({count, columns})};
    list<C> own;
    for (auto const& x : in) own.push_back(ouro::tensor<C>::from(x.values<double>(), x.dims(), TestType::type));
    auto const right = everything<R>(in, dtype::f64);
    auto const got = everything<C>(own, narrow ? dtype::bf16 : TestType::type);
    auto const again = everything<C>(own, narrow ? dtype::bf16 : TestType::type);
    for (std::size_t k = 0; k < right.size(); ++k) {
      INFO("result " << k);
      CHECK(ouro_test::relative_distance(got[k], right[k], 1e-3) < (narrow ? 2e-2 : TestType::exact ? 1e-12 : 1e-5));
      CHECK(got[k].template values<double>() == again[k].template values<double>());
    }
  }
}
