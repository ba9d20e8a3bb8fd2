// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What is the cuda backend's alone: its memory, values on their way to the device and back, and wide heads.
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <string>

#include <ouro/autodiff/settle.hpp>
#include <ouro/autodiff/tape.hpp>
#include <ouro/backend/cuda.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/cross_entropy.hpp>
#include <ouro/ops/gather_sum.hpp>
#include <ouro/ops/gelu.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/tensor/tensor.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/used_again.hpp>
#if defined(OURO_EMULATED_CUDA)
#include <emulated_cuda.hpp>
#endif

#if defined(OURO_HAS_CUDA)

using C = ouro::cuda;
using R = ouro::reference;
using ouro::dtype;
using ouro::shape;
using ouro_test::need_device;

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

TEST_CASE("cuda: a list of tensors is stored in bf16 as each of them is") {
  need_device();
  for (std::int64_t least : {1, 4}) {  // with an odd one among them, and with whole packs alone
    std::vector<ouro::tensor<C>> x, y;
    std::vector<ouro::view> places;
    std::vector<ouro::const_view> list;
    for (std::int64_t n : {3, 0, 4096, 4099}) {
      x.push_back(ouro_test::noise<C>({n * least}, dtype::f32));
      y.emplace_back(shape{n * least}, dtype::bf16);
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      places.push_back(y[i].write());
      list.push_back(x[i].read());
    }
    C::narrow(places.data(), list.data(), list.size());
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(y[i].values<float>() == x[i].copy(dtype::bf16).values<float>());
  }
  C::narrow(nullptr, nullptr, 0);
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
  CHECK(error(tf32, dtype::f32) > 1e-5);  // or nothing was rounded
  CHECK(error(bf16, dtype::f32) < 8e-3);
  CHECK(error(bf16, dtype::f32) > 1e-4);
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

namespace {
/// Compares what f(backend, tensor) leaves in a tensor of `dims` on cuda, in f32, and on the reference, in f64 unless
/// nothing may be different.
template <class F>
void check_same(shape const& dims, double limit, F const& f) {
  auto run = [&]<class B>(std::type_identity<B> backend) {
    dtype const type = std::is_same_v<B, R> && limit > 0 ? dtype::f64 : dtype::f32;
    ouro::tensor<B> y = ouro::tensor<B>::full(dims, type, 0.25);
    f(backend, y);
    return y;
  };
  auto const c = run(std::type_identity<C>{});
  auto const again = run(std::type_identity<C>{});
  CHECK(c.template values<float>() == again.template values<float>());
  CHECK(ouro_test::relative_error(c, run(std::type_identity<R>{}), 1.0) <= limit);
}
template <class B>
ouro::tensor<B> numbers(shape const& dims, std::uint64_t seed = 3, dtype type = dtype::f32) {
  ouro::random_stream stream(ouro::seed{seed});
  auto const x = ouro::normal<R>(dims, dtype::f32, stream.next());
  return ouro::tensor<B>::from(x.template values<float>(), dims, type);
}
}  // namespace

TEST_CASE("cuda: elements in packs and one by one, in rows of every length, from every place") {
  need_device();
  for (std::int64_t width : {1, 2, 3, 4, 5, 7, 8, 16, 33, 64})
    for (std::int64_t start : {0, 1, 4})
      for (std::int64_t pitch : {width + 4, width + 12 - width % 4, width}) {
        INFO("width " << width << ", from " << start << ", pitch " << pitch);
        std::int64_t const from = pitch == width ? 0 : start;
        std::int64_t const rows = 70;
        auto columns = [&](auto const& v) { return v.slice(1, from, width); };
        check_same({rows, pitch}, 0, [&]<class B>(std::type_identity<B>, ouro::tensor<B>& y) {
          auto const x = numbers<B>({rows, pitch});
          auto const bias = numbers<B>({pitch}, 5);
          B::copy(columns(y.write()), columns(x.read()), false);
          B::copy(columns(y.write()), columns(x.read()), true);
          B::combine(ouro::binary::add, {columns(y.write()), true}, columns(x.read()),
                     bias.read().slice(0, 0, width).expand({rows, width}));
          B::combine(ouro::binary::multiply, columns(y.write()), x.read().slice(1, 0, 1).expand({rows, width}),
                     columns(y.read()));
        });
        check_same({rows, pitch}, 0, [&]<class B>(std::type_identity<B>, ouro::tensor<B>& y) {
          ouro::tensor<B> narrow = ouro::tensor<B>::zeros({rows, pitch}, dtype::bf16);
          B::copy(columns(narrow.write()), columns(numbers<B>({rows, pitch}).read()), false);
          B::copy(columns(narrow.write()), columns(numbers<B>({rows, pitch}, 7).read()), true);
          B::copy(columns(narrow.write()), columns(narrow.copy().read()), true);
          B::copy(columns(y.write()), columns(narrow.read()), true);
          B::fill(columns(narrow.write()), 3.0);
          B::copy(y.write(), narrow.read(), true);
        });
      }
  // More packs than threads, and (on the emulated device) more elements than one call takes.
  for (auto const& dims : {shape{70, 1000}, shape{40, 33, 53}, shape{3, 5, 7, 11, 61}, shape{70001}})
    check_same(dims, 0, [&]<class B>(std::type_identity<B>, ouro::tensor<B>& y) {
      B::copy(y.write(), numbers<B>(dims).read(), true);
      B::scale({y.write(), true}, numbers<B>(dims, 5).read(), 0.5);
      B::fill(y.write().slice(0, 1, 1), -2.0);
    });
}

TEST_CASE("cuda: dropout in packs and one by one") {
  need_device();
  for (std::int64_t size : {1, 3, 8, 13, 1001, 2100})
    for (std::int64_t start : {0, 1, 2, 4})
      for (bool add : {false, true}) {
        INFO(size << " elements from " << start);
        check_same({size + start}, 0, [&]<class B>(std::type_identity<B>, ouro::tensor<B>& y) {
          auto const x = numbers<B>({size + start});
          B::dropout({y.write().slice(0, start, size), add}, x.read().slice(0, start, size), 0.3, {5, 9});
        });
      }
}

TEST_CASE("cuda: sums of few and many, narrow and wide, whole and in parts") {
  need_device();
  for (auto const& dims : {shape{1, 1}, shape{3, 2}, shape{5000, 3}, shape{5000, 12}, shape{700, 132}, shape{2, 9000},
                           shape{2000, 33}, shape{40, 1700}, shape{1, 70000}, shape{300, 4}, shape{0, 5}})
    for (std::int64_t start : {0, 1})
      for (auto const& to : {dims.with(0, 1), dims.with(1, 1), shape{1, 1}})
        for (bool add : {false, true}) {
          INFO(dims.str() << " to " << to.str() << ", from " << start);
          check_same(to, 1e-6, [&]<class B>(std::type_identity<B>, ouro::tensor<B>& y) {
            auto const x = numbers<B>({dims[0], dims[1] + start}, 3, y.type());
            B::reduce_sum({y.write(), add}, x.read().slice(1, start, dims[1]), 0.5);
          });
        }
  // Sums over the middle, over both ends, and into turned results.
  shape const dims{6, 150, 20};
  for (auto const& to : {dims.with(1, 1), shape{1, 150, 1}, dims.with(0, 1), dims.with(2, 1)})
    check_same(to, 1e-6, [&]<class B>(std::type_identity<B>, ouro::tensor<B>& y) {
      B::reduce_sum(y.write(), numbers<B>(dims, 3, y.type()).read(), 2.0);
    });
  check_same({20, 150, 1}, 1e-6, [&]<class B>(std::type_identity<B>, ouro::tensor<B>& y) {
    B::reduce_sum({y.write().transpose(0, 2), true}, numbers<B>(dims, 3, y.type()).read(), 2.0);
  });
}

namespace {
/// scatter_sum for rows that name what entry(i) says, and the look-up of its result.
template <class F>
void check_tables(std::int64_t tables, std::int64_t entries, std::int64_t rows, std::int64_t width, F const& entry) {
  INFO(rows << " rows of " << width << " in " << tables << " tables of " << entries);
  std::vector<std::int32_t> named;
  for (std::int64_t i = 0; i < rows * tables; ++i) named.push_back(static_cast<std::int32_t>(entry(i)));
  for (bool add : {false, true}) {
    auto scatter = [&]<class B>(std::type_identity<B>, ouro::tensor<B>& dtable) {
      auto const dy = numbers<B>({rows, width}, 3, dtable.type());
      B::scatter_sum({dtable.write(), add}, ouro::tensor<B>::from(named, {rows, tables}).read(), dy.read());
    };
    check_same({tables, entries, width}, 1e-6, scatter);
  }
  check_same({rows, width}, 1e-6, [&]<class B>(std::type_identity<B>, ouro::tensor<B>& y) {
    auto const table = numbers<B>({tables, entries, width}, 3, y.type());
    B::gather_sum(y.write(), table.read(), ouro::tensor<B>::from(named, {rows, tables}).read(), {});
  });
}
}  // namespace

TEST_CASE("cuda: tables and their gradient, whatever rows name") {
  need_device();
  for (std::int64_t rows : {0, 1, 31, 32, 33, 700, 2600})
    for (std::int64_t width : {1, 4, 6, 36}) {
      std::int64_t const tables = rows == 700 ? 9 : 1;
      check_tables(tables, 50, rows, width, [](std::int64_t) { return 49; });
      check_tables(tables, 50, rows, width, [](std::int64_t) { return -1; });
      check_tables(tables, 50, rows, width, [](std::int64_t i) { return i % 7 == 0 ? i * 31 % 50 : 17; });
      check_tables(tables, 50, rows, width, [](std::int64_t i) { return i * i * 13 % 51 - 1; });
      check_tables(tables, 50, rows, width, [](std::int64_t i) { return i / 32 % 50; });
    }
  check_tables(2, 1100, 1000, 8, [](std::int64_t i) { return i * 97 % 1101 - 1; });  // more entries than threads
  check_tables(1, 5, 300, 300, [](std::int64_t i) { return i % 5; });
}

namespace {

/// What eight rounds of the same calls leave behind, with other numbers in each: uploads, factors, draws, and products
/// that from the fourth round on are twice as many.
std::vector<double> rounds_of_calls(bool graphs) {
  ouro::set_cuda_graphs(graphs);
  std::vector<float> factors;
  for (std::uint64_t i = 0; i < 48 * 64; ++i)
    factors.push_back(static_cast<float>(ouro::random_draw{5, 6}.uniform(i)) - 0.5F);
  auto const a = ouro::tensor<C>::from(factors, {48, 64});
  ouro::tensor<C> x({64, 48}, dtype::f32), y({64, 48}, dtype::f32), c({48, 48}, dtype::f32), kept({48, 48}, dtype::f32);
  ouro::tensor<C> sums({1, 48}, dtype::f32), squares({48, 48}, dtype::f32);
  C::fill(kept.write(), 0);
  std::vector<double> said;
  for (int round = 0; round < 8; ++round) {
    std::vector<float> values(64 * 48);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 7 + round) % 11) - 5;
    C::upload(x.write(), ouro::const_view(values.data(), dtype::f32, {64, 48}));
    for (int i = 0; i < 12; ++i) {
      C::dropout({y.write()}, x.read(), 0.25, {static_cast<std::uint64_t>(round), static_cast<std::uint64_t>(i)});
      C::scale({x.write(), true}, y.read(), 0.01 * (round + i));
      C::begin_branch();
      C::reduce_sum({sums.write()}, x.read(), 1.0);
      C::combine(ouro::binary::multiply, {sums.write()}, sums.read(), sums.read());
      C::end_branch();
      for (int again = 0; again < (round < 4 ? 1 : 2); ++again) C::matmul({c.write()}, a.read(), x.read(), 0.5);
      C::begin_branch();
      C::matmul({squares.write()}, x.read().transpose(0, 1), x.read(), 0.125);
      C::end_branch();
      C::combine(ouro::binary::add, {kept.write(), true}, c.read(), c.read());
      C::join_branch();
      C::combine(ouro::binary::add, {kept.write(), true}, c.read(), sums.read().expand({48, 48}));
      C::combine(ouro::binary::subtract, {kept.write(), true}, squares.read(), kept.read());
    }
    said.push_back(kept.values<double>()[static_cast<std::size_t>(round)]);
  }
  for (double v : kept.values<double>()) said.push_back(v);
  ouro::set_cuda_graphs(true);
  return said;
}

}  // namespace

