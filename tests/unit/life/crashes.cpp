// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life on a disk that loses its power, or whose calls fail: what was acknowledged is there, whole, and nothing is in between.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <ouro_test/folder.hpp>
#include <ouro_test/problem.hpp>

#include "creature.hpp"
#include "disk.hpp"

namespace {

namespace fs = std::filesystem;
using ouro_test::all_of;
using ouro_test::creature_life;
using ouro_test::learn;
using numbers = std::vector<double>;

creature_life opened(std::string const& path) { return ouro_test::opened(path, 16); }

/// Two folders: one for a disk as it is, one for what is left of it.
struct folders {
  ouro_test::folder around;
  std::string disk = around.at("disk");
  std::string left = around.at("left");
  folders() { fs::create_directory(disk); }
  void leaves(disk::remains const& r) const {
    fs::remove_all(left);
    fs::create_directory(left);
    r.write_to(left);
  }
};
std::string listing(disk::remains const& r) {
  auto text = "after generation " + std::to_string(r.acknowledged) + ":";
  for (auto const& [path, c] : r.files) text += "\n  " + path + ", " + std::to_string(c->bytes.size()) + " bytes";
  return text;
}

/// What the generations of a life hold, and which of them were acknowledged.
struct history {
  disk::recorder power;
  std::map<std::int64_t, numbers> generations;

  explicit history(std::string const& folder) : power(folder) {}
  void acknowledge(creature_life& l) {
    generations[l.generation()] = all_of(l);
    power.mark(static_cast<int>(l.generation()));
  }
  /// Whether what is at a path is the last generation that was acknowledged, which is false, or the next one.
  bool advanced(std::string const& path, std::int64_t acknowledged, bool damaged = false) const {
    auto l = opened(path);
    auto const g = l.generation();
    auto const now = all_of(l);
    auto const next = generations.upper_bound(acknowledged);
    REQUIRE((g == acknowledged || (next != generations.end() && g == next->first)));
    REQUIRE(now == generations.at(g));
    l.commit();  // what was left half done is in nobody's way
    { auto const closed = std::move(l); }
    auto again = opened(path);
    REQUIRE(again.generation() > g);
    REQUIRE((damaged || again.passed_over().empty()));
    REQUIRE(all_of(again) == now);
    return g != acknowledged;
  }
};

}  // namespace

TEST_CASE("crashes: after a power failure there is the last generation that was acknowledged, or the next") {
  folders const f;
  auto const path = f.disk + "/life";
  history h(f.disk);
  {
    auto l = opened(path);
    h.acknowledge(l);
    for (int update = 0; update < 4; ++update) {
      learn(l, update, update + 1);
      h.acknowledge(l);
    }
    l.commit();  // the same weights again: a second file of them
    h.acknowledge(l);
  }
  int unborn = 0;
  int advanced = 0;
  auto const count = h.power.for_each_crash([&](disk::remains const& r) {
    INFO(listing(r));
    f.leaves(r);
    auto const there = f.left + "/life";
    if (ouro::exists(there)) {
      advanced += h.advanced(there, std::max<std::int64_t>(r.acknowledged, 1)) ? 1 : 0;
    } else {
      REQUIRE(r.acknowledged == 0);
      static_cast<void>(opened(there));  // can be born
      ++unborn;
    }
  });
  CHECK(count > 150);
  CHECK(unborn > 10);
  CHECK(advanced > 10);
}

TEST_CASE("crashes: a power failure while a damaged generation is set aside loses neither it nor the one before") {
  folders const f;
  auto const path = f.disk + "/life";
  {
    auto l = opened(path);
    learn(l, 0, 1), learn(l, 1, 2);
  }
  std::string bad;
  for (auto const& name : ouro::entries_of(path))
    if (name.starts_with("snapshot-3-")) {
      bad = ouro::read_file(path + "/" + name);
      bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
      std::ofstream(path + "/" + name, std::ios::binary) << bad;
    }
  REQUIRE_FALSE(bad.empty());
  history h(f.disk);
  {
    auto l = opened(path);
    REQUIRE(l.generation() == 2);
    h.acknowledge(l);
    for (int update = 2; update < 5; ++update) {
      learn(l, update, update + 1);
      h.acknowledge(l);
    }
  }
  int advanced = 0;
  auto const count = h.power.for_each_crash([&](disk::remains const& r) {
    INFO(listing(r));
    f.leaves(r);
    auto const kept =
        std::count_if(r.files.begin(), r.files.end(), [&](auto const& x) { return x.second->bytes == bad; });
    REQUIRE(kept == 1);
    advanced += h.advanced(f.left + "/life", std::max<std::int64_t>(r.acknowledged, 2), true) ? 1 : 0;
  });
  CHECK(count > 90);
  CHECK(advanced > 10);
}

TEST_CASE("crashes: after a power failure a fork is whole or is not there") {
  folders const f;
  auto l = opened(f.disk + "/life");
  learn(l, 0, 1), learn(l, 1, 2);
  auto const now = all_of(l);
  int whole = 0;
  disk::recorder power(f.disk);
  l.fork(f.disk + "/twin");
  power.mark(1);
  auto const count = power.for_each_crash([&](disk::remains const& r) {
    INFO(listing(r));
    f.leaves(r);
    auto original = opened(f.left + "/life");
    REQUIRE(all_of(original) == now);
    if (ouro::exists(f.left + "/twin")) {
      auto twin = opened(f.left + "/twin");
      REQUIRE(twin.passed_over().empty());
      REQUIRE(all_of(twin) == now);
      ++whole;
    } else {
      REQUIRE(r.acknowledged == 0);
      original.fork(f.left + "/twin");
    }
  });
  CHECK(count > 40);
  CHECK(whole > 0);
}

