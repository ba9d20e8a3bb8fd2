// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// JSON: the grammar and nothing beside it; errors say where; the work a text can cause is bounded.
#include <catch2/catch_test_macros.hpp>

#include <string>

#include <ouro/io/json.hpp>

using ouro::json;

namespace {
std::string problem(std::string_view text) {
  try {
    static_cast<void>(json::parse(text));
  } catch (ouro::error const& e) {
    CHECK(e.code() == ouro::errc::data);
    return e.what();
  }
  return "";
}
bool at_byte(std::string_view text, int offset) {
  return problem(text).ends_with(" at byte " + std::to_string(offset));
}
}  // namespace

TEST_CASE("json: errors name the byte offset") {
  CHECK(at_byte("", 0));
  CHECK(at_byte("[1,]", 3));
  CHECK(at_byte("[1 2]", 3));
  CHECK(at_byte("{\"a\" 1}", 5));
  CHECK(at_byte(R"({"a":1,"b":2,"a":3})", 13));
  CHECK(at_byte(R"({"\u0061":1,"a":3})", 12));  // the same key, once escaped
  CHECK(at_byte("1 2", 2));
  CHECK(at_byte("01", 1));
  CHECK(at_byte("\"abc", 4));
}

TEST_CASE("json: every proper prefix of a value is refused") {
  std::string const text = R"({"a":[1,-2.5e+3,true,false,null,{"b":"\u00e9\ud83d\ude00\n\\"}],"c":""})";
  REQUIRE(problem(text).empty());
  for (std::size_t n = 0; n < text.size(); ++n) CHECK_FALSE(problem(text.substr(0, n)).empty());
}

TEST_CASE("json: changed bytes are refused or read, never more") {
  std::string const text = R"({"a":[1,-2.5e3,true,null],"b":"\ud83d\ude00"})";
  for (std::size_t i = 0; i < text.size(); ++i)
    for (int c = 0; c < 256; ++c) {
      auto changed = text;
      changed[i] = static_cast<char>(c);
      static_cast<void>(problem(changed));
    }
}

TEST_CASE("json: escapes become UTF-8, and half a surrogate pair is refused") {
  CHECK(json::parse(R"("\u0000\u007f\u0080\u07ff\u0800\uffff\ud800\udc00\udbff\udfff")").text() ==
        std::string("\0\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 20));
  for (auto const* bad : {R"("\ud800")", R"("\udc00")", R"("\ud800\u0041")", R"("\ud800x")", R"("\u12")", R"("\u+123")",
                          R"("\u-123")", R"("\u 123")"})
    CHECK_FALSE(problem(bad).empty());
}

TEST_CASE("json: what is quoted is read back, for every byte") {
  std::string all;
  for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
  CHECK(json::parse(json::quote(all)).text() == all);
}

TEST_CASE("json: 64 levels are read, 65 are not") {
  CHECK(problem(std::string(64, '[') + "1" + std::string(64, ']')).empty());
  CHECK_FALSE(problem(std::string(65, '[') + std::string(65, ']')).empty());
  CHECK_FALSE(problem(std::string(1000000, '[')).empty());
}

TEST_CASE("json: many keys cost no quadratic time, many values no memory") {
  std::string object = "{";
  for (int i = 0; i < 200000; ++i) object += (i ? ",\"" : "\"") + std::to_string(i) + "\":0";
  CHECK(json::parse(object + "}").keys().size() == 200000);
  CHECK_FALSE(problem(object + ",\"77\":0}").empty());
  std::string array = "[0";
  for (std::size_t i = 0; i < json::most_values; ++i) array += ",0";
  CHECK(problem(array + "]").find("fewer values") != std::string::npos);
}

TEST_CASE("json: accessors are strict about kinds") {
  auto const j = json::parse(R"([1, 1.5, "1", true, 99999999999999999999, 1e999])");
  CHECK(j.items()[0].integer() == 1);
  CHECK(j.items()[1].number() == 1.5);
  CHECK(j.items()[3].boolean());
  for (std::size_t i : {1U, 2U, 3U, 4U, 5U}) CHECK_THROWS_AS(j.items()[i].integer(), ouro::error);
  for (std::size_t i : {2U, 3U, 5U}) CHECK_THROWS_AS(j.items()[i].number(), ouro::error);
  CHECK_THROWS_AS(j.items()[0].boolean(), ouro::error);
  CHECK(j.find("a") == nullptr);
}
