// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A strict reader of JSON values (RFC 8259), small enough for file headers and lines of a corpus.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/tensor/error.hpp>

namespace ouro {

/// One JSON value. Members of an object keep their order; a repeated key is an error. Bytes of a string that are not
/// UTF-8 are taken as they are. Work is O(n log n) in the text; memory is about that of the text and of `most_values`.
class json {
 public:
  enum class kind : std::uint8_t { null, boolean, number, string, array, object };

  static constexpr int deepest = 64;  ///< arrays and objects inside each other
  static constexpr std::size_t most_values =
      1U << 18U;  ///< values in one text, for each of which about 200 bytes are kept

  /// Reads exactly one value. Errors (data): the byte offset and what was expected there.
  static json parse(std::string_view text) {
    reader r{text};
    json value = r.value(0);
    r.space();
    r.expect(r.at == text.size(), "the end");
    return value;
  }

  [[nodiscard]] kind type() const { return kind_; }
  [[nodiscard]] bool is(kind k) const { return kind_ == k; }
  /// The text of a string, or the digits of a number.
  [[nodiscard]] std::string const& text() const { return text_; }
  /// Errors (data): it is not a boolean.
  [[nodiscard]] bool boolean() const {
    require(kind_ == kind::boolean, errc::data, "json", "expected true or false");
    return text_ == "true";
  }
  /// A number that is an integer in range. Errors (data): it is not one.
  [[nodiscard]] std::int64_t integer() const {
    std::int64_t n = 0;
    auto const [end, code] = std::from_chars(text_.data(), text_.data() + text_.size(), n);
    require(kind_ == kind::number && code == std::errc{} && end == text_.data() + text_.size(), errc::data, "json",
            "expected an integer, got '", std::string_view(text_).substr(0, 80), "'");
    return n;
  }
  [[nodiscard]] double number() const {
    double n = 0;
    auto const [end, code] = std::from_chars(text_.data(), text_.data() + text_.size(), n);
    require(kind_ == kind::number && code == std::errc{} && end == text_.data() + text_.size(), errc::data, "json",
            "expected a number, got '", std::string_view(text_).substr(0, 80), "'");
    return n;
  }
  [[nodiscard]] std::vector<json> const& items() const { return items_; }
  [[nodiscard]] std::vector<std::string> const& keys() const { return keys_; }
  /// The member of an object, or null if there is none.
  [[nodiscard]] json const* find(std::string_view key) const {
    for (std::size_t i = 0; i < keys_.size(); ++i)
      if (keys_[i] == key) return &items_[i];
    return nullptr;
  }

  /// A JSON string literal for a text.
  static std::string quote(std::string_view text) {
    std::string out = "\"";
    constexpr char const* digits = "0123456789abcdef";
    for (char c : text) {
      auto const u = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') {
        out += '\\';
        out += c;
      } else if (u < 0x20) {
        out += "\\u00";
        out += digits[u >> 4U];
        out += digits[u & 15U];
      } else {
        out += c;
      }
    }
    return out + "\"";
  }

 private:
  struct reader {
    std::string_view in;
    std::size_t at = 0;
    std::size_t values = 0;

    void expect(bool ok, char const* what) const {
      require(ok, errc::data, "json", "expected ", what, " at byte ", at);
    }
    void space() {
      while (at < in.size() && (in[at] == ' ' || in[at] == '\t' || in[at] == '\n' || in[at] == '\r')) ++at;
    }
    [[nodiscard]] bool next(char c) const { return at < in.size() && in[at] == c; }
    /// Whether c is next; then it is taken.
    bool ends(char c) {
      bool const is = next(c);
      if (is) ++at;
      return is;
    }
    void take(char c, char const* what) {
      expect(next(c), what);
      ++at;
    }

