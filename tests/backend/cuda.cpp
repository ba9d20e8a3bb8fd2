// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What is the cuda backend's alone: its memory, values on their way to the device and back, and wide heads.
#include <catch2/catch_test_macros.hpp>

#include <ouro/backend/cuda.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/tensor/tensor.hpp>
#include <ouro_test/random.hpp>
#if defined(OURO_EMULATED_CUDA)
#include <emulated_cuda.hpp>
#endif

#if defined(OURO_HAS_CUDA)

using C = ouro::cuda;
using R = ouro::reference;
using ouro::dtype;
using ouro::shape;

namespace {
void need_device() {
  if (!ouro::cuda_available()) SKIP(ouro::cuda_description());
}
}  // namespace

TEST_CASE("cuda: every dtype goes to the device, becomes every other there, and comes back") {
  need_device();
  std::vector<double> const small{0, 1, 2.75, 3.999, 100.5, 255, 65535};
  shape const dims{static_cast<std::int64_t>(small.size())};
  for (auto from : {dtype::f64, dtype::f32, dtype::bf16, dtype::i32, dtype::u16})
    for (auto to : {dtype::f64, dtype::f32, dtype::bf16, dtype::i32, dtype::u16}) {
      INFO(ouro::name_of(from) << " to " << ouro::name_of(to));
      auto const c = ouro::tensor<C>::from(small, dims, from);
      auto const r = ouro::tensor<R>::from(small, dims, from);
      // 65535 becomes 65536 in bf16, which u16 does not hold.
      std::int64_t const fit = from == dtype::bf16 && to == dtype::u16 ? dims[0] - 1 : dims[0];
      auto moved = [&](auto const& x) {
        using B = typename std::remove_cvref_t<decltype(x)>::backend;
        ouro::tensor<B> y({fit}, to);
        B::copy(y.write(), x.read().slice(0, 0, fit), false);
        auto const once = y.template values<double>();
        B::copy(y.write().slice(0, 0, 3), x.read().slice(0, 0, 3), true);
        return std::pair(once, y.template values<double>());
      };
      CHECK(moved(c) == moved(r));
    }
}

TEST_CASE("cuda: products round their factors to what was asked for") {
  need_device();
  auto const a = ouro_test::noise<R>({70, 90});
  auto const b = ouro_test::noise<R>({90, 50});
  ouro::tensor<R> exact({70, 50}, dtype::f64);
  R::matmul(exact.write(), a.read(), b.read(), 1.0);
  auto error = [&](ouro::product_precision p, dtype type) {
    ouro::set_cuda_products(p);
    auto const x = ouro::tensor<C>::from(a.values<double>(), a.dims(), type);
    auto const y = ouro::tensor<C>::from(b.values<double>(), b.dims(), type);
    ouro::tensor<C> c({70, 50}, type);
    C::matmul(c.write(), x.read(), y.read(), 1.0);
    ouro::set_cuda_products(ouro::product_precision::f32);
    return ouro_test::relative_error(c, exact);
  };
  using enum ouro::product_precision;
  CHECK(error(f32, dtype::f32) < 1e-6);
  CHECK(error(tf32, dtype::f32) < 1e-3);
  CHECK(error(bf16, dtype::f32) < 8e-3);
  CHECK(error(bf16, dtype::f32) > 1e-4);  // or nothing was rounded
  CHECK(error(bf16, dtype::f64) < 1e-12);
}

TEST_CASE("cuda: strided values go up and come down in their order") {
  need_device();
  auto const x = ouro_test::noise<R>({3, 5, 7});
  auto const right = x.copy();
  ouro::tensor<C> y({7, 5, 3}, dtype::f64);
  C::upload(y.write().transpose(0, 2), x.read());
  ouro::tensor<R> back({3, 5, 7}, dtype::f64);
  C::download(back.write(), y.read().transpose(0, 2));
  CHECK(back.values<double>() == right.values<double>());
  // A strided, converting end on the host.
  ouro::tensor<R> turned({5, 3, 7}, dtype::f32);
  C::download(turned.write().transpose(0, 1), y.read().transpose(0, 2));
  CHECK(turned.values<float>() == [&] {
    ouro::tensor<R> t({5, 3, 7}, dtype::f32);
    R::copy(t.write().transpose(0, 1), right.read(), false);
    return t.values<float>();
  }());
}

namespace {
/// Attention and its gradients in f64 on cuda and on the reference: the largest error.
double attention_error(shape const& queries, std::int64_t keys, ouro::attention_rule const& rule) {
  auto run = [&]<class B>(std::type_identity<B>) {
    ouro::random_stream numbers(ouro::seed{static_cast<std::uint64_t>(queries.size() + keys)});
    shape const seen = queries.with(1, keys);
    auto random = [&](shape const& dims) { return ouro::normal<B>(dims, dtype::f64, numbers.next()); };
    auto const q = random(queries), k = random(seen), v = random(seen), dy = random(queries);
    std::vector<ouro::tensor<B>> out;
    for (auto const& dims : {queries, shape{queries[0], rule.heads, queries[1]}, queries, seen, seen})
      out.emplace_back(dims, dtype::f64);
    B::attention(out[0].write(), out[1].write(), q.read(), k.read(), v.read(), rule);
    B::attention_gradient(out[2].write(), out[3].write(), out[4].write(), q.read(), k.read(), v.read(), out[0].read(),
                          out[1].read(), dy.read(), rule);
    return out;
  };
  auto const c = run(std::type_identity<C>{});
  auto const r = run(std::type_identity<R>{});
  double error = 0;
  for (std::size_t i = 0; i < c.size(); ++i) error = std::max(error, ouro_test::relative_error(c[i], r[i]));
  return error;
}
}  // namespace

