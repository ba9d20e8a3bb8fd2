// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Does a life keep track? Some things lie in a row. At each step it hears how they are moved, and says how they lie now: that
// follows from all that was ever heard, and is never told.
//
//   example_track '{"things": 3, "lanes": 32, "updates": 8000}'
//
// Lives last one update at first, and twice as many whenever their last ones are learned. What is measured is how often newborns are right that live much longer than any update goes back.
#include <algorithm>
#include <cstdio>
#include <optional>
#include <vector>

#include "../small_life.hpp"

namespace {

using namespace small_life;

struct experiment {
  std::int64_t things = 2;  ///< that lie in a row: parity for two of them, else their symmetric group
  std::int64_t sleeps = 0;  ///< steps asleep after each four awake
  std::int64_t span = 3;    ///< steps awake in an update, over which gradients go back
  std::int64_t lanes = 16;
  std::int64_t updates = 600;
  double learning_rate = 1e-3;
  bool guarded = true;  ///< a guess of the loss that is far too high does not teach the Actor to do worse
  ouro::short_text<255> brain = "attention";
  std::int64_t seed = 1;
  OURO_MODULE(experiment, things, sleeps, span, lanes, updates, learning_rate, guarded, brain, seed);

  void validate() const {
    require_in("track", things, 2, 5, "things");
    require_usual("track", *this, 1);
  }
  [[nodiscard]] ouro::gridman_config network_config() const { return config(8, 1, brain.view(), sleeps); }
};

/// A row of things in each lane, and every way in which they may lie. A way is said by one byte.
class world {
 public:
  explicit world(experiment const& e) : e_(e), random_(seed_of(e.seed + 1000)) {
    std::vector<std::size_t> way;
    for (std::int64_t i = 0; i < e.things; ++i) way.push_back(static_cast<std::size_t>(i));
    do ways_.push_back(way);
    while (std::next_permutation(way.begin(), way.end()));
    begin();
  }
  [[nodiscard]] std::size_t ways() const { return ways_.size(); }

  /// All lie as at first.
  void begin() { now_.assign(static_cast<std::size_t>(e_.lanes), 0); }

  /// A move in each lane, and how its things lie after it.
  ouro::lesson<network> next() {
    auto const draws = random_.next();
    ouro::patches const blank{e_.lanes, 1, 8, std::vector<std::int32_t>(now_.size() * 8, ' ')};
    ouro::lesson<network> l{blank, {blank, std::vector<char>(blank.bytes.size(), 0)}};
    for (std::size_t lane = 0; lane < now_.size(); ++lane) {
      auto const move = static_cast<std::size_t>(draws.word(lane) % ways());
      now_[lane] = moved(now_[lane], move);
      l.input.bytes[lane * 8] = byte_of(move);
      l.target.next.bytes[lane * 8] = byte_of(now_[lane]);
      l.target.live[lane * 8] = 1;
    }
    return l;
  }

 private:
  static std::int32_t byte_of(std::size_t way) { return '!' + static_cast<std::int32_t>(way); }
  [[nodiscard]] std::size_t moved(std::size_t now, std::size_t move) const {
    auto const& from = ways_[now];
    auto to = from;
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = from[ways_[move][i]];
    return static_cast<std::size_t>(std::lower_bound(ways_.begin(), ways_.end(), to) - ways_.begin());
  }

  experiment e_;
  ouro::random_stream random_;
  std::vector<std::vector<std::size_t>> ways_;  ///< in their order
  std::vector<std::size_t> now_;                ///< of all lanes
};

network trained(experiment const& e, world& w) {
  network model(e.network_config(), seed_of(e.seed));
  state s;
  ouro::adamw const rule{.learning_rate = e.learning_rate, .warmup = 100, .total = e.updates};
  mastery of_lifespan(static_cast<std::int64_t>(w.ways()));
  std::int64_t births = 0;
  std::int64_t lifespan = 1;
  std::int64_t age = 0;  // updates
  teach(model, s, rule, e.guarded, e.updates, [&](std::optional<double> loss) {
    bool const over = !loss || ++age == lifespan;
    if (loss && over && of_lifespan.learned(*loss)) {
      lifespan *= 2;
      std::fprintf(stderr, "lives last %lld updates\n", static_cast<long long>(lifespan));
    }
    if (over) {
      s = model.newborn(seed_of(e.seed + births++), e.lanes);
      w.begin();
      age = 0;
    }
    return lessons(e.span, [&] { return w.next(); });
  });
  return model;
}

/// Whether the easy one that is made without an argument is learned.
bool learned(experiment const& e) {
  world w(e);
  auto const model = trained(e, w);
  std::printf("by chance %.1f %% right\n", 100.0 / static_cast<double>(w.ways()));
  auto s = model.newborn(seed_of(e.seed + e.updates), e.lanes);
  w.begin();
  double first = 0;
  std::int64_t age = 0;
  for (std::int64_t const until : {e.span, 4 * e.span, 16 * e.span, 64 * e.span}) {
    std::int64_t right = 0;
    auto const from = age;
    for (; age < until; ++age) {
      auto const l = w.next();
      auto const bytes = said(model, s, l);
      for (std::size_t i = 0; i < bytes.size(); i += 8) right += bytes[i] == l.target.next.bytes[i];
    }
    double const share = static_cast<double>(right) / static_cast<double>((until - from) * e.lanes);
    if (from == 0) first = share;
    std::printf("steps %4lld to %4lld  %5.1f %%\n", static_cast<long long>(from + 1), static_cast<long long>(until),
                100 * share);
  }
  return first > 0.8;
}

}  // namespace

int main(int argc, char** argv) { return run<experiment>("track", argc, argv, learned); }
