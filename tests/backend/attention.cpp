// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention of cuda by products in bf16, on values that are stored in f32 or in bf16, against the reference in f64 on the
// same values.
#include <cmath>
#include <utility>

#include <ouro_test/stored_twin.hpp>
#if defined(OURO_EMULATED_CUDA)
#include <emulated_cuda.hpp>
#endif

#if defined(OURO_HAS_CUDA)
namespace {
using C = ouro::cuda;
using R = ouro::reference;
using ouro::dtype;
using ouro_test::need_device;
using ouro_test::pick;

/// What is stored in what, and where rows lie.
struct storage {
  dtype values = dtype::bf16;  // of q, k, v and y
  dtype y_slope = dtype::bf16;
  dtype gradients[3] = {dtype::bf16, dtype::bf16, dtype::bf16};  // of q, k and v
  bool adds[3] = {};
  std::int64_t shift = 0;  // columns before those of the operands
  bool packed = true;      // keys and values are parts of one projection, and so are their gradients

  static storage in_f32(std::int64_t shift, bool adds) {
    return {dtype::f32, dtype::f32, {dtype::f32, dtype::f32, dtype::f32}, {adds, adds, adds}, shift, false};
  }
};
struct problem {
  std::int64_t lanes, heads, width, queries, keys;
  ouro::visibility sees;
  double dropout = 0;
};

/// (y, log-sum-exp, dq, dk, dv) of noise that the storage holds exactly; in f64 if not `stored`. Bit i of `wanted` says
/// whether the i-th gradient is asked for.
template <class B>
std::vector<ouro::tensor<B>> results(problem const& c, storage const& s, bool stored, unsigned wanted = 7) {
  ouro::random_stream numbers(ouro::seed{7});
  std::int64_t const columns = c.heads * c.width;
  auto noise = [&](std::int64_t rows, std::int64_t parts, dtype type) {
    auto const x = ouro::normal<R>({c.lanes, rows, parts * columns + s.shift}, dtype::f32, numbers.next());
    auto const rounded = x.copy(s.values).template values<double>();
    return ouro::tensor<B>::from(rounded, x.dims(), stored ? type : dtype::f64);
  };
  auto part = [&](auto const& x, std::int64_t n) { return x.slice(2, s.shift + n * columns, columns); };
  std::int64_t const parts = s.packed ? 2 : 1;
  std::int64_t const last = parts - 1;
  auto const q = noise(c.queries, 1, s.values), k = noise(c.keys, parts, s.values);
  auto const v = s.packed ? k : noise(c.keys, 1, s.values);
  auto const dy = noise(c.queries, 1, s.y_slope);
  auto y = noise(c.queries, 1, s.values);
  ouro::tensor<B> lse({c.lanes, c.heads, c.queries}, stored ? dtype::f32 : dtype::f64);
  ouro::attention_rule const rule{.heads = c.heads,
                                  .scale = 1 / std::sqrt(static_cast<double>(c.width)),
                                  .sees = c.sees,
                                  .dropout = c.dropout,
                                  .draw = {3, 5}};
  B::attention(part(y.write(), 0), lse.write(), part(q.read(), 0), part(k.read(), 0), part(v.read(), last), rule);
  bool const together = s.packed && s.gradients[1] == s.gradients[2];
  auto dq = noise(c.queries, 1, s.gradients[0]), dk = noise(c.keys, parts, s.gradients[1]),
       dv = noise(c.keys, parts, s.gradients[2]);
  auto to = [&](int i, ouro::tensor<B>& x, std::int64_t n) {
    return (wanted >> i & 1U) != 0 ? ouro::destination(part(x.write(), n), s.adds[i]) : ouro::destination();
  };
  B::attention_gradient(to(0, dq, 0), to(1, dk, 0), to(2, together ? dk : dv, last), part(q.read(), 0),
                        part(k.read(), 0), part(v.read(), last), part(y.read(), 0), lse.read(), part(dy.read(), 0),
                        rule);
  return {y, lse, dq, dk, dv};
}

#if defined(OURO_EMULATED_CUDA)
/// As much for a block as one of compute capability 9.0 has.
struct more_shared_memory {
  std::size_t before = std::exchange(emulated_cuda::shared_memory_limit, std::size_t{227} << 10U);
  ~more_shared_memory() { emulated_cuda::shared_memory_limit = before; }
};
#endif
/// Calls f, on the emulated device with as little shared memory for a block as any has, and with more.
template <class F>
void with_any_shared_memory(F const& f) {
  f();
#if defined(OURO_EMULATED_CUDA)
  more_shared_memory const more;
  f();
#endif
}

void check(problem const& c, storage const& s) {
  INFO(c.lanes << " lanes, " << c.heads << " heads of " << c.width << ", " << c.queries << " queries, " << c.keys
               << " keys, sees " << c.sees.prefix << "|" << c.sees.causal << "|" << c.sees.first << ", dropout "
               << c.dropout << ", shift " << s.shift << ", values " << ouro::name_of(s.values) << ", dy "
               << ouro::name_of(s.y_slope) << ", gradients " << ouro::name_of(s.gradients[0]) << " "
               << ouro::name_of(s.gradients[1]) << " " << ouro::name_of(s.gradients[2]) << ", adds " << s.adds[0]
               << s.adds[1] << s.adds[2]);
  bool const narrow = s.values == dtype::bf16;
  auto const exact = results<R>(c, s, false);
  auto const rounded = results<C>(c, s, true);
  auto const again = results<C>(c, s, true);
  char const* const names[] = {"y", "log-sum-exp", "dq", "dk", "dv"};
  double most = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    INFO(names[i]);
    // A result is not taken for less than noise of a tenth.
    double const error =
        ouro_test::relative_distance(rounded[i], exact[i], 0.01 * static_cast<double>(exact[i].size()));
    CHECK(error < (narrow ? (i == 1 ? 1e-2 : 2e-2) : (i == 1 ? 2e-3 : 1e-2)));
    CHECK(again[i].values<float>() == rounded[i].values<float>());
    most = std::max(most, error);
  }
  if (!narrow && c.width % 16 == 0 && c.queries > 1) CHECK(most > 1e-4);  // or nothing was rounded
}

