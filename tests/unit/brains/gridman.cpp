// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A small Gridman with each brain: configurations, the gradient through a wake step, lives that keep their brain.
#include <catch2/catch_test_macros.hpp>

#include <unistd.h>

#include <filesystem>

#include <ouro/autodiff/tape.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/life/life.hpp>
#include <ouro/nn/mixers/hybrid.hpp>
#include <ouro/train/trainer.hpp>
#include <ouro_test/folder.hpp>
#include <ouro_test/problem.hpp>
#include <ouro_test/random.hpp>
#include <ouro_test/small_gridman.hpp>

using R = ouro::reference;
using network = ouro::gridman<R, ouro::hybrid>;
using life = ouro::life<R, ouro::hybrid>;

namespace {

ouro::gridman_config small(std::string_view layers) {
  auto c = ouro_test::small_gridman(8);
  c.brain_layers = 2;
  return c.layers(layers);
}
constexpr char const* brains[] = {"attention", "rwkv7", "mamba2", "rwkv7*2 attention"};

ouro::patches bytes(std::uint64_t draw) { return ouro_test::any_patches(1, draw); }
ouro::byte_target target(std::uint64_t draw) { return {bytes(draw), std::vector<char>(15, 1)}; }

std::string message(auto const& f) {
  try {
    f();
  } catch (ouro::error const& e) {
    return e.what();
  }
  return "no error";
}
using ouro_test::folder;
using ouro_test::has;

template <class A, class B>
bool same(A const& a, B const& b) {
  auto const x = ouro::fields(a);
  auto const y = ouro::fields(b);
  if (x.size() != y.size()) return false;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (x[i].path != y[i].path || x[i].value->template values<double>() != y[i].value->template values<double>())
      return false;
  return true;
}

}  // namespace

TEST_CASE("brains: a blank network has every parameter of a made one, and no memory for them") {
  for (auto const* brain : brains) {
    INFO(brain);
    network const made(small(brain), ouro::seed{1}, ouro::dtype::f64);
    ouro::genesis<R> shapes(ouro::seed{}, ouro::dtype::f64);
    shapes.blank = true;
    network const blank(small(brain), shapes);
    auto const x = ouro::fields(made);
    auto const y = ouro::fields(blank);
    REQUIRE(x.size() == y.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO(x[i].path);
      CHECK(x[i].path == y[i].path);
      CHECK(x[i].value->dims() == y[i].value->dims());
      CHECK(x[i].value->type() == y[i].value->type());
      CHECK(x[i].decay == y[i].decay);
      CHECK(x[i].learning_rate == y[i].learning_rate);
    }
    CHECK(made.newborn(ouro::seed{2}).mem.dims() == blank.newborn(shapes).mem.dims());
    CHECK(blank.config() == made.config());
    // As large as can be said.
    auto c = small(brain);
    c.width = 1 << 16;
    c.memory_rows = c.state_rows = 1 << 20;
    auto const before = R::memory().in_use();
    network const giant(c, shapes);
    auto const born = giant.newborn(shapes);
    CHECK(born.mem.dims() == ouro::shape{1, 1 << 20, 1 << 16});
    CHECK(R::memory().in_use() < before + (1U << 26U));
  }
}

