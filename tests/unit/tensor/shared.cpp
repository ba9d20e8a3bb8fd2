// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Shared ownership: the object goes with its last owner, once, on any thread.
#include <catch2/catch_test_macros.hpp>

#include <thread>
#include <vector>

#include <ouro/tensor/shared.hpp>

namespace {
struct base : ouro::counted {
  explicit base(int& n) : gone(n) {}
  virtual ~base() { ++gone; }
  int& gone;
};
struct derived final : base {
  using base::base;
};
}  // namespace

TEST_CASE("shared: the object goes with its last owner") {
  int gone = 0;
  ouro::shared<base> kept;
  CHECK(!kept);
  CHECK_FALSE(kept.unique());
  {
    auto const first = ouro::make_owned<derived>(gone);
    CHECK(first.unique());
    kept = first;
    CHECK_FALSE(first.unique());
    CHECK(kept.get() == first.get());
    auto moved = kept;
    auto const taken = std::move(moved);
    CHECK(taken == kept);
    kept = *&kept;
  }
  CHECK(gone == 0);
  CHECK(kept.unique());
  kept = nullptr;
  CHECK(gone == 1);
}

TEST_CASE("shared: owners come and go on several threads") {
  int gone = 0;
  {
    auto const object = ouro::make_owned<base>(gone);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([object] {
        for (int i = 0; i < 10000; ++i) auto const copy = object;
      });
    for (auto& t : threads) t.join();
    CHECK(object.unique());
  }
  CHECK(gone == 1);
}
