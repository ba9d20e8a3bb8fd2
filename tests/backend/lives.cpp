// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life is the same on every backend: made on one it goes on on another, and learns the same there.
#include <catch2/catch_test_macros.hpp>

#if defined(OURO_HAS_CPU) && defined(OURO_HAS_CUDA)

#include <unistd.h>

#include <filesystem>

#include <ouro/backend/cpu_gridman.hpp>
#include <ouro/backend/cuda.hpp>
#include <ouro_test/backends.hpp>
#include <ouro_test/folder.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/small_gridman.hpp>
#include <ouro_test/used_again.hpp>
#if defined(OURO_EMULATED_CUDA)
#include <emulated_cuda.hpp>
#endif

namespace {

template <class B>
using network = ouro::gridman<B, ouro::hybrid>;
template <class B>
using life = ouro::life<B, ouro::hybrid>;
using ouro_test::difference;
using ouro_test::folder;

ouro::gridman_config small() {
  ouro::gridman_config c;
  c.width = 16, c.heads = 2, c.sensor_layers = 1, c.brain_layers = 3, c.actor_layers = 1;
  c.patch = 5, c.chunk = 6, c.state_rows = 4, c.memory_rows = 5, c.anchors = 2;
  c.wake = 2, c.sleep = 1, c.bptt = 2;
  return c.layers("attention | rwkv7 mamba2 attention");
}

template <class B>
std::vector<ouro::lesson<network<B>>> cycle(ouro::gridman_config const& c, std::uint64_t draw) {
  std::vector<ouro::lesson<network<B>>> lessons;
  for (std::int64_t i = 0; i < c.bptt; ++i) {
    ouro::patches p{1, c.chunk, c.patch, {}};
    for (std::int64_t k = 0; k < c.chunk * c.patch; ++k)
      p.bytes.push_back(static_cast<std::int32_t>(
          97 + ouro::random_draw{draw, static_cast<std::uint64_t>(i)}.word(static_cast<std::uint64_t>(k)) % 26));
    lessons.push_back({p, {p, std::vector<char>(p.bytes.size(), 1)}});
  }
  return lessons;
}

/// Two updates of the life in a folder, which it keeps.
template <class B>
std::vector<double> learn(std::string const& path) {
  auto l = life<B>::open(path);
  ouro::trainer<network<B>> t(l.model, {.learning_rate = 1e-3, .warmup = 0}, l.model.config().dropout);
  std::vector<double> losses;
  for (std::uint64_t u = 0; u < 2; ++u) {
    auto const r = t.update(l.state, cycle<B>(l.model.config(), u));
    REQUIRE(!r.refused);
    losses.push_back(r.loss);
    losses.push_back(r.gradient_norm);
  }
  l.memory = t.memory();
  l.progress.updates = t.updates();
  l.commit();
  return losses;
}

}  // namespace

TEST_CASE("lives: what cpu saved goes on on cuda, learns the same, and comes back") {
  ouro_test::need_device();
  folder const f;
  std::string const on_cpu = f.path / "cpu.ouro";
  std::string const on_cuda = f.path / "cuda.ouro";
  life<ouro::cpu>::create(on_cpu, small(), ouro::seed{1}, ouro::seed{2});
  std::filesystem::copy(on_cpu, on_cuda, std::filesystem::copy_options::recursive);

  auto const right = learn<ouro::cpu>(on_cpu);
  auto const got = learn<ouro::cuda>(on_cuda);
  for (std::size_t i = 0; i < right.size(); ++i) CHECK(std::abs(got[i] / right[i] - 1) < 1e-3);
  auto const a = life<ouro::cpu>::open(on_cpu);
  std::vector<std::vector<float>> written;
  {
    auto const b = life<ouro::cpu>::open(on_cuda);
    CHECK(difference(b.state, a.state) < 1e-3);
    CHECK(b.progress.updates == 2);
    CHECK(b.state.random == a.state.random);
    for (auto const& field : ouro::fields(b.model)) written.push_back(field.value->values<float>());
  }
  // The same file on both: every bit of the network is as cuda left it.
  auto const c = life<ouro::cuda>::open(on_cuda);
  CHECK(difference(c.state, a.state) < 1e-3);
  auto const x = ouro::fields(c.model);
  auto const y = ouro::fields(a.model);
  REQUIRE(x.size() == y.size());
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(x[i].value->values<float>() == written[i]);
    worst = std::max(worst, ouro_test::relative_error(*x[i].value, *y[i].value, 0.1));
  }
  CHECK(worst < 2e-2);  // two steps of 1e-3, where a gradient of nearly zero may have either sign
}

