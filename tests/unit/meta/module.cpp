// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Reflection: every member once, in order, of structs as large as is promised.
#include <catch2/catch_test_macros.hpp>

#include <string>

#include <ouro/meta/module.hpp>

namespace {

#define TEN(x) x##0, x##1, x##2, x##3, x##4, x##5, x##6, x##7, x##8, x##9
#define FIFTY(x) TEN(x##0), TEN(x##1), TEN(x##2), TEN(x##3), TEN(x##4)

struct one {
  int only;
  OURO_MODULE(one, only);
};
struct hundred_and_sixty {
  int FIFTY(a), FIFTY(b), FIFTY(c), TEN(d);
  OURO_MODULE(hundred_and_sixty, FIFTY(a), FIFTY(b), FIFTY(c), TEN(d));
};

#undef FIFTY
#undef TEN

template <class T>
std::string numbered(T& object) {
  std::string names;
  int i = 0;
  ouro::meta::for_each_member(object, [&](char const* name, int& value) {
    value = i++;
    names += std::string(name) + ' ';
  });
  return names;
}

}  // namespace

TEST_CASE("a module of 160 members") {
  one small{};
  CHECK(numbered(small) == "only ");
  hundred_and_sixty large{};
  std::string names;
  for (char letter : {'a', 'b', 'c'})
    for (int i = 0; i < 50; ++i) names += letter + std::to_string(i / 10) + std::to_string(i % 10) + ' ';
  for (int i = 0; i < 10; ++i) names += 'd' + std::to_string(i) + ' ';
  CHECK(numbered(large) == names);
  CHECK(large.a00 == 0);
  CHECK(large.a41 == 41);
  CHECK(large.b00 == 50);
  CHECK(large.d9 == 159);
}