storage random_storage() {
  using ouro_test::any_inner;
  storage s{.y_slope = any_inner(), .gradients = {any_inner(), any_inner(), any_inner()}, .adds = {}, .shift = 0};
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

// Factors are rounded to 8 bits, weights and their slopes among them. Heads of 20 are computed without rounding, and so is
// a single query.
TEST_CASE("cuda: attention with products in bf16") {
  need_device();
  struct asked {
    problem of;
    std::int64_t shift;
    bool adds;
  };
  std::vector<asked> const cases{
      {{3, 2, 64, 96, 96, {0, 96, 0}, 0.1}, 0, true},
      {{3, 1, 64, 48, 48, {0, 48, 0}, 0.0}, 0, false},
      {{1, 3, 64, 128, 128, {0, 128, 0}, 0.3}, 0, false},
      {{3, 2, 64, 65, 7, {}, 0.3}, 0, true},
      {{3, 3, 64, 130, 16, {}, 0.0}, 0, false},
      {{1, 2, 64, 90, 27, {}, 0.3}, 0, true},
      {{1, 1, 64, 40, 40, {11, 17, 0}, 0.0}, 3, true},
      {{1, 2, 64, 130, 200, {60, 70, 0}, 0.3}, 0, true},
      {{1, 2, 64, 130, 200, {60, 70, 50}, 0.0}, 8, false},
      {{1, 1, 64, 37, 130, {}, 0.3}, 1, false},
      {{3, 3, 16, 33, 33, {0, 33, 0}, 0.3}, 0, true},
      {{1, 2, 16, 70, 150, {20, 70, 0}, 0.0}, 5, false},
      {{1, 3, 32, 17, 129, {}, 0.3}, 4, true},
      {{3, 1, 32, 100, 100, {30, 40, 0}, 0.0}, 0, false},
      {{1, 2, 80, 50, 60, {10, 30, 5}, 0.3}, 0, true},
      {{1, 1, 80, 129, 140, {}, 0.0}, 2, false},
      {{1, 2, 128, 66, 66, {0, 66, 0}, 0.3}, 0, true},
      {{1, 1, 128, 70, 131, {0, 131, 60}, 0.3}, 7, false},
      {{2, 2, 64, 2, 1, {}, 0.0}, 0, true},
      {{3, 2, 64, 1, 200, {}, 0.3}, 0, true},
      {{1, 2, 20, 70, 90, {20, 50, 0}, 0.3}, 0, true},
  };
  ouro::set_cuda_products(ouro::product_precision::bf16);
  with_any_shared_memory([&] {
    for (auto const& c : cases) check(c.of, storage::in_f32(c.shift, c.adds));
  });
  ouro::set_cuda_products(ouro::product_precision::f32);
}

TEST_CASE("cuda: gradients of attention in bf16 do not depend on which others are asked for") {
  need_device();
  ouro::set_cuda_products(ouro::product_precision::bf16);
  auto compare = [](problem const& c, bool adds) {
    auto const s = storage::in_f32(0, adds);
    auto const all = results<C>(c, s, true);
    for (unsigned wanted = 1; wanted < 7; ++wanted) {
      INFO("wanted " << wanted << " of " << c.keys << " keys");
      auto const some = results<C>(c, s, true, wanted);
      for (std::size_t i = 2; i < 5; ++i)
        if ((wanted >> (i - 2) & 1U) != 0) CHECK(ouro_test::relative_error(some[i], all[i]) < 1e-3);
    }
  };
  compare({2, 2, 32, 50, 50, {0, 50, 0}, 0.1}, true);
  compare({1, 1, 64, 70, 20, {}, 0.0}, false);
  compare({1, 2, 16, 140, 140, {30, 80, 0}, 0.1}, true);
  ouro::set_cuda_products(ouro::product_precision::f32);
}

TEST_CASE("cuda: attention of values in bf16") {
  need_device();
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
  need_device();
  with_any_shared_memory([] {
    check({2, 2, 64, 1, 200, {}, 0.3}, {});  // a single query
    check({2, 2, 64, 2, 1, {}, 0.0}, {});
    check({1, 2, 20, 70, 90, {20, 50, 0}, 0.3}, {.adds = {true, true, true}});
    check({3, 2, 64, 48, 48, {0, 48, 0}, 0.1}, {});
    check({1, 2, 64, 130, 200, {60, 70, 0}, 0.3}, {.adds = {true, false, true}});
    check({1, 1, 128, 129, 128, {0, 128, 0}, 0.3}, {.adds = {true, true, false}, .shift = 8});
    check({1, 1, 64, 70, 65, {0, 65, 0}, 0.0}, {.y_slope = dtype::f32, .shift = 3});
  });
}

// Long enough for kernels that have 64 rows at a time, of which there may be few for the device.
TEST_CASE("cuda: attention of long sequences in bf16") {
  need_device();
  with_any_shared_memory([] {
    check({1, 1, 64, 192, 192, {}, 0.3}, {});
    check({1, 1, 64, 200, 330, {60, 70, 0}, 0.0}, {.adds = {true, false, true}});
    check({1, 2, 64, 257, 195, {100, 157, 0}, 0.1}, {.y_slope = dtype::f32, .shift = 8});
    check({1, 2, 64, 194, 449, {130, 200, 250}, 0.3}, {.gradients = {dtype::f32, dtype::f32, dtype::bf16}});
    check({3, 1, 64, 321, 321, {0, 321, 0}, 0.3}, {.adds = {true, true, false}});
    check({2, 2, 64, 256, 256, {}, 0.0},
          {.gradients = {dtype::f32, dtype::bf16, dtype::f32}, .adds = {true, true, true}});
    check({1, 1, 64, 200, 220, {0, 210, 9}, 0.3}, {.shift = 3});
  });
}

// Operands in f32, whose gradients may be in bf16, whether products are rounded or not.
TEST_CASE("cuda: gradients of attention in bf16 of values in f32") {
  need_device();
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

#if defined(OURO_EMULATED_CUDA)
// The driver keeps what a kernel may have, not what each of its launches had.
TEST_CASE("cuda: launches of a kernel that take different amounts of shared memory stay in their graph") {
  more_shared_memory const more;
  auto rounds = [](bool graphs) {
    ouro::set_cuda_graphs(graphs);
    ouro::random_stream numbers(ouro::seed{9});
    auto noise = [&](std::int64_t rows) {
      return ouro::normal<C>({1, rows, 64}, dtype::f32, numbers.next()).copy(dtype::bf16);
    };
    auto const q = noise(16), k = noise(256), v = noise(256);
    ouro::tensor<C> y(q.dims(), dtype::bf16), lse({1, 1, 16}, dtype::f32), kept(q.dims(), dtype::f32);
    C::fill(kept.write(), 0);
    std::vector<double> said;
    for (std::uint64_t round = 0; round < 6; ++round) {
      for (std::uint64_t i = 0; i < 12; ++i) {
        std::int64_t const keys = i % 2 == 0 ? 128 : 256;  // for two warps that share the queries, and four
        C::attention(y.write(), lse.write(), q.read(), k.read().slice(1, 0, keys), v.read().slice(1, 0, keys),
                     {.heads = 1, .scale = 0.1, .sees = {}, .dropout = 0.3, .draw = {round, i}});
        C::copy(kept.write(), y.read(), true);
      }
      said.push_back(kept.values<double>()[0]);
    }
    ouro::set_cuda_graphs(true);
    return said;
  };
  auto const one_by_one = rounds(false);
  auto const before = emulated_cuda::graphs();
  CHECK(rounds(true) == one_by_one);
  auto const after = emulated_cuda::graphs();
  CHECK(after.launches - before.launches >= 4);
  CHECK(after.made - before.made <= 2);  // a round is one run or, where the device was waited for, two
}
#endif
#endif
