// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// JSON: any text is refused with an error of its kind, or is a value that can be written and read again.
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include <ouro/io/json.hpp>

#include "fuzz.hpp"

using ouro::json;
using ouro_fuzz::accepted;
using ouro_fuzz::hold;

namespace {

std::optional<json> read(std::string_view text) {
  std::optional<json> value;
  accepted({ouro::errc::data}, [&] { value = json::parse(text); });
  return value;
}

void write(json const& j, std::string& out) {
  auto const list = [&](char open, char close) {
    out += open;
    for (std::size_t i = 0; i < j.items().size(); ++i) {
      if (i > 0) out += ',';
      if (open == '{') out += json::quote(j.keys()[i]) + ':';
      write(j.items()[i], out);
    }
    out += close;
  };
  switch (j.type()) {
    case json::kind::null: out += "null"; break;
    case json::kind::boolean: out += j.boolean() ? "true" : "false"; break;
    case json::kind::number: out += j.text(); break;
    case json::kind::string: out += json::quote(j.text()); break;
    case json::kind::array: list('[', ']'); break;
    case json::kind::object: list('{', '}'); break;
  }
}

bool same(json const& a, json const& b) {
  if (a.type() != b.type() || a.text() != b.text() || a.keys() != b.keys() || a.items().size() != b.items().size())
    return false;
  for (std::size_t i = 0; i < a.items().size(); ++i)
    if (!same(a.items()[i], b.items()[i])) return false;
  return true;
}

/// What is asked of a value is of its kind, or refused.
void ask(json const& j) {
  hold(accepted({ouro::errc::data}, [&] { static_cast<void>(j.boolean()); }) == j.is(json::kind::boolean),
       "only true and false are booleans");
  accepted({ouro::errc::data}, [&] {
    auto const digits = std::to_string(j.integer());
    hold(j.is(json::kind::number) && (digits == j.text() || j.text() == "-0"), "an integer is what its digits say");
  });
  accepted({ouro::errc::data}, [&] { hold(std::isfinite(j.number()), "a number is finite"); });
  hold(j.keys().size() == (j.is(json::kind::object) ? j.items().size() : 0), "a member has one key");
  for (std::size_t i = 0; i < std::min<std::size_t>(j.keys().size(), 16); ++i)
    hold(j.find(j.keys()[i]) == &j.items()[i], "a member is found by its key");
  for (auto const& item : j.items()) ask(item);
}

}  // namespace

std::vector<std::string> ouro_fuzz::seeds() {
  return {R"({"a":[1,-2.5e+3,true,false,null,{"b":"\u00e9\ud83d\ude00\n\\"}],"c":""})",
          R"({"a":1,"\u0061":1})",
          R"([0, -0, 0.5, 1E-7, 9223372036854775807, -9223372036854775808, 9223372036854775808, 1e999, 5e-324])",
          R"("\"\\\/\b\f\n\r\t\u0000\u007f\ud800\udc00\udbff\uDFFF")",
          " [ { } , [ ] , \"\xC3\xA9\xFF\" ]\r\n\t",
          std::string(64, '[') + "1" + std::string(64, ']'),
          std::string(65, '[') + std::string(65, ']'),
          R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})",
          R"({"conversations":[{"role":"user","content":"hi"},{"role":"assistant","content":"\ud83d"}]})"};
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const value = read({reinterpret_cast<char const*>(data), size});
  if (!value) return 0;
  ask(*value);
  std::string text;
  write(*value, text);
  auto const again = read(text);
  hold(again && same(*value, *again), "what is written is read back");
  if (text[0] == '{' || text[0] == '[' || text[0] == '"')
    hold(!read(std::string_view(text).substr(0, text.size() - 1)), "a value without its end is refused");
  return 0;
}