    json value(int depth) {
      expect(++values <= most_values, "fewer values");
      space();
      expect(depth < deepest || !(next('{') || next('[')), "less nesting");
      expect(at < in.size(), "a value");
      json v;
      switch (in[at]) {
        case '{': {
          v.kind_ = kind::object;
          std::vector<std::size_t> starts;
          ++at;
          space();
          if (ends('}')) return v;
          for (;;) {
            space();
            expect(next('"'), "a key");
            starts.push_back(at);
            std::string key = string();
            space();
            take(':', "':'");
            v.items_.push_back(value(depth + 1));
            v.keys_.push_back(std::move(key));
            space();
            if (ends('}')) {
              distinct(v.keys_, starts);
              return v;
            }
            take(',', "',' or '}'");
          }
        }
        case '[': {
          v.kind_ = kind::array;
          ++at;
          space();
          if (ends(']')) return v;
          for (;;) {
            v.items_.push_back(value(depth + 1));
            space();
            if (ends(']')) return v;
            take(',', "',' or ']'");
          }
        }
        case '"':
          v.kind_ = kind::string;
          v.text_ = string();
          return v;
        case 't': return word("true", kind::boolean);
        case 'f': return word("false", kind::boolean);
        case 'n': return word("null", kind::null);
        default: return digits();
      }
    }
    void distinct(std::vector<std::string> const& keys, std::vector<std::size_t> const& starts) {
      std::vector<std::size_t> order(keys.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::sort(order.begin(), order.end(),
                [&](auto a, auto b) { return keys[a] != keys[b] ? keys[a] < keys[b] : a < b; });
      for (std::size_t i = 1; i < order.size(); ++i) {
        if (keys[order[i - 1]] != keys[order[i]]) continue;
        at = starts[order[i]];
        expect(false, "a key that was not there before");
      }
    }
    json word(std::string_view w, kind k) {
      expect(in.substr(at, w.size()) == w, "a value");
      at += w.size();
      json v;
      v.kind_ = k;
      v.text_ = w;
      return v;
    }
    json digits() {
      auto const start = at;
      auto run = [&] {
        auto const from = at;
        while (at < in.size() && in[at] >= '0' && in[at] <= '9') ++at;
        expect(at > from, "a digit");
      };
      if (next('-')) ++at;
      if (next('0')) ++at;
      else run();
      if (next('.')) ++at, run();
      if (next('e') || next('E')) {
        ++at;
        if (next('+') || next('-')) ++at;
        run();
      }
      json v;
      v.kind_ = kind::number;
      v.text_ = in.substr(start, at - start);
      return v;
    }
    std::uint32_t hex() {
      std::uint32_t u = 0;
      expect(at + 4 <= in.size(), "four hexadecimal digits");
      auto const [end, code] = std::from_chars(in.data() + at, in.data() + at + 4, u, 16);
      expect(code == std::errc{} && end == in.data() + at + 4, "four hexadecimal digits");
      at += 4;
      return u;
    }
    std::string string() {
      std::string out;
      ++at;
      for (;;) {
        expect(at < in.size(), "'\"'");
        char const c = in[at++];
        if (c == '"') return out;
        expect(static_cast<unsigned char>(c) >= 0x20, "an escaped control character");
        if (c != '\\') {
          out += c;
          continue;
        }
        expect(at < in.size(), "an escape");
        switch (in[at++]) {
          case '"': out += '"'; break;
          case '\\': out += '\\'; break;
          case '/': out += '/'; break;
          case 'b': out += '\b'; break;
          case 'f': out += '\f'; break;
          case 'n': out += '\n'; break;
          case 'r': out += '\r'; break;
          case 't': out += '\t'; break;
          case 'u': utf8(out); break;
          default: --at, expect(false, "an escape");
        }
      }
    }
    void utf8(std::string& out) {
      std::uint32_t u = hex();
      if (u >= 0xD800 && u < 0xDC00) {
        expect(in.substr(at, 2) == "\\u", "the second half of a surrogate pair");
        at += 2;
        std::uint32_t const low = hex();
        expect(low >= 0xDC00 && low < 0xE000, "the second half of a surrogate pair");
        u = 0x10000 + ((u - 0xD800) << 10U) + (low - 0xDC00);
      }
      expect(u < 0xD800 || u >= 0xE000, "a Unicode scalar value");
      auto put = [&](std::uint32_t b) { out += static_cast<char>(static_cast<unsigned char>(b)); };
      if (u < 0x80) {
        put(u);
      } else if (u < 0x800) {
        put(0xC0U | (u >> 6U)), put(0x80U | (u & 63U));
      } else if (u < 0x10000) {
        put(0xE0U | (u >> 12U)), put(0x80U | ((u >> 6U) & 63U)), put(0x80U | (u & 63U));
      } else {
        put(0xF0U | (u >> 18U)), put(0x80U | ((u >> 12U) & 63U)), put(0x80U | ((u >> 6U) & 63U)),
            put(0x80U | (u & 63U));
      }
    }
  };

  kind kind_ = kind::null;
  std::string text_;
  std::vector<json> items_;
  std::vector<std::string> keys_;
};

}  // namespace ouro
