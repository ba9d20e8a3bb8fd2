// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life that goes on and on: at each step it hears symbols and says those of the steps before. Nothing is ever reset, in
// training or after; what it says of n steps ago has come through n states and n inputs that spoke of other things. It is asked
// about one step at first, and about one more whenever that is learned.
//
//   example_echo '{"symbols": 1, "letters": 16, "back": 4, "sleeps": 2}'
//
// What is measured: how often it is right about what it heard 1, 2, … steps ago, and then, given a part of another's state
// between two steps, how often it says what the other heard.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "../small_life.hpp"

namespace {

using namespace small_life;

struct experiment {
  std::int64_t symbols = 1;  ///< that are heard in a step
  std::int64_t letters = 4;  ///< that a symbol may be
  std::int64_t back = 2;     ///< steps whose symbols are said, the last one first
  std::int64_t sleeps = 0;   ///< steps asleep after each four awake
  std::int64_t span = 4;     ///< steps awake in an update, over which gradients go back
  std::int64_t lanes = 16;
  std::int64_t updates = 600;
  double learning_rate = 1e-3;
  bool guarded = true;  ///< a guess of the loss that is far too high does not teach the Actor to do worse
  ouro::short_text<255> brain = "attention";
  std::int64_t seed = 1;
  OURO_MODULE(experiment, symbols, letters, back, sleeps, span, lanes, updates, learning_rate, guarded, brain, seed);

  void validate() const {
    auto const in = [](auto... arguments) { require_in("echo", arguments...); };
    in(symbols, 1, 64, "symbols");
    in(letters, 2, 26, "letters");
    in(back, 1, 64, "back");
    require_usual("echo", *this, 2);
  }
  [[nodiscard]] std::int64_t patch() const { return (symbols * back + 7) / 8 * 8; }
  [[nodiscard]] ouro::gridman_config network_config() const { return config(patch(), 1, brain.view(), sleeps); }
};

/// What the lanes hear, and still know.
class world {
 public:
  explicit world(experiment const& e) : e_(e), random_(seed_of(e.seed + 1000)) {
    while (static_cast<std::int64_t>(past_.size()) < e.back) hear();
  }

  /// New symbols, and what is to be said: those of so many steps before.
  ouro::lesson<network> next(std::int64_t back) {
    auto const blank =
        ouro::patches{e_.lanes, 1, e_.patch(), std::vector<std::int32_t>(index(e_.lanes * e_.patch()), '.')};
    ouro::lesson<network> l{blank, {blank, std::vector<char>(blank.bytes.size(), 0)}};
    for (std::int64_t n = 0; n < back; ++n)
      for (std::int64_t lane = 0; lane < e_.lanes; ++lane)
        for (std::int64_t i = 0; i < e_.symbols; ++i) {
          auto const at = index(lane * e_.patch() + n * e_.symbols + i);
          l.target.next.bytes[at] = past_[index(n)][index(lane * e_.symbols + i)];
          l.target.live[at] = 1;
        }
    hear();
    for (std::int64_t lane = 0; lane < e_.lanes; ++lane)
      for (std::int64_t i = 0; i < e_.symbols; ++i)
        l.input.bytes[index(lane * e_.patch() + i)] = past_.front()[index(lane * e_.symbols + i)];
    return l;
  }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  void hear() {
    auto const draws = random_.next();
    std::vector<std::int32_t> heard;
    for (std::int64_t i = 0; i < e_.lanes * e_.symbols; ++i)
      heard.push_back('A' + static_cast<std::int32_t>(draws.word(index(i)) % static_cast<std::uint64_t>(e_.letters)));
    past_.push_front(std::move(heard));
    if (static_cast<std::int64_t>(past_.size()) > e_.back) past_.pop_back();
  }

  experiment e_;
  ouro::random_stream random_;
  std::deque<std::vector<std::int32_t>> past_;  ///< of all lanes, the last first
};

/// The same lesson, but each lane is held to what the next one should say.
ouro::lesson<network> of_the_next_lane(ouro::lesson<network> l) {
  auto& expected = l.target.next.bytes;
  std::rotate(expected.begin(), expected.begin() + l.target.next.width, expected.end());
  return l;
}

/// For each distance: how often what is said is what should be.
class score {
 public:
  explicit score(experiment const& e) : e_(e), right_(static_cast<std::size_t>(e.back)) {}
  void count(std::vector<std::int32_t> const& said, ouro::lesson<network> const& l) {
    for (std::int64_t lane = 0; lane < e_.lanes; ++lane)
      for (std::int64_t i = 0; i < e_.symbols * e_.back; ++i)
        right_[static_cast<std::size_t>(i / e_.symbols)] +=
            said[static_cast<std::size_t>(lane * e_.patch() + i)] == l.target.next.at(lane, 0, i);
    ++steps_;
  }
  [[nodiscard]] double share(std::int64_t n) const {
    return static_cast<double>(right_[static_cast<std::size_t>(n)]) /
           static_cast<double>(steps_ * e_.lanes * e_.symbols);
  }
  void print(char const* what) const {
    std::printf("%-24s", what);
    for (std::int64_t n = 0; n < e_.back; ++n) std::printf(" %6.1f", 100 * share(n));
    std::printf("\n");
  }

 private:
  experiment e_;
  std::vector<std::int64_t> right_;
  std::int64_t steps_ = 0;
};

/// Mem, State, thought, or all: what a lane is given of the next one's.
struct exchange {
  char const* what;
  void (*give)(state&);
};
constexpr exchange exchanges[] = {
    {"with another's Mem", [](state& s) { s.mem = of_the_next(s.mem); }},
    {"with another's State", [](state& s) { s.working = of_the_next(s.working); }},
    {"with another's thought", [](state& s) { s.thought = of_the_next(s.thought); }},
    {"with all of another's", [](state& s) { s = of_the_next(std::move(s)); }},
};

/// Whether the easy one that is made without an argument is learned.
bool learned(experiment const& e) {
  network model(e.network_config(), seed_of(e.seed));
  world w(e);
  auto s = model.newborn(seed_of(e.seed), e.lanes);
  ouro::adamw const rule{.learning_rate = e.learning_rate, .warmup = 100, .total = e.updates};
  mastery of_asked(e.letters);
  std::int64_t asked = 1;
  teach(model, s, rule, e.guarded, e.updates, [&](std::optional<double> loss) {
    if (loss && of_asked.learned(*loss) && asked < e.back) ++asked;
    return lessons(e.span, [&] { return w.next(asked); });
  });

  score own(e);
  std::vector<score> others(std::size(exchanges), score(e));
  for (int step = 0; step < 60; ++step) {
    auto const l = w.next(e.back);
    auto const of_others = of_the_next_lane(l);
    for (std::size_t i = 0; i < others.size(); ++i) {
      auto changed = s;
      exchanges[i].give(changed);
      others[i].count(said(model, changed, of_others), of_others);
    }
    own.count(said(model, s, l), l);
  }
  std::printf("%% right of what was heard so many steps ago, or the other's; by chance %.1f\n%24s",
              100.0 / static_cast<double>(e.letters), "");
  for (std::int64_t n = 1; n <= e.back; ++n) std::printf(" %6lld", static_cast<long long>(n));
  std::printf("\n");
  own.print("as it is");
  for (std::size_t i = 0; i < others.size(); ++i) others[i].print(exchanges[i].what);
  return own.share(0) > 0.4 && others.back().share(0) > 0.4;
}

}  // namespace

int main(int argc, char** argv) { return run<experiment>("echo", argc, argv, learned); }
