// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The one exception type of the library. A message reads `[where] rule, got what`.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

namespace ouro {

/// What kind of fault an `ouro::error` reports; programs turn it into an exit code.
enum class errc {
  argument,     ///< a value outside the documented range
  shape,        ///< operands whose shapes or dtypes do not fit together
  config,       ///< a configuration that breaks a rule; nothing was allocated
  data,         ///< malformed input data: path and position are in the message
  numeric,      ///< a non-finite value where a finite one is required
  storage,      ///< a file that cannot be read, written, locked or trusted
  unavailable,  ///< a backend or feature that is not built into this program
};

class error : public std::runtime_error {
 public:
  error(errc code, std::string const& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] errc code() const noexcept { return code_; }

 private:
  errc code_;
};

namespace detail {
inline std::string text(std::string s) { return s; }
inline std::string text(char const* s) { return s; }
template <class T>
  requires std::is_arithmetic_v<T>
std::string text(T value) {
  return std::to_string(value);
}
template <class T>
  requires requires(T const& t) { t.str(); }
std::string text(T const& t) {
  return t.str();
}
}  // namespace detail

/// Throws `ouro::error` with the message `[where] parts…`. A part is a string, a number, or anything with `str()`.
template <class... Parts>
[[noreturn]] void fail(errc code, char const* where, Parts const&... parts) {
  std::string message = std::string("[") + where + "] ";
  ((message += detail::text(parts)), ...);
  throw error(code, message);
}

/// Throws unless `ok`.
template <class... Parts>
constexpr void require(bool ok, errc code, char const* where, Parts const&... parts) {
  if (!ok) fail(code, where, parts...);
}

}  // namespace ouro
