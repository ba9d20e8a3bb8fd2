// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life on damaged files: nothing that was kept is lost, deleted or believed, and what was passed over is said.
#include <catch2/catch_test_macros.hpp>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <ouro/backend/reference.hpp>
#include <ouro/life/life.hpp>
#include <ouro_test/folder.hpp>
#include <ouro_test/problem.hpp>
#include <ouro_test/small_gridman.hpp>

namespace {

namespace fs = std::filesystem;
using ouro_test::has;
using ouro_test::problem;
using R = ouro::reference;
using network = ouro::gridman<R>;
using life = ouro::life<R>;
using names = std::vector<std::string>;

/// A life in a folder of its own, gone at the end.
struct folder {
  ouro_test::folder around;

  [[nodiscard]] std::string path() const { return around.at("life"); }
  [[nodiscard]] std::string of(std::string const& name) const { return path() + "/" + name; }
  [[nodiscard]] names entries() const {
    auto list = ouro::entries_of(path());
    std::sort(list.begin(), list.end());
    return list;
  }
  /// The one file whose name begins so.
  [[nodiscard]] std::string file(std::string const& prefix) const {
    names found;
    for (auto const& name : entries())
      if (name.starts_with(prefix)) found.push_back(name);
    INFO(prefix);
    REQUIRE(found.size() == 1);
    return of(found[0]);
  }
  [[nodiscard]] std::string snapshot(std::int64_t g) const { return file("snapshot-" + std::to_string(g) + "-"); }
  [[nodiscard]] std::string weights(std::int64_t g) const {
    return of(ouro::safetensors_reader::open(snapshot(g)).metadata().at("weights"));
  }
};

life born(folder const& f) { return life::create(f.path(), ouro_test::small_gridman(8), ouro::seed{1}, ouro::seed{2}); }
void learn(life& l, std::uint64_t draw) {
  auto t = l.resume({.learning_rate = 0.01, .warmup = 0});
  REQUIRE_FALSE(t.update(l.state, {ouro_test::any_lesson(draw)}).refused);
  l.commit(t);
}
std::vector<double> all_of(life& l) {
  auto t = l.resume({});
  return ouro_test::all_of(l.model, l.state, t);
}

void write(std::string const& path, std::string const& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
std::string flipped(std::string bytes, std::size_t at, int bit = 0) {
  bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
  return bytes;
}
void damage(std::string const& path) {
  auto const bytes = ouro::read_file(path);
  write(path, flipped(bytes, bytes.size() / 2));
}
std::string said(names const& reasons) {
  std::string all;
  for (auto const& r : reasons) all += r + "\n";
  return all;
}
template <class F>
std::string storage_problem(F&& f) {
  return problem(ouro::errc::storage, f);
}

/// What a snapshot holds, to be written as another one whose hash is right.
struct contents {
  struct entry {
    std::string type;
    std::vector<std::int64_t> dims;
    std::string bytes;
  };
  std::map<std::string, std::string> metadata;
  std::map<std::string, entry> tensors;
};
template <class F>
void craft(folder const& f, std::int64_t generation, F&& change) {
  auto const file = f.snapshot(generation);
  contents c;
  {
    auto const in = ouro::safetensors_reader::open(file);
    c.metadata = in.metadata();
    for (auto const& name : in.names()) {
      auto const s = in.at(name);
      c.tensors[name] = {s.type, s.dims, std::string(s.bytes)};
    }
  }
  change(c);
  ouro::safetensors_writer out;
  for (auto const& [key, value] : c.metadata) out.set(key, value);
  for (auto const& [name, e] : c.tensors) out.add(name, e.type, e.dims, e.bytes);
  auto const hash = ouro::detail::hash_of(out.str());
  fs::remove(file);
  write(f.of("snapshot-" + std::to_string(generation) + "-" + hash + ".safetensors"), out.str());
  auto const current = ouro::read_file(f.of("CURRENT"));
  write(f.of("CURRENT"), std::to_string(generation) + " " + hash + current.substr(current.find('\n')));
}

/// Why the second generation of a life is passed over when it is another one. Afterwards it is as it was.
template <class F>
std::string passed_over_with(folder const& f, F&& change) {
  auto const file = f.snapshot(2);
  auto const good = ouro::read_file(file);
  auto const current = ouro::read_file(f.of("CURRENT"));
  craft(f, 2, change);
  std::string reason;
  {
    auto const l = life::open(f.path());
    CHECK(l.generation() == 1);
    reason = said(l.passed_over());
  }
  fs::remove(f.snapshot(2));
  write(f.of("CURRENT"), current);
  write(file, good);
  return reason;
}

}  // namespace

TEST_CASE("life: saved after two updates and opened again it goes on like one that was never closed") {
  folder const f;
  std::vector<double> after;
  {
    auto l = born(f);
    auto t = l.resume({.learning_rate = 0.01, .warmup = 3}, 0.2);
    for (std::uint64_t u = 0; u < 4; ++u) static_cast<void>(t.update(l.state, {ouro_test::any_lesson(u)}));
    l.commit(t);
    CHECK(l.progress.updates == 4);
    after = all_of(l);
  }
  fs::remove_all(f.path());
  static_cast<void>(born(f));
  for (std::uint64_t u = 0; u < 4; u += 2) {
    auto l = life::open(f.path());
    auto t = l.resume({.learning_rate = 0.01, .warmup = 3}, 0.2);
    CHECK(t.updates() == static_cast<std::int64_t>(u));
    for (auto v = u; v < u + 2; ++v) static_cast<void>(t.update(l.state, {ouro_test::any_lesson(v)}));
    l.commit(t);
    CHECK(l.passed_over().empty());
  }
  auto l = life::open(f.path());
  CHECK(all_of(l) == after);
}

TEST_CASE("life: weights that are damaged are not believed when the same are learned again") {
  folder const f;
  static_cast<void>(born(f));
  {
    auto l = life::open(f.path());
    learn(l, 1);
  }
  // The second generation loses its weights again and again, and they are learned from the first one each time.
  for (int i = 0; i < 4; ++i) {
    std::int64_t newest = 0;
    {
      auto l = life::open(f.path());
      newest = l.generation();
    }
    damage(f.weights(newest));
    auto l = life::open(f.path());
    CHECK(l.generation() == 1);
    CHECK(has(said(l.passed_over()), "generation " + std::to_string(newest) + ": [life] weights-"));
    learn(l, 1);
    CHECK(l.generation() == newest + 1);
    auto const kept = f.entries();
    CHECK(std::count_if(kept.begin(), kept.end(), [](auto const& n) {
            return n.starts_with("weights-") && n.ends_with(".quarantine");
          }) == i + 1);
  }
  auto l = life::open(f.path());
  CHECK(l.generation() == 6);
  CHECK(l.passed_over().empty());
}

TEST_CASE("life: three good generations stay, whichever of them is damaged, and the damaged one too") {
  for (int older = 0; older < 3; ++older)
    for (bool weights : {false, true}) {
      INFO(older << " generations before the newest" << (weights ? ", its weights" : ""));
      folder const f;
      {
        auto l = born(f);
        learn(l, 1), learn(l, 2);
      }
      auto const victim = weights ? f.weights(3 - older) : f.snapshot(3 - older);
      damage(victim);
      auto const bad = ouro::read_file(victim);
      {
        auto l = life::open(f.path());
        CHECK(l.generation() == (older == 0 ? 2 : 3));
        CHECK(l.passed_over().size() == 1);
        CHECK(ouro::read_file(victim) == bad);  // opening changes nothing
        learn(l, 3);
        CHECK(life(std::move(l)).generation() == 4);
      }
      CHECK(ouro::read_file(victim + ".quarantine") == bad);
      auto const current = ouro::read_file(f.of("CURRENT"));
      CHECK(std::count(current.begin(), current.end(), '\n') == 3);
      auto l = life::open(f.path());
      CHECK(l.passed_over().empty());
      for (std::uint64_t i = 0; i < 3; ++i) l.commit();
      CHECK(ouro::read_file(victim + ".quarantine") == bad);
    }
}

TEST_CASE("life: no bit of CURRENT, and no end of it, is worth a generation") {
  folder const f;
  auto l = born(f);
  learn(l, 1), learn(l, 2), learn(l, 3);
  auto const now = all_of(l);
  { auto const closed = std::move(l); }
  auto const current = ouro::read_file(f.of("CURRENT"));
  std::map<std::string, std::string> good;
  for (auto const& name : f.entries()) good[name] = ouro::read_file(f.of(name));
  std::vector<std::string> damaged;
  for (std::size_t i = 0; i < current.size(); ++i) damaged.push_back(flipped(current, i, static_cast<int>(i % 8)));
  for (std::size_t n : {0U, 1U, 2U, 18U, 19U, 20U, 38U, 56U}) damaged.push_back(current.substr(0, n));
  damaged.push_back(current + current);
  damaged.push_back("x" + current);
  damaged.push_back("+" + current);
  std::size_t number = 0;
  for (auto const& d : damaged) {
    INFO(d);
    write(f.of("CURRENT"), d);
    auto opened = life::open(f.path());
    REQUIRE(opened.generation() == 4);
    REQUIRE(all_of(opened) == now);
    REQUIRE_FALSE(opened.passed_over().empty());
    if (number++ % 19 != 0) continue;
    opened.commit();  // changes the folder: tried for some of them
    REQUIRE(opened.generation() == 5);
    for (auto const& [name, bytes] : good)
      if (name != "CURRENT") REQUIRE(ouro::read_file(f.of(name)) == bytes);
    { auto const closed = std::move(opened); }
    for (auto const& name : f.entries())
      if (good.count(name) == 0) fs::remove(f.of(name));
  }
  fs::remove(f.of("CURRENT"));
  auto opened = life::open(f.path());
  CHECK(all_of(opened) == now);
  CHECK(has(said(opened.passed_over()), "CURRENT: "));
  learn(opened, 4);
  { auto const closed = std::move(opened); }
  CHECK(life::open(f.path()).passed_over().empty());
}

TEST_CASE("life: of a commit that was killed nothing is left, and its number is not used again") {
  folder const f;
  auto l = born(f);
  learn(l, 1);
  auto const before = ouro::read_file(f.of("CURRENT"));
  learn(l, 2);
  { auto const closed = std::move(l); }
  write(f.of("CURRENT"), before);
  write(f.of("CURRENT.tmp-1234"), "3 ");
  write(f.of("weights-0.safetensors.tmp-1234"), "w");
  auto opened = life::open(f.path());
  CHECK(opened.generation() == 2);
  CHECK(opened.passed_over().empty());
  learn(opened, 3);
  CHECK(opened.generation() == 4);
  auto const entries = f.entries();
  CHECK(std::none_of(entries.begin(), entries.end(), [](auto const& n) { return has(n, ".tmp-"); }));
  CHECK(entries.size() == 2 + 3 * 2);
}

TEST_CASE("life: one whose snapshots have no hash in their names goes on") {
  folder const f;
  {
    auto l = born(f);
    learn(l, 1), learn(l, 2);
  }
  for (auto const* g : {"1", "2", "3"})
    fs::rename(f.file(std::string("snapshot-") + g + "-"), f.of(std::string("snapshot-") + g + ".safetensors"));
  {
    auto l = life::open(f.path());
    CHECK(l.generation() == 3);
    CHECK(l.passed_over().empty());
    learn(l, 3);
  }
  CHECK(fs::exists(f.of("snapshot-3.safetensors")));
  CHECK_FALSE(fs::exists(f.of("snapshot-1.safetensors")));
  CHECK(life::open(f.path()).generation() == 4);
  auto const current = ouro::read_file(f.of("CURRENT"));
  fs::remove(f.snapshot(4));
  fs::remove(f.of("CURRENT"));
  CHECK(has(storage_problem([&] { life::open(f.path()); }), "nothing says the hash of snapshot-3.safetensors"));
  write(f.of("CURRENT"), current);
  CHECK(life::open(f.path()).generation() == 3);
}

TEST_CASE("life: one whose files are named by the first version's hash goes on") {
  folder const f;
  std::vector<double> now;
  std::string names;  // CURRENT
  {
    auto l = born(f);
    learn(l, 1);
    now = all_of(l);
  }
  for (std::int64_t g : {2, 1}) {
    auto const old = f.weights(g);
    auto const bytes = ouro::read_file(old);
    auto const weights = "weights-" + ouro::detail::first_hash_of(bytes) + ".safetensors";
    craft(f, g, [&](contents& c) { c.metadata["weights"] = weights; });
    fs::rename(old, f.of(weights));
    auto const snapshot = f.snapshot(g);
    auto const hash = ouro::detail::first_hash_of(ouro::read_file(snapshot));
    fs::rename(snapshot, f.of("snapshot-" + std::to_string(g) + "-" + hash + ".safetensors"));
    names += std::to_string(g) + " " + hash + "\n";
  }
  write(f.of("CURRENT"), names);
  {
    auto l = life::open(f.path());
    CHECK(l.passed_over().empty());
    CHECK(l.generation() == 2);
    CHECK(all_of(l) == now);
    static_cast<void>(l.resume({}));
    l.commit();  // nothing was learned
  }
  auto l = life::open(f.path());
  CHECK(l.passed_over().empty());
  CHECK(l.generation() == 3);
  CHECK(all_of(l) == now);
  learn(l, 2);
}

TEST_CASE("life: what is no fault of a generation does not roll it back") {
  folder const f;
  {
    auto l = born(f);
    learn(l, 1);
  }
  auto const newest = f.snapshot(2);
  auto const good = ouro::read_file(newest);
  fs::remove(newest);
  fs::create_symlink(newest, newest);  // ELOOP, as ENFILE would be
  CHECK(has(storage_problem([&] { life::open(f.path()); }), "cannot open " + newest));
  fs::remove(newest);
  write(newest, good);
  CHECK(life::open(f.path()).generation() == 2);
}

TEST_CASE("life: one of another version is refused, and not passed over for an older generation") {
  folder const f;
  {
    auto l = born(f);
    learn(l, 1);
  }
  auto const config = ouro::safetensors_reader::open(f.snapshot(2)).metadata().at("config");
  auto refused = [&](std::string const& key, std::string const& value) {
    craft(f, 2, [&](contents& c) { c.metadata[key] = value; });
    return storage_problem([&] { life::open(f.path()); });
  };
  auto const format = refused("format", "ouro-life-7");
  CHECK(has(format, "\"ouro-life-7\""));
  CHECK(has(format, "\"ouro-life-1\""));
  auto const newer = config.substr(0, config.size() - 1);
  craft(f, 2, [](contents& c) { c.metadata["format"] = "ouro-life-1"; });
  CHECK(has(refused("config", newer + R"(,"gills":1,"fins":true})"), R"(does not know: "gills", "fins")"));
  auto const width = config.find("\"width\":8");
  REQUIRE(width != std::string::npos);
  CHECK(has(refused("config", config.substr(0, width) + R"("width":true)" + config.substr(width + 9)),
            "width: [json] expected an integer"));
  CHECK(has(refused("config", config.substr(0, width) + R"("breadth":8)" + config.substr(width + 9)),
            "'width' is missing"));
  craft(f, 2, [&](contents& c) { c.metadata["config"] = config; });
  CHECK(has(refused("dtype", "f16"), "the dtype must be f32 or f64, got f16"));
  craft(f, 2, [](contents& c) { c.metadata.erase("dtype"); });
  CHECK(has(storage_problem([&] { life::open(f.path()); }), "does not say its dtype"));
  craft(f, 2, [](contents& c) { c.metadata["dtype"] = "f32"; });
  CHECK(life::open(f.path()).generation() == 2);
}

TEST_CASE("life: a tensor of another shape or dtype than the network's is not believed") {
  folder const f;
  {
    auto l = born(f);
    learn(l, 1);
  }
  auto passed = [&](auto const& change) { return passed_over_with(f, change); };
  auto of = [](std::string const& name, std::string const& type, std::vector<std::int64_t> const& dims) {
    std::size_t size = type == "F64" ? 8 : type == "U8" ? 1 : 4;
    for (auto d : dims) size *= static_cast<std::size_t>(d);
    return [=](contents& c) { c.tensors[name] = {type, dims, std::string(size, '\0')}; };
  };
  for (auto const* which : {"first.", "second."}) {
    auto const name = std::string("moments.") + which + "actor.head.weight";
    CHECK(has(passed(of(name, "F32", {1})), name + ": expected F32 (258,8), stored F32 (1)"));
    CHECK(has(passed(of(name, "F64", {258, 8})), name + ": expected F32 (258,8), stored F64 (258,8)"));
    CHECK(has(passed(of(name, "F32", {1, 1, 1, 1, 1, 1})), name + "' at byte"));
  }
  CHECK(has(passed(of("moments.steps.actor.head.weight", "I32", {2})), "moments.steps.actor.head.weight"));
  CHECK(has(passed(of("state.mem", "F32", {1, 1, 8})), "state.mem: expected F32 (1,3,8), stored F32 (1,1,8)"));
  CHECK(has(passed(of("state.mem", "F32", {0, 3, 8})), "state.mem: expected F32 (1,3,8), stored F32 (0,3,8)"));
  CHECK(has(passed(of("state.mem", "F32", {2, 3, 8})), "state.working: expected F32 (2,2,8), stored F32 (1,2,8)"));
  CHECK(has(passed(of("state.mem", "F32", {})), "state.mem: expected F32 (1,3,8), stored F32 ()"));
  CHECK(has(passed(of("state.mem", "I32", {1, 3, 8})), "stored I32 (1,3,8)"));
  CHECK(has(passed(of("state.working", "F64", {1, 2, 8})), "state.working: expected F32 (1,2,8), stored F64 (1,2,8)"));
  CHECK(has(passed(of("state.oscillator", "F32", {2})), "state.oscillator: expected F32 (1,2), stored F32 (2)"));
  CHECK(has(passed(of("state.hormone", "F32", {1})), "state.hormone: expected F32 (1,1,2), stored F32 (1)"));
  CHECK(has(passed(of("state.self", "F32", {1, 1, 4})), "state.self: expected F32 (1,1,8), stored F32 (1,1,4)"));
  CHECK(has(passed(of("state.thought", "F32", {1, 0, 8})), "state.thought: expected F32 (1,1,8), stored F32 (1,0,8)"));
  CHECK(has(passed(of("state.thought", "F32", {1, 3, 4})), "state.thought: expected F32 (1,3,8), stored F32 (1,3,4)"));
  CHECK(has(passed(of("state.self", "F32", {1, 1, 1, 1, 1, 8})), "tensor 'state.self' at byte"));
  for (auto const* key : {"format", "config", "weights"})
    CHECK(has(passed([&](contents& c) { c.metadata.erase(key); }), std::string("does not say its ") + key));
  CHECK(life::open(f.path()).passed_over().empty());
}

TEST_CASE("life: nothing that is not finite is saved") {
  folder const f;
  auto l = born(f);
  learn(l, 1);
  auto const entries = f.entries();
  auto const current = ouro::read_file(f.of("CURRENT"));
  auto refused = [&](ouro::tensor<R>& x, double value) {
    auto const good = x;
    std::vector<double> bad = x.values<double>();
    bad.back() = value;
    x = ouro::tensor<R>::from(bad, x.dims(), x.type());
    auto const message = problem(ouro::errc::numeric, [&] { l.commit(); });
    x = good;
    CHECK(f.entries() == entries);
    CHECK(ouro::read_file(f.of("CURRENT")) == current);
    CHECK(l.generation() == 2);
    return message;
  };
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  constexpr double inf = std::numeric_limits<double>::infinity();
  int statistics = 0;
  for (auto const& p : ouro::fields(l.model)) {
    if (p.kind != ouro::field_kind::statistic && p.path != "actor.head.weight") continue;
    if (p.kind == ouro::field_kind::statistic) ++statistics;
    CHECK(has(refused(*p.value, nan), "[life] " + p.path + " is not finite"));
  }
  CHECK(statistics > 0);
  std::size_t m = 0;
  while (!l.memory[m].first) ++m;
  CHECK(has(refused(l.memory[m].first, -inf), "[life] moments.first."));
  CHECK(has(refused(l.memory[m].second, inf), "[life] moments.second."));
  CHECK(has(refused(l.state.mem, nan), "[life] state.mem is not finite"));
  CHECK(has(refused(*l.state.thought, nan), "[life] state.thought is not finite"));
  l.commit();
  CHECK(l.generation() == 3);
}

TEST_CASE("life: what open would not read is not committed") {
  folder f;
  {
    auto l = born(f);
    auto refused = [&](auto&& change) {
      auto const state = l.state;
      auto const model = l.model;
      change(l);
      try {
        l.commit();
        FAIL_CHECK("committed");
      } catch (ouro::error const& e) {
        INFO(e.what());
        CHECK(e.code() == ouro::errc::argument);
      }
      l.state = state;
      l.model = model;
      CHECK(l.generation() == 1);
    };
    auto config = ouro_test::small_gridman(8);
    config.memory_rows += 1;
    refused([&](life& x) { x.state = network(config, ouro::seed{1}).newborn(ouro::seed{3}); });
    refused([&](life& x) { x.state.mem = x.state.mem.copy(ouro::dtype::f64); });
    refused([&](life& x) { x.model = network(ouro_test::small_gridman(16), ouro::seed{1}); });
    refused([&](life& x) { x.model.actor.head.bias = ouro::tensor<R>::zeros({3}); });
    refused([&](life& x) { x.model.rhythm.wake += 1; });
    refused([&](life& x) { x.memory.resize(1); });
    l.memory.clear();
    refused([&](life& x) { x.state.mem = {}; });
    refused([&](life& x) { x.state.clock = -5; });
    refused([&](life& x) { x.progress.heard = -1; });
    l.progress = {};
    network other(l.model.config(), ouro::seed{3});
    ouro::trainer<network> const of_another(other, {});
    CHECK(has(problem(ouro::errc::argument, [&] { l.commit(of_another); }), "of another network"));
    auto t = l.resume({.learning_rate = 0.01, .warmup = 0});
    REQUIRE_FALSE(t.update(l.state, {ouro_test::any_lesson(1)}).refused);
    CHECK_THROWS_AS(l.commit(), ouro::error);  // its moments are the trainer's
    l.commit(t);
    l.commit();
    CHECK(l.generation() == 3);
  }
  CHECK(life::open(f.path()).passed_over().empty());
}

TEST_CASE("life: weights that three generations share are there twice") {
  folder f;
  std::vector<float> before;
  auto values = [](life const& l) { return l.model.actor.head.weight.values<float>(); };
  {
    auto l = born(f);
    for (int i = 0; i < 3; ++i) l.commit();
    before = values(l);
  }
  auto const weights = f.weights(4);
  REQUIRE(f.entries().size() == 7);  // with LOCK, CURRENT and three snapshots
  auto text = ouro::read_file(weights);
  text[text.size() / 2] ^= 1;
  std::ofstream(weights, std::ios::binary) << text;
  {
    auto l = life::open(f.path());
    CHECK(l.generation() == 4);
    CHECK(values(l) == before);
    CHECK(l.passed_over().size() == 1);
    static_cast<void>(l.resume({}));
    l.commit();
  }
  auto l = life::open(f.path());
  CHECK(l.passed_over().empty());
  CHECK(l.generation() == 5);
  CHECK(values(l) == before);
}

TEST_CASE("life: weights whose first file is damaged are there twice again when older generations have them alone") {
  folder const f;
  {
    auto l = born(f);
    l.commit();
    learn(l, 1);
  }
  auto const shared = f.weights(2);
  damage(shared);
  {
    auto l = life::open(f.path());
    CHECK(l.generation() == 3);
    CHECK(l.passed_over().size() == 1);
    l.commit();
  }
  auto l = life::open(f.path());
  CHECK(l.passed_over().empty());
}

TEST_CASE("life: a count that nothing could go on from, and sizes that the files do not have, are damage") {
  folder const f;
  {
    auto l = born(f);
    learn(l, 1);
  }
  auto passed_over = [&](auto const& change) { return passed_over_with(f, change); };
  std::string const most = std::string(7, '\xFF') + '\x7F';
  for (auto const* count : {"state.clock", "progress.updates", "progress.heard", "progress.said"}) {
    INFO(count);
    for (auto const& bytes : {most, std::string(8, '\xFF')})
      CHECK(has(passed_over([&](contents& c) { c.tensors[count].bytes = bytes; }), "out of range"));
  }
  CHECK(
      has(passed_over([&](contents& c) { c.tensors["moments.steps.actor.head.bias"].bytes = most; }), "out of range"));
  // A network of 65536² weights in each product, and a Mem of as many rows as there can be, take no memory.
  auto with = [&](std::string const& from, std::string const& to) {
    return passed_over([&](contents& c) {
      auto& config = c.metadata["config"];
      auto const at = config.find(from);
      REQUIRE(at != std::string::npos);
      config.replace(at, from.size(), to);
    });
  };
  CHECK(has(with(R"("width":8)", R"("width":65536)"), "expected (65536"));
  CHECK(has(with(R"("memory_rows":3)", R"("memory_rows":1048576)"), "expected F32 (1,1048576,8)"));
  CHECK(life::open(f.path()).generation() == 2);
}

TEST_CASE("life: one that is larger than the machine is refused before memory is taken for it") {
  ouro_test::folder const f;
  auto c = ouro_test::small_gridman(1 << 16);
  auto refused = [&] {
    return problem(ouro::errc::config, [&] { life::create(f.at("life"), c, ouro::seed{1}, ouro::seed{2}); });
  };
  c.brain_layers = c.sensor_layers = 1024;  // 2^42 weights and more
  CHECK(has(refused(), "GB of memory"));
  c = ouro_test::small_gridman(1 << 14);
  c.memory_rows = c.state_rows = 1 << 20;
  c.width = 1 << 16;
  c.brain_layers = 1024;
  CHECK(has(refused(), "network and state would have"));
  CHECK(ouro::entries_of(f.path.string()).empty());
}

TEST_CASE("life: a folder that was moved, and files of others in it, are let be") {
  folder f;
  auto l = born(f);
  for (auto const* name : {"weights-mine.safetensors", "snapshot-1.backup.safetensors"})
    std::ofstream(f.of(name)) << "mine";
  l.commit();
  CHECK(ouro::exists(f.of("weights-mine.safetensors")));
  CHECK(ouro::exists(f.of("snapshot-1.backup.safetensors")));
  auto const moved = f.path() + "-moved";
  fs::rename(f.path(), moved);
  CHECK_THROWS_AS(l.commit(), ouro::error);
  fs::create_directory(f.path());
  std::ofstream(f.of("LOCK")) << "";
  CHECK_THROWS_AS(l.commit(), ouro::error);
  CHECK(f.entries() == names{"LOCK"});
  fs::remove_all(f.path());
  fs::rename(moved, f.path());
  l.commit();
  CHECK(l.generation() == 3);
}

TEST_CASE("life: one that is open elsewhere can be looked at, and is not written to") {
  folder const f;
  auto l = born(f);
  auto t = l.resume({.learning_rate = 0.01, .warmup = 0});
  auto refused = [](auto&& g) { CHECK(has(problem(ouro::errc::argument, g), "was opened to be looked at")); };
  for (std::uint64_t u = 0; u < 4; ++u) {
    REQUIRE_FALSE(t.update(l.state, {ouro_test::any_lesson(u)}).refused);
    l.commit(t);
    auto seen = life::look(f.path());
    CHECK(seen.generation() == l.generation());
    CHECK(seen.passed_over().empty());
    CHECK(all_of(seen) == all_of(l));
    seen.state = ouro::sleep(seen.model, seen.state);
    refused([&] { seen.commit(); });
    refused([&] { seen.fork(f.around.at("copy")); });
  }
  CHECK_FALSE(fs::exists(f.around.at("copy")));
  CHECK(l.generation() == 5);
  CHECK(has(storage_problem([&] { life::look(f.around.at("none")); }), "there is no life at"));
}

TEST_CASE("life: one that is not a program's to write can be looked at") {
  folder const f;
  {
    auto l = born(f);
    l.commit();
  }
  auto const writable = fs::status(f.path()).permissions();
  fs::remove(f.path() + "/LOCK");
  fs::permissions(f.path(), fs::perms::owner_read | fs::perms::owner_exec);
  CHECK(life::look(f.path()).generation() == 2);
  CHECK_FALSE(fs::exists(f.path() + "/LOCK"));  // whoever may do everything could have made it
  fs::permissions(f.path(), writable);
}

TEST_CASE("life: who looks while generations come and go sees one of them, whole") {
  folder const f;
  auto l = born(f);
  std::atomic<bool> over = false;
  std::int64_t last = 0;
  std::string wrong;
  std::thread looker([&] {
    while (!over) {
      try {
        auto const seen = life::look(f.path());
        if (!seen.passed_over().empty()) wrong = seen.passed_over()[0];
        if (seen.generation() < last) wrong = "an older one than before";
        last = seen.generation();
      } catch (std::exception const& e) {
        wrong = e.what();
      }
    }
  });
  for (int i = 0; i < 40; ++i) l.state = ouro::sleep(l.model, l.state), l.commit();
  over = true;
  looker.join();
  CHECK(wrong.empty());
  CHECK(life::look(f.path()).generation() == 41);
}

TEST_CASE("life: open_or_create opens what it would have made, and nothing else") {
  folder const f;
  auto const config = ouro_test::small_gridman(8);
  auto other = config;
  other.memory_rows += 1;
  auto make = [&](ouro::gridman_config const& c, ouro::dtype type) {
    return life::open_or_create(f.path(), c, ouro::seed{1}, ouro::seed{2}, type).generation();
  };
  CHECK(make(config, ouro::dtype::f32) == 1);
  CHECK(make(config, ouro::dtype::f32) == 1);
  auto refused = [&](ouro::gridman_config const& c, ouro::dtype type) {
    CHECK(has(problem(ouro::errc::config, [&] { make(c, type); }), "has another configuration"));
  };
  refused(other, ouro::dtype::f32);
  refused(config, ouro::dtype::f64);
}

TEST_CASE("life: one that is open is not opened again, and where none is none is made") {
  folder const f;
  auto const l = born(f);
  CHECK(has(storage_problem([&] { life::open(f.path()); }), "LOCK is in use already"));
  CHECK(has(storage_problem([&] { life::open(f.of("none")); }), "there is no life at"));
  fs::create_directory(f.of("empty"));
  CHECK(has(storage_problem([&] { life::open(f.of("empty")); }), "there is no life at"));
  CHECK(fs::is_empty(f.of("empty")));
}
