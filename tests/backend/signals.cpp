// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Products are right, and the heap is whole, while signal handlers run all the time.
#include <catch2/catch_test_macros.hpp>

#if defined(OURO_HAS_CPU)

#include <sys/time.h>

#include <csignal>

#include <ouro/backend/cpu.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro_test/random.hpp>

namespace {
volatile std::sig_atomic_t arrived = 0;
void note(int) { arrived = arrived + 1; }
void every(long microseconds) {
  ::itimerval const t{{0, microseconds}, {0, microseconds}};
  REQUIRE(::setitimer(ITIMER_REAL, &t, nullptr) == 0);
}
}  // namespace

TEST_CASE("cpu: a signal does not disturb a product") {
  using T = ouro::tensor<ouro::cpu>;
  auto const before = std::signal(SIGALRM, note);
  std::vector<T> a, b, c;
  for (std::int64_t n : {64, 100, 256}) {
    a.push_back(ouro_test::noise<ouro::cpu>({256, n}, ouro::dtype::f32));
    b.push_back(ouro_test::noise<ouro::cpu>({n, 256}, ouro::dtype::f32));
    c.push_back(ouro::matmul(a.back(), b.back()));
  }
  every(200);
  bool same = true;
  for (int round = 0; round < 400 || arrived == 0; ++round)
    for (std::size_t i = 0; i < a.size(); ++i)
      same = same && ouro::matmul(a[i], b[i]).values<float>() == c[i].values<float>();
  every(0);
  std::signal(SIGALRM, before);
  CHECK(same);
  CHECK(arrived > 0);
}

#endif