TEST_CASE("lives: with inner values in bf16 cuda learns what it learns in f32") {
  ouro_test::need_device();
  auto const config = small();
  auto learn = [&](ouro::dtype inner) {
    ouro::set_cuda_inner_values(inner);
    network<ouro::cuda> model(config, ouro::seed{1});
    auto s = model.newborn(ouro::seed{2});
    ouro::trainer<network<ouro::cuda>> t(model, {.learning_rate = 1e-2, .warmup = 0}, config.dropout);
    std::vector<double> losses;
    for (std::uint64_t u = 0; u < 4; ++u) {
      // A trainer that has seen no update stores one weight after the other, this one from its second update on at once.
      auto other_model = model;
      auto other_state = s;
      auto const r = t.update(s, cycle<ouro::cuda>(config, u % 2));
      REQUIRE(!r.refused);
      losses.push_back(r.loss);
      if (u != 1) continue;
      ouro::trainer<network<ouro::cuda>> other(other_model, {.learning_rate = 1e-2}, config.dropout);
      auto const same = other.update(other_state, cycle<ouro::cuda>(config, u % 2));
      CHECK(same.loss == r.loss);
      CHECK(same.gradient_norm == r.gradient_norm);
    }
    ouro::set_cuda_inner_values(ouro::dtype::f32);
    for (auto const& f : ouro::fields(model)) CHECK(f.value->type() != ouro::dtype::bf16);
    CHECK(s.mem.type() == ouro::dtype::f32);
    return losses;
  };
  auto const exact = learn(ouro::dtype::f32);
  auto const narrow = learn(ouro::dtype::bf16);
  double apart = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) apart = std::max(apart, std::abs(narrow[i] / exact[i] - 1));
  CHECK(apart < 3e-2);
  CHECK(apart > 1e-6);  // or nothing was stored in bf16
  CHECK(exact.back() < 0.9 * exact.front());
}

TEST_CASE("lives: branches, a side stream, graphs and memory that is used again change no bit of what is learned") {
  ouro_test::need_device();
  auto config = small();
  config.brain_layers = 2;
  config = config.layers("attention");
  auto learn = [&](bool graphs, ouro::dtype inner) {
    ouro::set_cuda_graphs(graphs);
    ouro::set_cuda_inner_values(inner);
    network<ouro::cuda> model(config, ouro::seed{1});
    auto s = model.newborn(ouro::seed{2});
    ouro::trainer<network<ouro::cuda>> t(model, {.learning_rate = 1e-2, .warmup = 0}, config.dropout);
    std::vector<double> said;
    for (std::uint64_t u = 0; u < 6; ++u) {
      auto const r = t.update(s, cycle<ouro::cuda>(config, u % 2));
      REQUIRE(!r.refused);
      said.insert(said.end(), {r.loss, r.gradient_norm});
    }
    ouro::set_cuda_graphs(true);
    ouro::set_cuda_inner_values(ouro::dtype::f32);
    for (double v : s.working.values<double>()) said.push_back(v);
    return said;
  };
  for (auto inner : {ouro::dtype::f32, ouro::dtype::bf16}) {
    auto const right = learn(false, inner);
#if defined(OURO_EMULATED_CUDA)
    auto const before = emulated_cuda::graphs().launches;
#endif
    {
      ouro_test::memory_used_again const as_a_device;
      CHECK(learn(true, inner) == right);
    }
#if defined(OURO_EMULATED_CUDA)
    CHECK(emulated_cuda::graphs().launches - before > 10);
#endif
  }
}