// Heads wider than a tile are computed in slices.
TEST_CASE("cuda: attention with wide heads") {
  need_device();
  for (std::int64_t width : {64, 65, 130, 200})
    CHECK(attention_error({2, 50, 2 * width}, 50,
                          {.heads = 2, .scale = 0.1, .sees = {20, 30, 0}, .dropout = 0.1, .draw = {3, 5}}) < 1e-12);
}

TEST_CASE("cuda: attention of long sequences, whoever sees whom") {
  need_device();
  for (ouro::visibility const sees : {ouro::visibility{},
                                      {0, 600, 0},
                                      {300, 200, 0},
                                      {300, 200, 40},
                                      {300, 200, 300},
                                      {300, 200, 450},
                                      {600, 0, 0},
                                      {100, 700, 90}})
    CHECK(attention_error({2, 600 - sees.first, 6}, 600,
                          {.heads = 2, .scale = 0.3, .sees = sees, .dropout = 0.1, .draw = {3, 5}}) < 1e-11);
  CHECK(attention_error({1, 300, 8}, 257, {.heads = 1, .scale = 0.3, .sees = {}, .draw = {}}) < 1e-11);
}

TEST_CASE("cuda: a large product in bf16 is that of rounded factors") {
  need_device();
#if defined(OURO_EMULATED_CUDA)
  constexpr std::int64_t scale = 1;
#else
  constexpr std::int64_t scale = 32;
#endif
  std::int64_t const m = 37 * scale, k = 21 * scale, n = 45 * scale;
  for (auto const& [batches, repeats] : {std::pair<std::int64_t, bool>{1, false}, {3, false}, {3, true}})
    for (bool ta : {false, true})
      for (bool tb : {false, true}) {
        auto const a = ouro_test::noise<C>(ta ? shape{batches, k, m} : shape{batches, m, k}, dtype::f32);
        auto const b = ouro_test::noise<C>(tb ? shape{batches, n, k} : shape{batches, k, n}, dtype::f32);
        auto product = [&, ta = ta, tb = tb, repeats = repeats, batches = batches](auto const& x, auto const& y) {
          auto left = x.read();
          if (repeats) left = left.slice(0, 0, 1).expand(x.dims());
          auto c = ouro::tensor<C>::full({batches, m, n}, x.type(), 0.25);
          C::matmul({c.write(), true}, ta ? left.transpose(1, 2) : left, tb ? y.read().transpose(1, 2) : y.read(), 0.5);
          return c;
        };
        auto rounded = [](auto const& x) { return x.copy(dtype::bf16).copy(dtype::f64); };
        ouro::set_cuda_products(ouro::product_precision::bf16);
        auto const found = product(a, b);
        ouro::set_cuda_products(ouro::product_precision::f32);
        CHECK(ouro_test::relative_error(found, product(rounded(a), rounded(b))) < 1e-5);
      }
}

TEST_CASE("cuda: products of operands that cuBLAS has no words for") {
  need_device();
  auto const a = ouro_test::noise<R>({4, 6, 10}, dtype::f64);
  auto const b = ouro_test::noise<R>({4, 5, 14}, dtype::f64);
  auto run = [&]<class B>(std::type_identity<B>) {
    auto const x = ouro::tensor<B>::from(a.values<double>(), a.dims());
    auto const y = ouro::tensor<B>::from(b.values<double>(), b.dims());
    auto every_second = [](auto v) {
      v.dims[2] /= 2;
      v.steps[2] = 2;
      return v;
    };
    ouro::tensor<B> z = ouro::tensor<B>::full({4, 6, 14}, dtype::f64, 0.5);
    ouro::tensor<B> one = ouro::tensor<B>::full({4, 6, 7}, dtype::f64, 0.5);
    auto const repeated = x.read().slice(0, 1, 1).expand({4, 6, 10});
    B::matmul({every_second(z.write()), true}, every_second(x.read()), every_second(y.read()), 0.5);
    B::matmul(one.write().transpose(1, 2), every_second(y.read()).transpose(1, 2),
              every_second(repeated).transpose(1, 2), 0.5);
    return std::pair(z, one);
  };
  auto const [zc, oc] = run(std::type_identity<C>{});
  auto const [zr, other] = run(std::type_identity<R>{});
  CHECK(ouro_test::relative_error(zc, zr) < 1e-14);
  CHECK(ouro_test::relative_error(oc, other) < 1e-14);
}

#if defined(OURO_EMULATED_CUDA)

TEST_CASE("cuda: exhausted memory is an exception, and all else goes on") {
  auto const before = ouro_test::noise<C>({1000}, dtype::f32);
  auto const values = before.values<float>();
  emulated_cuda::limit_memory(100'000);
  CHECK_THROWS_AS(ouro::tensor<C>({1'000'000}), std::bad_alloc);
  CHECK(ouro::tensor<C>::full({100}, dtype::f32, 2.0).values<float>() == std::vector<float>(100, 2.0F));
  emulated_cuda::limit_memory(static_cast<std::size_t>(-1));
  CHECK(before.values<float>() == values);
  CHECK_NOTHROW(ouro::tensor<C>({1'000'000}));
}

TEST_CASE("cuda: host memory given as the device's is refused with the function's name") {
  std::vector<float> host(4), other(4);
  try {
    C::upload(ouro::view(host.data(), dtype::f32, {4}), ouro::const_view(other.data(), dtype::f32, {4}));
    FAIL("accepted");
  } catch (ouro::error const& e) {
    CHECK(e.code() == ouro::errc::unavailable);
    CHECK(std::string(e.what()).find("[cuda] upload: ") == 0);
  }
}

#endif

#endif
