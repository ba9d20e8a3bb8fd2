// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hashes of files, against values of other implementations.
#include <catch2/catch_test_macros.hpp>

#include <set>
#include <utility>

#include <ouro/io/hash.hpp>

TEST_CASE("hash: XXH64 of texts of every kind of end is what xxHash says") {
  CHECK(ouro::xxh64("abc") == 0x44BC2CF5AD770999ULL);
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>(static_cast<unsigned char>((i * i + 7) % 256));
  for (auto const& [length, hash] : {std::pair<std::size_t, std::uint64_t>{0, 0xEF46DB3751D8E999ULL},
                                     {1, 0xA96C7F0CE858BBB7ULL},
                                     {3, 0x27D21238EC29F097ULL},
                                     {4, 0xB12BEABFAB15B9D0ULL},
                                     {5, 0x72E289120C71A54EULL},
                                     {7, 0xC4A5EDC97599693AULL},
                                     {8, 0x4009486317CAEADCULL},
                                     {11, 0x54DA06978A87D115ULL},
                                     {12, 0xD22FC1F909C88573ULL},
                                     {31, 0x029A3F95329C6A8CULL},
                                     {32, 0x076F6F398F1EFF21ULL},
                                     {33, 0x3D21A6396B9A14CEULL},
                                     {44, 0xBACCF507D935B6C8ULL},
                                     {63, 0x03B51288CFBE3154ULL},
                                     {64, 0xAC8A812F504430F4ULL},
                                     {71, 0x10AC045254AE3371ULL},
                                     {199, 0x3C601EE88F6A64E3ULL}})
    CHECK(ouro::xxh64(std::string_view(text).substr(0, length)) == hash);
}

TEST_CASE("hash: FNV-1a is what its authors say, and goes on where it was") {
  CHECK(ouro::fnv_1a("") == 0xcbf29ce484222325ULL);
  CHECK(ouro::fnv_1a("a") == 0xaf63dc4c8601ec8cULL);
  CHECK(ouro::fnv_1a("foobar") == 0x85944171f73967e8ULL);
  CHECK(ouro::fnv_1a("bar", ouro::fnv_1a("foo")) == ouro::fnv_1a("foobar"));
}

TEST_CASE("hash: every bit of a text changes it") {
  std::set<std::uint64_t> seen;
  std::string text(77, 'x');
  seen.insert(ouro::xxh64(text));
  for (std::size_t i = 0; i < 8 * text.size(); ++i) {
    auto other = text;
    other[i / 8] = static_cast<char>(other[i / 8] ^ (1 << i % 8));
    seen.insert(ouro::xxh64(other));
  }
  CHECK(seen.size() == 8 * text.size() + 1);
  CHECK(ouro::hexadecimal(0x0123456789ABCDEFULL) == "0123456789abcdef");
}