TEST_CASE("brains: the mixers of a configuration") {
  auto with = [](std::int64_t sensor, std::int64_t brain, std::string_view text) {
    auto c = small("attention");
    c.sensor_layers = sensor, c.brain_layers = brain;
    return c.layers(text);
  };
  auto stacks = [](ouro::gridman_config const& c) {
    auto const s = c.stacks();
    return s.sensor + " | " + s.brain;
  };
  CHECK(ouro::gridman_config{}.mixers.empty());
  CHECK(stacks(ouro::gridman_config{}) == " | ");
  CHECK(with(1, 2, "").mixers.empty());
  // A name for all; a list that fits both stacks; one that goes through both; one for each.
  CHECK(with(1, 2, " rwkv7 ").mixers.view() == "rwkv7");
  CHECK(stacks(with(1, 2, "rwkv7")) == "rwkv7 | rwkv7*2");
  CHECK(with(1, 2, "rwkv7 | rwkv7*2").mixers.view() == "rwkv7");
  CHECK(with(4, 12, "rwkv7*3  attention").mixers.view() == "rwkv7*3 attention");
  CHECK(stacks(with(4, 8, "a*3 b")) == "a*3 b | a*3 b a*3 b");
  CHECK(with(1, 2, "rwkv7*2 attention").mixers.view() == "rwkv7 | rwkv7 attention");
  CHECK(stacks(with(1, 2, "a | b c")) == "a | b c");
  CHECK(with(2, 2, "a b | a b").mixers.view() == "a b | a b");
  for (auto const* text : {"rwkv7", "a*2 b", "a | b c"})
    CHECK(with(1, 2, text).layers(with(1, 2, text).mixers.view()) == with(1, 2, text));

  CHECK(message([&] { with(1, 2, "a*4"); }) ==
        "[layers] 'a*4' names 4 layers; the Sensor has 1 and the Brain 2: name 3, or as many as divide both, or write "
        "Sensor | Brain");
  CHECK(message([&] { with(1, 2, "a | b"); }) == "[layers] ' b' names 1 layers, the Brain has 2");
  CHECK(message([&] { with(1, 2, "a b | b c"); }) == "[layers] 'a b ' names 2 layers, the Sensor has 1");
  CHECK(has(message([&] { with(1, 2, "a | b c | d"); }), "names 4 layers, the Brain has 2"));
  CHECK(has(message([&] { with(1, 2, std::string(300, 'a')); }), "at most 255 bytes, got 300"));
  auto c = with(1, 2, "a*2 b");
  c.brain_layers = 3;
  CHECK(has(message([&] { c.validate(); }), "names 2 layers, the Brain has 3"));
  CHECK(message([&] { network{with(1, 2, "rnn")}; }) ==
        "[hybrid] there is no mixer 'rnn'; there are attention, rwkv7, mamba2");

  // In a text and back; a text that is older than the field is one of attention.
  c = with(1, 2, "rwkv7*2 attention");
  c.parallel_write = c.reset_input = true;
  CHECK(ouro::config_from_text<ouro::gridman_config>(ouro::to_text(c)) == c);
  auto const plain = small("");
  auto older = ouro::to_text(plain);
  older = older.substr(0, older.find(",\"mixers\"")) + "}";
  CHECK(ouro::config_from_text<ouro::gridman_config>(older) == plain);
  CHECK(network(ouro::config_from_text<ouro::gridman_config>(older)).config().mixers.view() == "attention");
}

TEST_CASE("brains: a hybrid of one kind is that brain") {
  auto check = [](auto const& plain, network const& chosen) {
    CHECK(plain.config() == chosen.config());
    CHECK(same(plain, chosen));
    auto a = plain.newborn(ouro::seed{2});
    auto b = chosen.newborn(ouro::seed{2});
    for (std::uint64_t i = 0; i < 3; ++i) {
      while (plain.rhythm.asleep(a.clock)) a = ouro::sleep(plain, std::move(a)), b = ouro::sleep(chosen, std::move(b));
      a = ouro::wake(plain, std::move(a), bytes(i)).state;
      b = ouro::wake(chosen, std::move(b), bytes(i)).state;
      CHECK(a.working.template values<double>() == b.working.template values<double>());
      CHECK(a.thought->template values<double>() == b.thought->template values<double>());
    }
  };
  auto const c = small("");
  check(ouro::gridman<R>(c, ouro::seed{1}), network(small("attention"), ouro::seed{1}));
  check(ouro::gridman<R>(c, ouro::seed{1}), network(c, ouro::seed{1}));
  check(ouro::gridman<R, ouro::rwkv7>(c, ouro::seed{1}), network(small("rwkv7"), ouro::seed{1}));
  check(ouro::gridman<R, ouro::mamba2>(c, ouro::seed{1}), network(small("mamba2"), ouro::seed{1}));
}

TEST_CASE("brains: settings of recurrent mixers reach them, and attention ignores them") {
  for (auto const* brain : {"attention", "rwkv7", "mamba2"})
    for (auto setting :
         {&ouro::gridman_config::parallel_write, &ouro::gridman_config::reset_read, &ouro::gridman_config::reset_input,
          &ouro::gridman_config::reset_write, &ouro::gridman_config::two_way_prefix}) {
      auto state_of = [&](bool on) {
        auto c = small(brain);
        c.*setting = on;
        network m(c, ouro::seed{1}, ouro::dtype::f64);
        ouro_test::move_parameters(m, 9);
        auto s = m.newborn(ouro::seed{2});
        s.mem = ouro::normal<R>(s.mem.dims(), ouro::dtype::f64, {1, 1});
        return ouro::wake(m, std::move(s), bytes(1)).state.working.values<double>();
      };
      CHECK((state_of(true) == state_of(false)) == (std::string(brain) == "attention"));
    }
}