TEST_CASE("cuda: calls that come again are launched as graphs, and do the same") {
  need_device();
  auto const one_by_one = rounds_of_calls(false);
#if defined(OURO_EMULATED_CUDA)
  auto const before = emulated_cuda::graphs();
#endif
  CHECK(rounds_of_calls(true) == one_by_one);
#if defined(OURO_EMULATED_CUDA)
  auto const after = emulated_cuda::graphs();
  CHECK(after.launches - before.launches >= 6);
  CHECK(after.nodes_set - before.nodes_set >= 60);
  CHECK(rounds_of_calls(false) == one_by_one);
  CHECK(emulated_cuda::graphs().launches == after.launches);
#endif
}

TEST_CASE("cuda: labels and indices that name nothing make NaN, and logits that are none choose nothing") {
  need_device();
  auto const x = ouro::tensor<C>::from(std::vector<float>(6, 1.0F), {2, 3});
  auto labels = [](std::int32_t a) { return ouro::tensor<C>::from(std::vector<std::int32_t>{0, a}, {2}); };
  for (std::int32_t const label : {3, 300000000}) {
    auto const nll = ouro::cross_entropy(x, labels(label)).values<float>();
    CHECK(std::isfinite(nll[0]));
    CHECK(std::isnan(nll[1]));
  }
  for (std::int64_t const width : {3, 8}) {
    auto const table =
        ouro::tensor<C>::from(std::vector<float>(static_cast<std::size_t>(2 * width), 1.0F), {1, 2, width});
    auto const rows = ouro::gather_sum(table, ouro::reshape(labels(2), {2, 1})).values<float>();
    for (std::size_t i = 0; i < rows.size(); ++i) CHECK(std::isnan(rows[i]) == (i >= static_cast<std::size_t>(width)));
  }
  for (float const bad : {std::nanf(""), HUGE_VALF})
    for (double const temperature : {0.0, 1.0}) {
      auto const logits = ouro::tensor<C>::from(std::vector<float>{bad, bad, bad, 1, 3, 2}, {2, 3});
      ouro::tensor<C> chosen({2}, dtype::i32);
      C::sample(chosen.write(), logits.read(), {.temperature = temperature, .top_k = 1, .draw = {1, 2}});
      CHECK(chosen.values<std::int32_t>() == std::vector<std::int32_t>{-1, 1});
    }
}

