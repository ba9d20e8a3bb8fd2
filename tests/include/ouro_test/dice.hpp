// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What a test draws at random and must draw again.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#include <ouro/tensor/random.hpp>

namespace ouro_test {

/// Numbers drawn by a key, the same ones whenever they are.
class dice {
 public:
  explicit dice(std::uint64_t key) : draw_{key, 17} {}
  /// 0 ≤ n < end.
  std::int64_t below(std::int64_t end) {
    return static_cast<std::int64_t>(draw_.word(next_++) % static_cast<std::uint64_t>(end));
  }
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + below(high - low + 1); }
  bool chance(int percent) { return below(100) < percent; }
  std::uint64_t key() { return draw_.word(next_++); }

 private:
  ouro::random_draw draw_;
  std::uint64_t next_ = 0;
};

/// So many as this variable of the environment says, or `usual`.
inline std::uint64_t how_many(char const* variable, std::uint64_t usual) {
  char const* const asked = std::getenv(variable);
  return asked != nullptr ? std::stoull(asked) : usual;
}

}  // namespace ouro_test