TEST_CASE("lives: after ten cycles of wake and sleep cpu and cuda have the same state") {
  ouro_test::need_device();
  auto const config = small();
  auto live = [&]<class B>(std::type_identity<B>) {
    network<B> const model(config, ouro::seed{1});
    auto s = model.newborn(ouro::seed{2});
    for (std::uint64_t c = 0; c < 10; ++c)
      for (auto const& l : cycle<B>(config, c)) {
        while (model.rhythm.asleep(s.clock)) s = ouro::sleep(model, std::move(s));
        s = ouro::wake(model, std::move(s), l.input).state;
      }
    return s;
  };
  auto const right = live(std::type_identity<ouro::cpu>{});
  auto const got = live(std::type_identity<ouro::cuda>{});
  CHECK(got.clock == right.clock);
  CHECK(got.clock >= 10 * (config.wake + config.sleep) - config.sleep);
  CHECK(difference(got, right) < 1e-3);
}

TEST_CASE("lives: cuda says what cpu says, byte by byte, and an error in between loses nothing") {
  ouro_test::need_device();
  auto const config = small();
  auto speech = [&]<class B>(std::type_identity<B>) {
    network<B> const model(config, ouro::seed{1});
    auto s = model.newborn(ouro::seed{2});
    std::vector<std::string> parts;
    ouro::speech_options const o{.bytes = 40, .temperature = 1, .top_k = 0, .stops_at_end = false};
    CHECK_THROWS_AS(ouro::speak(model, s, "hello again", o,
                                [&](std::string const&) {
                                  if (parts.size() == 7) throw std::runtime_error("heard enough");
                                  parts.push_back("");
                                }),
                    std::runtime_error);
    parts.clear();
    parts.push_back(ouro::speak(model, s, "hello again", o, [&](std::string const& part) { parts.push_back(part); }));
    parts.push_back(ouro::speak(model, s, "and then", o));
    return parts;
  };
  auto const right = speech(std::type_identity<ouro::cpu>{});
  CHECK(right.size() > 30);  // a call for each byte that is text, and one at the end
  CHECK(speech(std::type_identity<ouro::cuda>{}) == right);
}

#if defined(OURO_EMULATED_CUDA)
TEST_CASE("lives: a device without room for a life passes no generation over") {
  folder const f;
  std::string const path = f.path / "a.ouro";
  life<ouro::cuda>::create(path, small(), ouro::seed{1}, ouro::seed{2});
  learn<ouro::cuda>(path);
  emulated_cuda::limit_memory(10'000);
  CHECK_THROWS_AS(life<ouro::cuda>::open(path), std::bad_alloc);
  emulated_cuda::limit_memory(static_cast<std::size_t>(-1));
  CHECK(life<ouro::cuda>::open(path).progress.updates == 2);
}

TEST_CASE("lives: an update that finds no memory on the device changes nothing, and can be tried again") {
  auto config = small();
  config.brain_layers = 1;
  config = config.layers("attention");
  ouro::set_cuda_inner_values(ouro::dtype::bf16);
  network<ouro::cuda> model(config, ouro::seed{1});
  auto s = model.newborn(ouro::seed{2});
  ouro::trainer<network<ouro::cuda>> t(model, {.learning_rate = 1e-2, .warmup = 0}, config.dropout);
  static_cast<void>(t.update(s, cycle<ouro::cuda>(config, 0)));
  for (std::uint64_t u = 1; u < 3; ++u) {
    auto const before = ouro_test::all_of(model, s, t);
    auto untroubled_model = model;
    auto untroubled = s;
    ouro::trainer<network<ouro::cuda>> other(untroubled_model, t.rule(), config.dropout);
    other.memory() = t.memory();
    other.updates() = t.updates();
    static_cast<void>(other.update(untroubled, cycle<ouro::cuda>(config, u)));
    auto const after = ouro_test::all_of(untroubled_model, untroubled, other);
    int failures = 0;
    for (std::size_t room = 1U << 20U;; room += room / 8) {
      emulated_cuda::limit_memory(room);
      bool done = true;
      try {
        static_cast<void>(t.update(s, cycle<ouro::cuda>(config, u)));
      } catch (std::bad_alloc const&) {
        done = false;
        ++failures;
      }
      emulated_cuda::limit_memory(static_cast<std::size_t>(-1));
      INFO("update " << u << " with " << room << " bytes");
      REQUIRE((ouro_test::all_of(model, s, t) == (done ? after : before)));
      if (done) break;
    }
    CHECK(failures > 5);
  }
  ouro::set_cuda_inner_values(ouro::dtype::f32);
}
#endif

#endif