TEST_CASE("cuda: the host sees a number as soon as it is there") {
  need_device();
  auto const numbers = ouro::tensor<C>::from(std::vector<std::int32_t>{70, 0, 72}, {3});
  C::early_values early(4);
  auto show = [&](std::int64_t i, std::int64_t n) { early.show(i, ouro::slice(numbers, 0, n, 1).read()); };
  for (int again = 0; again < 3; ++again) {
    show(0, 2);
    show(3, 0);
    CHECK(early.value(3) == 70);
    CHECK(early.value(0) == 72);
    CHECK(early.value(0) == 72);
    show(0, 1);
    CHECK(early.value(0) == 0);
  }
  CHECK_THROWS_AS(early.value(1), ouro::error);  // never shown
}

TEST_CASE("cuda: gradients of a product whose factors share their memory are not made side by side") {
  need_device();
  auto gradient = []<class B>(std::type_identity<B>) {
    std::vector<double> values;
    for (int i = 0; i < 36; ++i) values.push_back(0.1 * (i * 7 % 11) - 0.4);
    auto const x = ouro::tensor<B>::from(values, {6, 6});
    ouro::tape<B> t;
    t.watch(x);
    auto const left = ouro::slice(x, 0, 0, 4);
    auto const right = ouro::slice(x, 0, 2, 4);
    t.backward(ouro::sum(ouro::matmul(x, x)) + ouro::sum(ouro::matmul(left, ouro::transpose(right, 0, 1))));
    return t.gradient(x).template values<double>();
  };
  auto const right = gradient(std::type_identity<R>{});
  for (int again = 0; again < 3; ++again) {  // one by one, then as a graph
    auto const got = gradient(std::type_identity<C>{});
    REQUIRE(got.size() == right.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - right[i]) < 1e-12);
  }
}

