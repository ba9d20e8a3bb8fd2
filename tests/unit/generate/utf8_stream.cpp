// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The output stream is valid UTF-8 for every input and every split.
#include <catch2/catch_test_macros.hpp>

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
  CHECK(whole("a\xF1\x80\x80\xE1\x80\xC2" "b\x80" "c\x80\xBF" "d") ==
        "a" + fffd + fffd + fffd + "b" + fffd + "c" + fffd + fffd + "d");
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
