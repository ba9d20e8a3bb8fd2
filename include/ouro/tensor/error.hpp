// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The one exception type of the library. A message reads `[where] rule, got what`.
#pragma once

#if __cplusplus < 202002L
#error "Ouro is written in C++20: compile with -std=c++20 or later"
#endif

#include <initializer_list>
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

/// A part of a message: what it is, and how it is written. Nothing is written unless the message is.
struct message_part {
  void const* what;
  std::string (*text)(void const*);
};

template <class T>
std::string part_text(void const* what) {
  T const& t = *static_cast<T const*>(what);
  if constexpr (std::is_arithmetic_v<T>) return std::to_string(t);
  else if constexpr (requires { t.str(); }) return t.str();
  else return std::string(t);
}
template <class T>
message_part part(T const& t) {
  return {&t, &part_text<T>};
}
inline message_part part(char const* t) {
  return {t, [](void const* what) { return std::string(static_cast<char const*>(what)); }};
}

[[noreturn]] inline void throw_error(errc code, char const* where, std::initializer_list<message_part> parts) {
  std::string message = std::string("[") + where + "] ";
  for (auto const& p : parts) message += p.text(p.what);
  throw error(code, message);
}

}  // namespace detail

/// Throws `ouro::error` with the message `[where] parts…`. A part is a string, a number, or anything with `str()`.
template <class... Parts>
[[noreturn]] void fail(errc code, char const* where, Parts const&... parts) {
  detail::throw_error(code, where, {detail::part(parts)...});
}

/// Throws unless `ok`.
template <class... Parts>
constexpr void require(bool ok, errc code, char const* where, Parts const&... parts) {
  if (!ok) fail(code, where, parts...);
}

}  // namespace ouro
