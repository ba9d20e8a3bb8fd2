// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The output stream is valid UTF-8 for every input and every split.
#include <catch2/catch_test_macros.hpp>

#include <cstdint>
#include <string>

#include <ouro/generate/utf8_stream.hpp>
#include <ouro/tensor/random.hpp>

namespace {
std::string whole(std::string_view bytes) {
  ouro::utf8_stream s;
  auto out = s.feed(bytes);
  return out + s.finish();
}
}  // namespace

TEST_CASE("well-formed text passes, ill-formed becomes U+FFFD by maximal subparts") {
  std::string const fffd = "\xEF\xBF\xBD";
  CHECK(whole("a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80z") == "a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80z");
  // The example of the Unicode Standard, table 3-8.
  CHECK(whole("a\xF1\x80\x80\xE1\x80\xC2"
              "b\x80"
              "c\x80\xBF"
              "d") == "a" + fffd + fffd + fffd + "b" + fffd + "c" + fffd + fffd + "d");
  CHECK(whole("\xED\xA0\x80") == fffd + fffd + fffd);  // a surrogate
  CHECK(whole("\xC0\xAF") == fffd + fffd);             // overlong
  CHECK(whole("\xF4\x90\x80\x80") == fffd + fffd + fffd + fffd);
  CHECK(whole("\xE4\xB8") == fffd);
}

TEST_CASE("splits do not matter") {
  std::string bytes;
  ouro::random_draw const draw{3, 4};
  constexpr unsigned char interesting[] = {0x41, 0x80, 0xBF, 0xC2, 0xE0, 0xA0, 0xED, 0xF0, 0x90, 0xF4, 0xFF, 0xE4};
  for (std::uint64_t i = 0; i < 400; ++i) bytes += static_cast<char>(interesting[draw.word(i) % 12]);
  auto const want = whole(bytes);
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    ouro::utf8_stream s;
    std::string out = s.feed(bytes.substr(0, cut));
    out += s.feed(bytes.substr(cut));
    CHECK(out + s.finish() == want);
  }
  CHECK(whole(want) == want);
}

namespace {
/// The well-formed sequences of The Unicode Standard, table 3-7, as ranges of bytes.
constexpr unsigned char rows[][8] = {
    {0x00, 0x7F},
    {0xC2, 0xDF, 0x80, 0xBF},
    {0xE0, 0xE0, 0xA0, 0xBF, 0x80, 0xBF},
    {0xE1, 0xEC, 0x80, 0xBF, 0x80, 0xBF},
    {0xED, 0xED, 0x80, 0x9F, 0x80, 0xBF},
    {0xEE, 0xEF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF0, 0xF0, 0x90, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF1, 0xF3, 0x80, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF4, 0xF4, 0x80, 0x8F, 0x80, 0xBF, 0x80, 0xBF},
};

/// Decodes with the whole text in view: at each place the longest prefix of a row.
std::string oracle(std::string_view bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    std::size_t best = 0;
    bool whole_row = false;
    for (auto const& row : rows) {
      std::size_t length = 1;
      while (length < 4 && row[2 * length] != 0) ++length;
      std::size_t n = 0;
      while (n < length && at + n < bytes.size() && static_cast<unsigned char>(bytes[at + n]) >= row[2 * n] &&
             static_cast<unsigned char>(bytes[at + n]) <= row[2 * n + 1])
        ++n;
      if (n > best) {
        best = n;
        whole_row = n == length;
      }
    }
    if (whole_row) out += bytes.substr(at, best);
    else out += "\xEF\xBF\xBD";
    at += best > 0 ? best : 1;
  }
  return out;
}
}  // namespace

TEST_CASE("all short sequences of telling bytes are decoded as by table 3-7, one byte at a time and at once") {
  constexpr unsigned char telling[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF,
                                       0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
  constexpr std::size_t count = sizeof(telling);
  std::size_t wrong = 0;
  for (std::size_t length = 1; length <= 4; ++length) {
    std::size_t total = 1;
    for (std::size_t i = 0; i < length; ++i) total *= count;
    for (std::size_t k = 0; k < total; ++k) {
      std::string bytes;
      for (std::size_t i = 0, rest = k; i < length; ++i, rest /= count)
        bytes += static_cast<char>(telling[rest % count]);
      auto const want = oracle(bytes);
      ouro::utf8_stream s;
      std::string out;
      for (char c : bytes) {
        out += s.feed(c);
        wrong += oracle(out) != out;  // every moment's output is valid
      }
      out += s.finish();
      wrong += out != want || whole(bytes) != want;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("every scalar value passes unchanged, and a finished stream starts anew") {
  std::size_t wrong = 0;
  ouro::utf8_stream s;
  for (std::uint32_t u = 0; u < 0x110000; ++u) {
    std::string c;
    auto put = [&](std::uint32_t b) { c += static_cast<char>(static_cast<unsigned char>(b)); };
    if (u < 0x80) put(u);
    else if (u < 0x800) put(0xC0U | (u >> 6U)), put(0x80U | (u & 63U));
    else if (u < 0x10000) put(0xE0U | (u >> 12U)), put(0x80U | ((u >> 6U) & 63U)), put(0x80U | (u & 63U));
    else
      put(0xF0U | (u >> 18U)), put(0x80U | ((u >> 12U) & 63U)), put(0x80U | ((u >> 6U) & 63U)), put(0x80U | (u & 63U));
    bool const surrogate = u >= 0xD800 && u < 0xE000;
    wrong += s.feed(c) != (surrogate ? "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" : c);
  }
  CHECK(wrong == 0);
  CHECK(s.feed("\xF0\x9F").empty());
  CHECK(s.finish() == "\xEF\xBF\xBD");
  CHECK(s.finish().empty());
  CHECK(s.feed("\x98") == "\xEF\xBF\xBD");
}
