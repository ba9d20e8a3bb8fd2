// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Conversations drawn at random: what a backend says byte by byte is what the reference, which hears the same in f64, finds
// in its predictions for whole patches; and both are left in the same state.
#include <ouro_test/backends.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <ouro/generate/speak.hpp>
#include <ouro_test/random_gridman.hpp>

namespace {

using ouro_test::described;
using ouro_test::dice;

struct turn {
  std::string prompt;
  ouro::speech_options options;
};

std::vector<turn> any_conversation(dice& d, std::int64_t patch) {
  std::vector<turn> turns(static_cast<std::size_t>(d.between(1, 3)));
  for (auto& t : turns) {
    std::int64_t const length = d.between(1, 3 * patch);
    for (std::int64_t i = 0; i < length; ++i) t.prompt += static_cast<char>(static_cast<unsigned char>(d.below(256)));
    t.options.bytes = d.chance(10) ? 0 : d.between(1, 3 * patch);
    t.options.temperature = d.chance(25) ? 0.0 : 0.1 * static_cast<double>(d.between(2, 15));
    t.options.top_k = d.chance(40) ? 0 : d.between(1, 300);
    t.options.stops_at_end = d.chance(50);
  }
  return turns;
}

/// The bytes that may follow these logits, where each of them may be off by `error`.
std::vector<std::int32_t> allowed(std::vector<double> const& logits, ouro::speech_options const& o, double u,
                                  double error) {
  auto falling = logits;
  std::sort(falling.rbegin(), falling.rend());
  std::size_t const k = o.temperature == 0 ? 1 : o.top_k == 0 ? falling.size() : static_cast<std::size_t>(o.top_k);
  double const least = (k < falling.size() ? falling[k - 1] : falling.back()) - 2 * error;
  bool const clear = k >= falling.size() || falling[k] < least;
  std::vector<std::int32_t> found;
  if (o.temperature == 0 || !clear) {  // nothing is known but who may be among the most probable
    for (std::size_t i = 0; i < logits.size(); ++i)
      if (logits[i] >= least) found.push_back(static_cast<std::int32_t>(i));
    return found;
  }
  std::vector<double> until{0};  // the distribution's sums
  for (double x : logits) until.push_back(until.back() + (x >= least ? std::exp((x - falling[0]) / o.temperature) : 0));
  double const at = u * until.back();
  double const slack = (std::expm1(error / o.temperature) + 1e-12) * until.back();
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (until[i + 1] > until[i] && at >= until[i] - slack && at <= until[i + 1] + slack)
      found.push_back(static_cast<std::int32_t>(i));
  return found;
}

/// Hears a turn, and what was answered, as the reference does; false if rounding leaves open what it was.
bool follow(ouro_test::any_network<ouro::reference> const& model, ouro::state<ouro::reference>& s, turn const& t,
            std::string const& said, double error) {
  std::int64_t const patch = model.actor.patch();
  ouro::context<ouro::reference> cx;
  ouro::impression<ouro::reference> seen;
  ouro::patches last;
  auto hear = [&](std::vector<std::int32_t> bytes) {
    bytes.resize(static_cast<std::size_t>(patch), ouro::pad_byte);
    while (model.rhythm.asleep(s.clock)) s = ouro::sleep(model, s);
    last = {1, 1, patch, std::move(bytes)};
    auto r = ouro::wake(model, s, last);
    s = r.state;
    seen = r.seen;
  };
  std::vector<std::int32_t> heard;
  for (char c : t.prompt) heard.push_back(static_cast<unsigned char>(c));
  if (std::ssize(heard) < patch)
    heard.insert(heard.begin(), static_cast<std::size_t>(patch - std::ssize(heard)), ouro::pad_byte);
  auto at = heard.begin();
  for (; heard.end() - at >= patch; at += patch) hear({at, at + patch});
  std::vector<std::int32_t> part(at, heard.end());
  if (t.options.bytes == 0 && !part.empty()) hear(part);

  std::int64_t left = t.options.bytes;
  auto next = said.begin();
  while (left > 0) {
    auto const draw = t.options.temperature > 0 ? s.random.next() : ouro::random_draw{};
    while (std::ssize(part) < patch && left > 0) {
      auto known = part;
      known.resize(static_cast<std::size_t>(patch), 0);
      ouro::byte_target const target{{1, 1, patch, known}, std::vector<char>(known.size(), 1)};
      auto const all = model.actor.predict(cx, seen, last, target).values<double>();
      auto const row = all.begin() + std::ssize(part) * ouro::byte_vocabulary;
      auto may = allowed({row, row + ouro::byte_vocabulary}, t.options,
                         draw.uniform(static_cast<std::uint64_t>(std::ssize(part))), error);
      std::int32_t const spoken = next == said.end() ? -1 : static_cast<unsigned char>(*next);
      // PAD and EOS are not in the answer.
      std::erase_if(may, [spoken](std::int32_t b) { return b < 256 && b != spoken; });
      INFO("byte " << next - said.begin() << " of the answer is " << spoken);
      REQUIRE(!may.empty());
      if (may.size() > 1) return false;
      auto const byte = may.front();
      if (byte < 256) ++next;
      part.push_back(byte);
      left = byte == ouro::eos_byte && t.options.stops_at_end ? 0 : left - 1;
    }
    hear(part);
    part.clear();
  }
  CHECK(next == said.end());
  return true;
}

/// Whether all of a conversation could be followed.
template <class B>
bool converse(std::uint64_t key, ouro::dtype type, double error, double apart) {
  dice d(key);
  auto const config = ouro_test::any_config(d, false);
  auto const turns = any_conversation(d, config.patch);
  auto newborn = [&](auto& model) {
    ouro_test::move_parameters(model, key);
    return model.newborn(ouro::seed{key + 1});
  };
  ouro_test::any_network<B> model(config, ouro::seed{key}, type);
  ouro_test::any_network<ouro::reference> exact(config, ouro::seed{key}, ouro::dtype::f64);
  auto life = newborn(model);
  auto right = newborn(exact);
  for (auto const& t : turns) {
    auto const said = ouro::speak(model, life, t.prompt, t.options, [](std::string const&) {});
    if (!follow(exact, right, t, said, error)) return false;
    CHECK(ouro_test::difference(life, right) < apart);
    CHECK(life.clock == right.clock);
    CHECK(life.random.counter == right.random.counter);
  }
  return true;
}

}  // namespace

TEST_CASE("random speech: the reference says what it predicts") {
  for (std::uint64_t key = 0; key < ouro_test::how_many("OURO_LIVES", 6); ++key) {
    INFO("life " << key << ": " << described(key, false));
    CHECK(converse<ouro::reference>(key, ouro::dtype::f64, 1e-9, 1e-12));
  }
}

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)
TEMPLATE_LIST_TEST_CASE("random speech: backends say what the reference predicts", "", ouro_test::accelerated) {
  using B = typename TestType::backend;
  TestType::need();
  auto const usual = std::is_same_v<B, ouro::cuda> ? 3 : 12;
  std::uint64_t const all = ouro_test::how_many("OURO_LIVES", usual);
  std::uint64_t followed = 0;
  for (std::uint64_t key = 0; key < all; ++key) {
    INFO("life " << key << " on " << TestType::name() << ": " << described(key, false));
    followed += converse<B>(key, TestType::type, TestType::exact ? 1e-9 : 2e-5, TestType::exact ? 1e-8 : 1e-3) ? 1 : 0;
  }
  CHECK(followed + 1 + all / 10 >= all);
}
#endif