TEST_CASE("brains: the gradient through a wake step is right") {
  for (auto const* brain : brains) {
    network m(small(brain), ouro::seed{1}, ouro::dtype::f64);
    ouro_test::move_parameters(m, 9);
    auto const born = m.newborn(ouro::seed{2});
    auto loss_of = [&] {
      ouro::context<R> cx{.training = true, .dropout = 0.2};
      auto const x = bytes(3);
      // Input rows act through the Actor's loss, Write rows through the guess of it.
      return ouro::loss(m, cx, ouro::wake(m, cx, born, x).seen, x, target(4)).total;
    };
    std::vector<ouro::tensor<R>> gradients;
    {
      ouro::tape<R> t;
      ouro::watch(t, ouro::fields(m));
      t.backward(loss_of());
      for (auto const& f : ouro::fields(m))
        gradients.push_back(f.kind == ouro::field_kind::parameter ? t.gradient(*f.value) : ouro::tensor<R>{});
    }
    auto const list = ouro::fields(m);
    int looked = 0;
    for (std::size_t n = 0; n < list.size(); ++n) {
      if (list[n].kind != ouro::field_kind::parameter || !has(list[n].path, ".attn.")) continue;
      INFO(std::string(brain) << ": " << list[n].path);
      auto& p = *list[n].value;
      auto const analytic = gradients[n].empty() ? std::vector<double>(static_cast<std::size_t>(p.size()))
                                                 : gradients[n].values<double>();
      auto const values = p.values<double>();
      auto const dims = p.dims();
      std::size_t most = 0;  // where the loss depends most on it
      for (std::size_t i = 0; i < analytic.size(); ++i)
        if (std::abs(analytic[i]) > std::abs(analytic[most])) most = i;
      auto at = [&](double h) {
        auto moved = values;
        moved[most] += h;
        p = ouro::tensor<R>::from(moved, dims);
        return loss_of().item();
      };
      double const wide = (at(2e-4) - at(-2e-4)) / 4e-4;
      double const narrow = (at(1e-4) - at(-1e-4)) / 2e-4;
      p = ouro::tensor<R>::from(values, dims);
      // Of a loss of some 60, and steps of 1e-4: rounding leaves 1e-10 or so.
      CHECK(std::abs((4 * narrow - wide) / 3 - analytic[most]) < 1e-6 * std::abs(analytic[most]) + 1e-9);
      ++looked;
    }
    CHECK(looked > 8);
  }
}

TEST_CASE("brains: a life keeps its brain, and goes on exactly where it was") {
  folder const work;
  auto learn = [](life& l, std::uint64_t from, std::uint64_t to) {
    ouro::trainer<network> t(l.model, {.learning_rate = 0.01, .warmup = 2}, 0.1);
    t.memory() = l.memory;
    t.updates() = l.progress.updates;
    for (auto u = from; u < to; ++u) {
      auto const r = t.update(l.state, {{bytes(4 * u), target(4 * u + 1)}, {bytes(4 * u + 2), target(4 * u + 3)}});
      CHECK_FALSE(r.refused);
    }
    l.memory = t.memory();
    l.progress.updates = t.updates();
    l.commit();
  };
  for (auto const* brain : brains) {
    INFO(std::string(brain));
    auto const a = work.at("a"), b = work.at("b");
    std::filesystem::remove_all(a), std::filesystem::remove_all(b);
    {
      auto whole = life::create(a, small(brain), ouro::seed{1}, ouro::seed{2});
      learn(whole, 0, 4);
    }
    static_cast<void>(life::create(b, small(brain), ouro::seed{1}, ouro::seed{2}));
    for (std::uint64_t u = 0; u < 4; ++u) {
      auto part = life::open(b);
      learn(part, u, u + 1);
    }
    auto const x = life::open(a);
    auto const y = life::open(b);
    CHECK(x.model.config() == small(brain));
    CHECK(same(x.model, y.model));
    CHECK(x.state.working.values<double>() == y.state.working.values<double>());
    REQUIRE(x.memory.size() == y.memory.size());
    for (std::size_t i = 0; i < x.memory.size(); ++i)
      if (x.memory[i].first) CHECK(x.memory[i].second.values<float>() == y.memory[i].second.values<float>());
  }
  // Under another brain it is refused, by name, and nothing is touched.
  auto const a = work.at("a");
  CHECK(has(message([&] { ouro::life<R>::open(a); }),
            "the brain is 'rwkv7 | rwkv7 attention', and this program's is 'attention'"));
  std::filesystem::remove_all(a);
  static_cast<void>(ouro::life<R, ouro::rwkv7>::create(a, small(""), ouro::seed{1}, ouro::seed{2}));
  CHECK(has(message([&] { ouro::life<R, ouro::mamba2>::open(a); }),
            "the brain is 'rwkv7', and this program's is 'mamba2'"));
  CHECK(life::open(a).model.config().mixers.view() == "rwkv7");
}
