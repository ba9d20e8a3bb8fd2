// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Bytes in, valid UTF-8 out, as soon as a character is complete.
#pragma once

#include <string>
#include <string_view>

namespace ouro {

/// Ill-formed input becomes U+FFFD, one for each maximal subpart (The Unicode Standard, section 3.9). No byte is lost
/// or repeated: the joined output does not depend on how the input was split.
class utf8_stream {
 public:
  /// Takes bytes; gives the characters that are complete.
  std::string feed(std::string_view bytes) {
    std::string out;
    for (char c : bytes) take(static_cast<unsigned char>(c), out);
    return out;
  }
  /// The same for one byte.
  std::string feed(char byte) { return feed(std::string_view(&byte, 1)); }
  /// What is left at the end: U+FFFD if a character was cut off.
  std::string finish() {
    std::string out;
    if (!held_.empty()) out = replacement;
    held_.clear();
    need_ = 0;
    return out;
  }

 private:
  static constexpr char const* replacement = "\xEF\xBF\xBD";

  void take(unsigned char c, std::string& out) {
    if (need_ > 0) {
      if (c >= low_ && c <= high_) {
        held_ += static_cast<char>(c);
        low_ = 0x80;
        high_ = 0xBF;
        if (--need_ == 0) {
          out += held_;
          held_.clear();
        }
        return;
      }
      out += replacement;
      held_.clear();
      need_ = 0;
    }
    low_ = 0x80;
    high_ = 0xBF;
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else if (c >= 0xC2 && c <= 0xF4) {
      need_ = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
      if (c == 0xE0) low_ = 0xA0;   // no overlong forms,
      if (c == 0xED) high_ = 0x9F;  // no surrogates,
      if (c == 0xF0) low_ = 0x90;
      if (c == 0xF4) high_ = 0x8F;  // nothing above U+10FFFF
      held_ = static_cast<char>(c);
    } else {
      out += replacement;
    }
  }

  std::string held_;
  int need_ = 0;
  unsigned char low_ = 0x80;
  unsigned char high_ = 0xBF;
};

}  // namespace ouro
