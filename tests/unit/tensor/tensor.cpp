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
