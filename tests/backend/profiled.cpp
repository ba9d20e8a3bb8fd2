// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A profiled backend computes what the backend does, and counts what that took.
#include <ouro/backend/profiled.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/random.hpp>

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

TEMPLATE_LIST_TEST_CASE("backends: a profile counts calls, operations and bytes", "", ouro_test::accelerated) {
  TestType::need();
  using B = typename TestType::backend;
  using P = ouro::profiled<B>;
  auto product = []<class X>(std::type_identity<X>) {
    auto const a = ouro::tensor<X>::full({2, 70, 30}, TestType::type, 0.5);
    auto const b = ouro::tensor<X>::full({2, 30, 50}, TestType::type, 0.25);
    auto const c = ouro::tensor<X>::full({2, 1, 50}, TestType::type, 3.0);
    return ouro::matmul(a, b, c).template values<double>();
  };
  auto const expected = product(std::type_identity<B>{});
  P::profile().clear();
  CHECK(product(std::type_identity<P>{}) == expected);
  CHECK(product(std::type_identity<P>{}) == expected);
  auto const size = static_cast<double>(ouro::size_of(TestType::type));
  auto const& found = P::profile();
  REQUIRE(found.size() == 3);
  auto const& m = found.at("matmul");
  CHECK(m.calls == 2);
  CHECK(m.operations == 2 * 2.0 * 2 * 70 * 30 * 50);
  CHECK(m.bytes == 2 * size * 2 * (70 * 30 + 30 * 50 + 2 * 70 * 50));  // the result is read too: it is added to
  CHECK(m.seconds > 0);
  CHECK(found.at("fill").calls == 6);
  CHECK(found.at("copy").calls == 2);
  P::profile().clear();
  CHECK(P::profile().empty());
}

#endif