TEST_CASE("cuda: a gradient that calls on the branch read is not added to where it is") {
  need_device();
  std::vector<double> values;
  for (int i = 0; i < 64; ++i) values.push_back(0.1 * (i * 7 % 11) - 0.4);
  auto gradients = [&]<class B>(std::type_identity<B>, dtype type) {
    auto const x = ouro::tensor<B>::from(values, {8, 8}, type);
    auto const w = ouro::scale(x, 0.5);
    ouro::tape<B> t;
    t.watch(x);
    t.watch(w);
    auto h = x;
    auto total = ouro::sum(x);
    for (int i = 0; i < 4; ++i) {
      auto const r = ouro::gelu(h);
      auto const s = ouro::scale(r, 0.25);
      h = ouro::matmul(h, w) + r;  // both get one gradient, and then r that of s
      total = total + ouro::sum(s);
    }
    t.backward(total + ouro::sum(h));
    auto all = t.gradient(x).template values<double>();
    for (double v : t.gradient(w).template values<double>()) all.push_back(v);
    return all;
  };
  auto const right = gradients(std::type_identity<R>{}, dtype::f64);
  ouro_test::memory_used_again const as_a_device;
  for (int again = 0; again < 6; ++again) {  // one by one, then as graphs
    auto const got = gradients(std::type_identity<C>{}, dtype::f32);
    REQUIRE(got.size() == right.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - right[i]) < 1e-5 * (1 + std::abs(right[i])));
  }
}

