// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Memory that runs out, wherever it does: an exception, a life as it was, and another try that succeeds. With
// OURO_EVERY_ALLOCATION in the environment each allocation in turn is the first to fail, else some of them.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <new>
#include <optional>
#include <tuple>

#include <ouro/backend/reference.hpp>
#if defined(OURO_HAS_CPU)
#include <ouro/backend/cpu_gridman.hpp>
#endif
#if defined(OURO_EMULATED_CUDA)
#include <emulated_cuda.hpp>
#include <ouro/backend/cuda.hpp>
#endif
#include <ouro/generate/speak.hpp>
#include <ouro/life/life.hpp>
#include <ouro/train/trainer.hpp>
#include <ouro_test/small_gridman.hpp>

namespace {

constexpr long endless = std::numeric_limits<long>::max();
std::atomic<long> left{endless};  // allocations until there is no more memory

/// Whether this thread may take what it wants.
bool unlimited() noexcept {
#if defined(OURO_EMULATED_CUDA)
  return emulated_cuda::inside();
#else
  return false;
#endif
}
void* taken_or_null(std::size_t bytes, std::size_t alignment) noexcept {
  if (left.load() != endless && !unlimited() && left.fetch_sub(1) <= 0) return nullptr;
  std::size_t const rounded = (bytes + alignment - 1) / alignment * alignment;
  return std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
}
void* taken(std::size_t bytes, std::size_t alignment) {
  void* const p = taken_or_null(bytes, alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
constexpr std::size_t usual = alignof(std::max_align_t);
constexpr std::size_t number(std::align_val_t alignment) { return static_cast<std::size_t>(alignment); }

}  // namespace

// All of them, for a sanitizer has its own of each. (Inlined, g++ 12 takes new and free for a mismatch.)
#define OURO_TEST_ALLOCATION [[gnu::noinline]] void
OURO_TEST_ALLOCATION* operator new(std::size_t n) { return taken(n, usual); }
OURO_TEST_ALLOCATION* operator new[](std::size_t n) { return taken(n, usual); }
OURO_TEST_ALLOCATION* operator new(std::size_t n, std::align_val_t a) { return taken(n, number(a)); }
OURO_TEST_ALLOCATION* operator new[](std::size_t n, std::align_val_t a) { return taken(n, number(a)); }
OURO_TEST_ALLOCATION* operator new(std::size_t n, std::nothrow_t const&) noexcept { return taken_or_null(n, usual); }
OURO_TEST_ALLOCATION* operator new[](std::size_t n, std::nothrow_t const&) noexcept { return taken_or_null(n, usual); }
OURO_TEST_ALLOCATION* operator new(std::size_t n, std::align_val_t a, std::nothrow_t const&) noexcept {
  return taken_or_null(n, number(a));
}
OURO_TEST_ALLOCATION* operator new[](std::size_t n, std::align_val_t a, std::nothrow_t const&) noexcept {
  return taken_or_null(n, number(a));
}
OURO_TEST_ALLOCATION operator delete(void* p) noexcept { std::free(p); }
OURO_TEST_ALLOCATION operator delete[](void* p) noexcept { std::free(p); }
OURO_TEST_ALLOCATION operator delete(void* p, std::size_t) noexcept { std::free(p); }
OURO_TEST_ALLOCATION operator delete[](void* p, std::size_t) noexcept { std::free(p); }
OURO_TEST_ALLOCATION operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
OURO_TEST_ALLOCATION operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
OURO_TEST_ALLOCATION operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
OURO_TEST_ALLOCATION operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#undef OURO_TEST_ALLOCATION

namespace {

using R = ouro::reference;
using ouro_test::all_of;
/// Those that this program has.
using backends = decltype(std::tuple_cat(
#if defined(OURO_HAS_CPU)
    std::tuple<ouro::cpu>{},
#endif
#if defined(OURO_EMULATED_CUDA)
    std::tuple<ouro::cuda>{},
#endif
    std::tuple<R>{}));
template <class B>
using network = ouro::gridman<B>;

/// f() with memory for so many allocations; false if they were too few.
template <class F>
bool runs_with(long allocations, F&& f) {
  struct limit {
    explicit limit(long n) { left = n; }
    ~limit() { left = endless; }
  } const memory(allocations);
  try {
    f();
    return true;
  } catch (std::bad_alloc const&) {
    return false;
  }
}
/// How many it takes.
template <class F>
long allocations_of(F&& f) {
  left = endless - 1;
  f();
  return endless - 1 - left.exchange(endless);
}

/// From one number of allocations that are tried to the next; an emulated device takes its time.
template <class B>
long step_of(long needed) {
  constexpr bool emulated = ouro::on_device<B>;
#if defined(__SANITIZE_ADDRESS__)
  constexpr long some = emulated ? 3 : 20;
#else
  constexpr long some = emulated ? 10 : 80;
#endif
  return std::getenv("OURO_EVERY_ALLOCATION") != nullptr ? 1 : needed / some + 1;
}

ouro::gridman_config small() { return ouro_test::small_gridman(8); }
template <class B>
ouro::lesson<network<B>> lesson(std::uint64_t draw) {
  return ouro_test::any_lesson(draw);
}

constexpr std::size_t none = static_cast<std::size_t>(-1);
std::size_t first_difference(std::vector<double> const& a, std::vector<double> const& b) {
  for (std::size_t i = 0; i < a.size() || i < b.size(); ++i)
    if (i >= a.size() || i >= b.size() || a[i] != b[i]) return i;
  return none;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("an update that runs out of memory changes nothing, and can be tried again", "", backends) {
  using B = TestType;
  ouro::adamw const rule{.learning_rate = 0.01, .warmup = 0};
  network<B> model(small(), ouro::seed{1});
  auto life = model.newborn(ouro::seed{2});
  ouro::trainer<network<B>> t(model, rule, 0.1);
  for (std::uint64_t number = 0; number < 2; ++number) {  // the first has no moments yet, the second sleeps
    std::vector<ouro::lesson<network<B>>> const lessons{lesson<B>(2 * number), lesson<B>(2 * number + 1)};
    auto const memory = t.memory();
    network<B> const model_before = model;
    auto const life_before = life;
    auto const before = all_of(model, life, t);
    static_cast<void>(t.update(life, lessons));
    auto const after = all_of(model, life, t);
    REQUIRE(first_difference(before, after) != none);

    auto tried = [&](auto const& how) {  // from where it was
      network<B> m = model_before;
      auto l = life_before;
      ouro::trainer<network<B>> again(m, rule, 0.1);
      again.memory() = memory;
      again.updates() = static_cast<std::int64_t>(number);
      auto const come = how([&] { static_cast<void>(again.update(l, lessons)); });
      bool const done = again.updates() > static_cast<std::int64_t>(number);
      REQUIRE(first_difference(all_of(m, l, again), done ? after : before) == none);
      if (!done) {
        static_cast<void>(again.update(l, lessons));
        REQUIRE(first_difference(all_of(m, l, again), after) == none);
      }
      return come;
    };
    auto with = [&](long n) {
      INFO("update " << number << " with memory for " << n << " allocations");
      return tried([&](auto const& f) { return runs_with(n, f); });
    };
    long const needed = tried([](auto const& f) { return allocations_of(f); });
    CHECK_FALSE(with(0));
    for (long n = 1; !with(n);) n += step_of<B>(needed);  // fewer than needed, now that the pool has blocks
  }
}

TEMPLATE_LIST_TEST_CASE("speech that runs out of memory leaves the state as it was", "", backends) {
  using B = TestType;
  network<B> model(small(), ouro::seed{1});
  ouro::trainer<network<B>> t(model, {});
  auto const life = model.newborn(ouro::seed{2});
  auto const before = all_of(model, life, t);
  auto once = life;
  std::string said;
  long const needed = allocations_of([&] { said = ouro::speak(model, once, "hello", {.bytes = 7}); });
  auto const after = all_of(model, once, t);
  REQUIRE(first_difference(before, after) != none);
  for (long n = 0; n < needed; n += step_of<B>(needed)) {
    INFO("with memory for " << n << " of " << needed << " allocations");
    auto l = life;
    std::string again;
    bool const done = runs_with(n, [&] { again = ouro::speak(model, l, "hello", {.bytes = 7}); });
    REQUIRE(first_difference(all_of(model, l, t), done ? after : before) == none);
    CHECK(again == (done ? said : ""));
  }
}

TEST_CASE("a life is made, kept and opened whole, or not at all, where memory runs out") {
  auto const folder = std::filesystem::temp_directory_path() / ("ouro-exhausted-" + std::to_string(::getpid()));
  std::filesystem::remove_all(folder);
  auto const path = folder.string();
  std::optional<ouro::life<R>> alice;
  auto make = [&] { alice.emplace(ouro::life<R>::create(path, small(), ouro::seed{1}, ouro::seed{2})); };
  long const to_make = allocations_of(make);
  alice.reset();
  std::filesystem::remove_all(folder);
  for (long n = 0; !runs_with(n, make); n += step_of<R>(to_make)) {
    INFO("made with memory for " << n << " of " << to_make << " allocations");
    REQUIRE_FALSE(std::filesystem::exists(folder));
  }
  auto learn = [&](std::uint64_t number) {
    ouro::trainer<network<R>> t(alice->model, {.learning_rate = 0.01, .warmup = 0});
    t.memory() = alice->memory;
    static_cast<void>(t.update(alice->state, {lesson<R>(number)}));
    alice->memory = t.memory();
  };
  auto memories = [&] {
    ouro::trainer<network<R>> t(alice->model, {});
    t.memory() = alice->memory;
    return all_of(alice->model, alice->state, t);
  };
  learn(1);
  long const to_keep = allocations_of([&] { alice->commit(); });
  std::uint64_t number = 2;
  for (long n = 0; n < to_keep; n += step_of<R>(to_keep)) {
    learn(number++);
    auto const now = memories();
    auto const generation = alice->generation();
    INFO("kept with memory for " << n << " of " << to_keep << " allocations");
    bool const kept = runs_with(n, [&] { alice->commit(); });
    REQUIRE(first_difference(memories(), now) == none);
    CHECK(alice->generation() == generation + (kept ? 1 : 0));
    if (!kept) alice->commit();
    alice.reset();
    alice.emplace(ouro::life<R>::open(path));
    REQUIRE(first_difference(memories(), now) == none);
  }

  auto const now = memories();
  auto const generation = alice->generation();
  alice.reset();
  long const to_open = allocations_of([&] { alice.emplace(ouro::life<R>::open(path)); });
  for (long n = 0; n < to_open; n += step_of<R>(to_open)) {
    INFO("opened with memory for " << n << " of " << to_open << " allocations");
    alice.reset();
    if (!runs_with(n, [&] { alice.emplace(ouro::life<R>::open(path)); })) alice.emplace(ouro::life<R>::open(path));
    CHECK(alice->generation() == generation);
    REQUIRE(first_difference(memories(), now) == none);
  }
  alice.reset();
  std::filesystem::remove_all(folder);
}
