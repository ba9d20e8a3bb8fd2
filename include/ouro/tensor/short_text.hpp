// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A text of bounded length, kept in place: what a configuration holds, so that it stays trivially copyable.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <ouro/tensor/error.hpp>

namespace ouro {

template <std::size_t Most>
class short_text {
 public:
  constexpr short_text() = default;
  /// Errors (argument): more than `Most` bytes.
  constexpr short_text(std::string_view text) : size_(text.size()) {  // NOLINT: a text is a text
    require(text.size() <= Most, errc::argument, "short_text", "must have at most ", Most, " bytes, got ", text.size());
    for (std::size_t i = 0; i < size_; ++i) bytes_[i] = text[i];
  }
  constexpr short_text(char const* text) : short_text(std::string_view(text)) {}  // NOLINT

  [[nodiscard]] constexpr bool empty() const { return size_ == 0; }
  [[nodiscard]] constexpr std::string_view view() const { return {bytes_.data(), size_}; }
  [[nodiscard]] std::string str() const { return std::string(view()); }
  friend constexpr bool operator==(short_text const&, short_text const&) = default;

 private:
  std::array<char, Most> bytes_{};  // zero behind the text, so that equal texts are equal
  std::size_t size_ = 0;
};

}  // namespace ouro