TEST_CASE("cuda: what is postponed first runs while the rest is recorded") {
  need_device();
  std::vector<double> values;
  for (int i = 0; i < 64; ++i) values.push_back(0.1 * (i * 7 % 11) - 0.4);
  auto gradient = [&]<class B>(std::type_identity<B>, bool ahead, std::string& order) {
    using T = ouro::tensor<B>;
    order.clear();
    auto const x = T::from(values, {8, 8});
    ouro::tape<B> t(ahead);
    t.watch(x);
    auto h = x;
    for (char c : {'a', 'b', 'c'}) {
      h = ouro::gelu(ouro::matmul(h, x));
      ouro::postpone(t, {h}, [&order, c, x](std::vector<T> const& in) {
        order += c;
        return ouro::sum(ouro::gelu(ouro::matmul(in[0], x)));
      });
      order += '.';
    }
    t.backward();
    return t.gradient(x).template values<double>();
  };
  std::string order;
  auto const right = gradient(std::type_identity<R>{}, true, order);
  CHECK(order == "...cba");
  ouro_test::memory_used_again const as_a_device;
  for (bool ahead : {false, true})
    for (int again = 0; again < 3; ++again) {  // one by one, then as graphs
      auto const got = gradient(std::type_identity<C>{}, ahead, order);
      CHECK(order == (ahead ? ".a..cb" : "...cba"));
      REQUIRE(got.size() == right.size());
      for (std::size_t i = 0; i < got.size(); ++i)
        CHECK(std::abs(got[i] - right[i]) < 1e-12 * (1 + std::abs(right[i])));
    }
}

TEST_CASE("cuda: what is given back after a fork is not handed out in the side stream before the next") {
  need_device();
  ouro_test::memory_used_again const as_a_device;
  auto in_side_stream = [](double value) {
    C::begin_side_stream();
    auto const made = ouro::tensor<C>::full({77'777}, dtype::f32, value);
    C::end_side_stream();
    return made;
  };
  auto first = in_side_stream(1);
  C::join_side_stream();
  void const* const place = first.read().data;
  C::fork_side_stream();
  auto const read_after = first.copy();
  first = {};
  auto const early = in_side_stream(2);  // behind the fork, and perhaps before what has read the first
  CHECK(early.read().data != place);
  C::join_side_stream();
  CHECK(read_after.values<float>() == std::vector<float>(77'777, 1.0F));
  CHECK(in_side_stream(3).read().data == place);
  C::join_side_stream();
}

#if defined(OURO_EMULATED_CUDA)

TEST_CASE("cuda: exhausted memory is an exception, and all else goes on") {
  auto const before = ouro_test::noise<C>({1000}, dtype::f32);
  auto const values = before.values<float>();
  emulated_cuda::limit_memory(1'000'000);
  CHECK_THROWS_AS(ouro::tensor<C>({1'000'000}), std::bad_alloc);
  CHECK(ouro::tensor<C>::full({100}, dtype::f32, 2.0).values<float>() == std::vector<float>(100, 2.0F));
  emulated_cuda::limit_memory(static_cast<std::size_t>(-1));
  CHECK(before.values<float>() == values);
  CHECK_NOTHROW(ouro::tensor<C>({1'000'000}));
}

TEST_CASE("cuda: host memory given as the device's is refused with the function's name") {
  std::vector<float> host(4), other(4);
  auto const here = ouro::tensor<C>::full({1}, dtype::f32, 3);
  try {
    C::upload(ouro::view(host.data(), dtype::f32, {4}), ouro::const_view(other.data(), dtype::f32, {4}));
    static_cast<void>(here.item());  // waits for the calls before
    FAIL("accepted");
  } catch (ouro::error const& e) {
    CHECK(e.code() == ouro::errc::unavailable);
    CHECK(std::string(e.what()).find("[cuda] upload: ") == 0);
  }
  CHECK(here.item() == 3);
}

#endif

#endif
