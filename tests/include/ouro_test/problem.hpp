// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What an error says.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <string>

#include <ouro/tensor/error.hpp>

namespace ouro_test {

/// The message of the error that f() throws, whose code must be this one; empty if it throws none.
template <class F>
std::string problem(ouro::errc code, F&& f) {
  try {
    f();
  } catch (ouro::error const& e) {
    INFO(e.what());
    CHECK(e.code() == code);
    return e.what();
  }
  return "";
}
inline bool has(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace ouro_test
