// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Tensors as values, bf16, and the published vectors of Philox4x32-10.
#include <catch2/catch_test_macros.hpp>

#include <cmath>

#include <ouro/backend/reference.hpp>
#include <ouro/tensor/normal.hpp>
#include <ouro/tensor/tensor.hpp>

using R = ouro::reference;
using T = ouro::tensor<R>;

TEST_CASE("a copy shares, a write unshares") {
  T a = T::from(std::vector<float>{1, 2, 3, 4}, {2, 2});
  T b = a;
  CHECK_FALSE(a.unique());
  R::fill(b.write(), 7);
  CHECK(a.values<float>() == std::vector<float>{1, 2, 3, 4});
  CHECK(b.values<float>() == std::vector<float>{7, 7, 7, 7});
  T const column = a.alias(a.read().slice(1, 1, 1));
  CHECK(column.values<float>() == std::vector<float>{2, 4});
  CHECK(a.alias(a.read().transpose(0, 1)).values<float>() == std::vector<float>{1, 3, 2, 4});
  CHECK(T{}.empty());
  CHECK(T::zeros({0, 3}).size() == 0);
  CHECK(a.copy(ouro::dtype::i32).values<std::int32_t>() == std::vector<std::int32_t>{1, 2, 3, 4});
  CHECK_THROWS_AS(a.item(), ouro::error);
  CHECK_THROWS_AS(T({-1}), ouro::error);
  CHECK_THROWS_AS(T::from(std::vector<float>{1}, {2}), ouro::error);
}

TEST_CASE("bf16 rounds to nearest even and keeps NaN") {
  auto round = [](float x) { return static_cast<float>(ouro::bf16(x)); };
  CHECK(round(1.0F) == 1.0F);
  CHECK(round(1.00390625F) == 1.0F);       // halfway, down to even
  CHECK(round(1.01171875F) == 1.015625F);  // halfway, up to even
  CHECK(std::isnan(round(NAN)));
  CHECK(std::isinf(round(INFINITY)));
}

TEST_CASE("Philox4x32-10 known answers") {
  using block = ouro::philox::block;
  CHECK(ouro::philox::words(0, 0, 0) == block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(ouro::philox::words(~0ULL, ~0ULL, ~0ULL) == block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(ouro::philox::words(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88) ==
        block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("Philox4x32-7 known answers") {
  using block = ouro::philox::block;
  CHECK(ouro::philox::mask_words(0, 0, 0) == block{0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48});
  CHECK(ouro::philox::mask_words(~0ULL, ~0ULL, ~0ULL) == block{0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662});
}

TEST_CASE("a dropout keeps the elements whose numbers reach its threshold, and as many as its rate says") {
  ouro::random_draw const draw{0x123456789abcdef0ULL, 7};
  struct rule {
    double rate;
    int bits;
  };
  for (auto const& [rate, bits] : {rule{0, 4},
                                   {0.5, 4},
                                   {0.25, 4},
                                   {0.0625, 4},
                                   {0.1, 12},
                                   {0.3, 12},
                                   {0.05, 12},
                                   {0.0999, 12},
                                   {0.001, 16},
                                   {0.0117, 8},
                                   {0.9, 12},
                                   {0.999, 16}}) {
    INFO(rate);
    ouro::dropout_mask const mask(rate);
    double const levels = std::pow(2.0, mask.bits);
    CHECK(mask.bits == bits);
    CHECK(std::abs(mask.threshold / levels - rate) <= (bits < 16 ? std::min(rate, 1 - rate) / 500 : 0.5 / levels));
    CHECK(std::abs(mask.factor * (1 - mask.threshold / levels) - 1) < 1e-15);
    int kept = 0;
    int wrong = 0;
    constexpr int groups = 2000;
    for (std::uint64_t group = 0; group < groups; ++group) {
      auto const word = mask.kept(draw, group);
      for (unsigned b = 0; b < 32; ++b) {
        std::uint32_t number = 0;
        for (unsigned k = 0; k < static_cast<unsigned>(bits); ++k)
          number = 2 * number + (ouro::philox::mask_words(draw.key, draw.site, 4 * group + k / 4)[k % 4] >> b & 1U);
        bool const keeps = number >= mask.threshold;
        wrong += (word >> b & 1U) != (keeps ? 1U : 0U);
        wrong += mask.keeps(draw, 32 * group + b) != keeps;
        kept += keeps ? 1 : 0;
      }
    }
    CHECK(wrong == 0);
    double const share = 1 - mask.threshold / levels;
    CHECK(std::abs(kept / (32.0 * groups) - share) <= 4 * std::sqrt(share * (1 - share) / (32.0 * groups)));
  }
  CHECK(ouro::dropout_mask::groups(0) == 0);
  CHECK(ouro::dropout_mask::groups(32) == 1);
  CHECK(ouro::dropout_mask::groups(33) == 2);
}

TEST_CASE("normal numbers have mean 0 and deviation 1") {
  double sum = 0;
  double squares = 0;
  for (std::uint64_t i = 0; i < 100000; ++i) {
    double const z = ouro::standard_normal({1, 2}, i);
    sum += z;
    squares += z * z;
  }
  CHECK(std::abs(sum / 1e5) < 0.01);
  CHECK(std::abs(squares / 1e5 - 1) < 0.02);
}

TEST_CASE("tensor: one element that is seen as all has their extents, and nothing of them once it is assigned to") {
  using tensor = ouro::tensor<ouro::reference>;
  auto t = tensor::repeated({1 << 20, 1 << 20}, ouro::dtype::f64, 3);
  CHECK(t.dims() == ouro::shape{1 << 20, 1 << 20});
  CHECK(t.type() == ouro::dtype::f64);
  CHECK(t.is_plain());
  CHECK(tensor::repeated({2, 3}, ouro::dtype::f32, 3).values<double>() == std::vector<double>(6, 3.0));
  auto const twin = t;
  t = tensor::from({1.0, 2.0}, {2});
  CHECK(t.values<double>() == std::vector<double>{1, 2});
  CHECK(twin.size() == std::int64_t{1} << 40);
}

TEST_CASE("the pool reuses blocks and counts") {
  ouro::host_memory pool;
  void* a = pool.allocate(1000);
  pool.deallocate(a, 1000);
  CHECK(pool.in_use() == 0);
  CHECK(pool.peak() >= 1000);
  void* b = pool.allocate(990);
  pool.deallocate(b, 990);
  CHECK(pool.peak() == 1024);
}

#if !defined(NDEBUG)
TEST_CASE("tensor: memory that was not set is NaN, used before or not") {
  for (int i = 0; i < 3; ++i) {
    ouro::tensor<ouro::reference> t({7, 5});
    for (double v : t.values<double>()) CHECK(std::isnan(v));
    ouro::reference::fill(t.write(), 1.0);
  }
}
#endif