namespace {

/// f(n-th call, errno) for each call that try_it(n, errno) makes, until all of them have been made; 0 stands for a short write.
template <class F>
void for_each_fault(F&& try_it) {
  for (int number : {EIO, ENOSPC, EMFILE, EINTR, 0}) {
    bool more = true;
    for (long n = 1; more; ++n) {
      INFO("call " << n << ": " << (number == 0 ? "a short write" : std::strerror(number)));
      more = try_it(n, number);
      REQUIRE(n < 1000);
    }
  }
}
/// What came of it.
struct outcome {
  bool more;        ///< the call was made
  bool done;        ///< nothing was thrown
  std::string why;  ///< what was
};
/// f() with the n-th call failing: it is done, or throws an error (storage) that names something in a folder.
template <class F>
outcome with_fault(long n, int number, std::string const& folder, F&& f) {
  outcome o{true, false, ""};
  disk::fault const fault(n, number);
  try {
    f();
    o.done = true;
  } catch (ouro::error const& e) {
    o.why = e.what();
    INFO(e.what());
    CHECK(e.code() == ouro::errc::storage);
    CHECK(ouro_test::has(o.why, folder));
  }
  o.more = fault.happened();
  std::string_view const failed = fault.failed();
  INFO(failed << ": " << o.why);
  CHECK((o.more || o.done));
  CHECK_FALSE(fault.synced_again());
  // Who was interrupted tries again, and who wrote a part writes the rest.
  if (number == 0 ||
      (number == EINTR && (failed == "open" || failed == "read" || failed == "write" || failed == "flock")))
    CHECK(o.done);
  return o;
}
std::vector<std::string> entries(std::string const& path) {
  auto list = ouro::entries_of(path);
  std::sort(list.begin(), list.end());
  return list;
}

}  // namespace

TEST_CASE("crashes: whichever call fails, a life is born whole or leaves nothing behind") {
  folders const f;
  auto const path = f.disk + "/life";
  for_each_fault([&](long n, int number) {
    std::optional<creature_life> l;
    auto const o = with_fault(n, number, f.disk, [&] { l.emplace(opened(path)); });
    if (!o.done) CHECK(entries(f.disk).empty());
    if (!o.done) l.emplace(opened(path));
    auto const now = all_of(*l);
    l.reset();
    auto again = opened(path);
    CHECK(again.generation() == 1);
    CHECK(all_of(again) == now);
    fs::remove_all(path);
    return o.more;
  });
}

TEST_CASE("crashes: whichever call of a commit fails, the life goes on and the last generation is there") {
  folders const f;
  auto const path = f.disk + "/life";
  auto l = opened(path);
  int update = 0;
  for_each_fault([&](long n, int number) {
    auto const before = all_of(l);
    auto const generation = l.generation();
    auto t = l.resume({.learning_rate = 0.01, .warmup = 0});
    static_cast<void>(t.update(l.state, {{{0.1F, 0.2F}, {static_cast<float>(++update % 7), 0.5F}}}));
    l.memory = t.memory();
    l.progress.updates = t.updates();
    auto const now = all_of(l);
    auto const o = with_fault(n, number, path, [&] { l.commit(t); });
    CHECK(all_of(l) == now);
    CHECK(l.generation() == generation + (o.done ? 1 : 0));
    fs::remove_all(f.left);
    fs::copy(path, f.left);
    {  // what another would find
      auto found = opened(f.left);
      auto const held = all_of(found);
      CHECK((held == now || (!o.done && held == before)));
      CHECK(found.passed_over().empty());
    }
    l.commit(t);  // again if it was done; it clears away what the first try left
    fs::remove_all(f.left);
    fs::copy(path, f.left);
    auto found = opened(f.left);
    CHECK(all_of(found) == now);
    CHECK(found.passed_over().empty());
    return o.more;
  });
}

TEST_CASE("crashes: whichever call fails when a life is opened, it is opened later") {
  folders const f;
  auto const path = f.disk + "/life";
  {
    auto l = opened(path);
    learn(l, 0, 1), learn(l, 1, 2);
  }
  auto const files = entries(path);
  auto const now = [&] {
    auto l = opened(path);
    return all_of(l);
  }();
  for_each_fault([&](long n, int number) {
    std::optional<creature_life> l;
    auto const o = with_fault(n, number, path, [&] { l.emplace(opened(path)); });
    if (o.done) CHECK((all_of(*l) == now || !l->passed_over().empty()));
    l.reset();
    CHECK(entries(path) == files);
    auto again = opened(path);
    CHECK(again.passed_over().empty());
    CHECK(all_of(again) == now);
    return o.more;
  });
}

TEST_CASE("crashes: whichever call fails, a fork is whole or leaves nothing behind") {
  folders const f;
  auto l = opened(f.disk + "/life");
  learn(l, 0, 1), learn(l, 1, 2);
  auto const now = all_of(l);
  for_each_fault([&](long n, int number) {
    auto const o = with_fault(n, number, f.disk, [&] { l.fork(f.disk + "/twin"); });
    CHECK(entries(f.disk).size() == (o.done ? 2 : 1));
    if (!o.done) l.fork(f.disk + "/twin");
    auto twin = opened(f.disk + "/twin");
    CHECK(all_of(twin) == now);
    CHECK(twin.passed_over().empty());
    fs::remove_all(f.disk + "/twin");
    return o.more;
  });
}
