// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the fuzzers share. Each source in this folder but driver.cpp is one: it defines LLVMFuzzerTestOneInput, which libFuzzer
// or driver.cpp calls, and its seeds. A finding is whatever ends the program.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <ouro/tensor/error.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);

namespace ouro_fuzz {

/// Inputs that reach far, to begin with.
std::vector<std::string> seeds();

/// Ends the program unless a property holds, also where assertions are off.
inline void hold(bool ok, char const* what) {
  if (ok) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

/// Whether f() goes through. False if it throws an error of a kind that fits; any other exception is a finding.
template <class F>
bool accepted(std::initializer_list<ouro::errc> fitting, F&& f) {
  try {
    f();
    return true;
  } catch (ouro::error const& e) {
    if (std::find(fitting.begin(), fitting.end(), e.code()) == fitting.end()) throw;
    hold(e.what()[0] == '[', "a message says where it comes from");
    return false;
  }
}

/// Takes an input apart from its front on. Behind its end are zeros.
class input {
 public:
  input(std::uint8_t const* data, std::size_t size) : left_(reinterpret_cast<char const*>(data), size) {}

  [[nodiscard]] bool empty() const { return left_.empty(); }
  std::size_t byte() {
    if (empty()) return 0;
    auto const b = static_cast<unsigned char>(left_[0]);
    left_.remove_prefix(1);
    return b;
  }
  /// A number below `end`, which is at least 1, of three bytes.
  std::size_t below(std::size_t end) {
    auto const high = byte();
    auto const middle = byte();
    return ((high << 16U) + (middle << 8U) + byte()) % end;
  }
  /// Up to `most` bytes.
  std::string_view text(std::size_t most) {
    auto const part = left_.substr(0, most);
    left_.remove_prefix(part.size());
    return part;
  }
  std::string_view rest() { return text(left_.size()); }

 private:
  std::string_view left_;
};

}  // namespace ouro_fuzz
