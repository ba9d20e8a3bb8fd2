// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Does a life infer what it is never told? Each lane hears letters of a hidden source, which is exchanged for another now and then. A
// step says little about which it is: who would foresee the next must add up what was heard before. How well that can be
// done is known exactly: by Bayes, over all that was heard (the forward algorithm of hidden Markov models, L. Rabiner, "A tutorial
// on hidden Markov models", 1989), and over the last step alone, which is the best that can be done without a state.
//
//   example_infer '{"sources": 16, "letters": 16, "contrast": 1, "lanes": 32, "updates": 6000, "learning_rate": 1e-3}'
//
// What is measured, in a life that is never reset: its loss, and what Bayes has on the same letters; and then, given all of another's
// state between two steps, its loss, and what Bayes has who believes what the other should.
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include <ouro/tensor/normal.hpp>

#include "../small_life.hpp"

namespace {

using namespace small_life;

struct experiment {
  std::int64_t sources = 4;
  std::int64_t letters = 4;    ///< that a source may say
  double contrast = 2;         ///< standard deviation of the logarithms of a source's probabilities
  std::int64_t said = 1;       ///< letters in a step
  std::int64_t lifetime = 64;  ///< mean steps until a source is exchanged for any of them
  std::int64_t sleeps = 0;     ///< steps asleep after each four awake
  std::int64_t span = 4;       ///< steps awake in an update, over which gradients go back
  std::int64_t lanes = 16;
  std::int64_t updates = 600;
  double learning_rate = 2e-3;
  bool guarded = true;  ///< a guess of the loss that is far too high does not teach the Actor to do worse
  ouro::short_text<255> brain = "attention";
  std::int64_t seed = 1;
  OURO_MODULE(experiment, sources, letters, contrast, said, lifetime, sleeps, span, lanes, updates, learning_rate,
              guarded, brain, seed);

  void validate() const {
    auto const in = [](auto... arguments) { require_in("infer", arguments...); };
    in(sources, 2, 256, "sources");
    in(letters, 2, 26, "letters");
    in(said, 1, 8, "said");
    in(lifetime, 1, 1000000, "lifetime");
    ouro::require(contrast >= 0 && contrast <= 10, ouro::errc::config, "infer", "contrast must be in 0..10, got ",
                  contrast);
    require_usual("infer", *this, 2);
  }
  [[nodiscard]] ouro::gridman_config network_config() const { return config(8, 1, brain.view(), sleeps); }
};

/// A source's probability, for each.
using belief = std::vector<double>;

/// Hidden sources, and what Bayes makes of what they say.
class world {
 public:
  using letters = std::vector<std::size_t>;  ///< of a step

  explicit world(experiment const& e)
      : e_(e),
        random_(seed_of(e.seed + 1000)),
        source_(count(e.lanes), 0),
        heard_(source_.size()),
        before_(source_.size(), flat()) {
    auto const draws = random_.next();
    std::uint64_t n = 0;
    for (std::int64_t i = 0; i < e.sources; ++i) {
      std::vector<double> p;
      double sum = 0;
      for (std::int64_t c = 0; c < e.letters; ++c)
        sum += p.emplace_back(std::exp(e.contrast * ouro::standard_normal(draws, n++)));
      for (auto& value : p) value /= sum;
      says_.push_back(std::move(p));
    }
    say();
  }

  struct step {
    ouro::lesson<network> lesson;  ///< what is heard, and follows
    double all = 0;                ///< nats per letter of Bayes, who heard all
    double last = 0;               ///< who heard the last step alone
    double others = 0;             ///< who heard the last step, and before it what the next lane heard
  };
  step next() {
    step s;
    std::vector<std::int32_t> const silence(source_.size() * 8, '.');
    s.lesson = {{e_.lanes, 1, 8, silence}, {{e_.lanes, 1, 8, silence}, std::vector<char>(silence.size(), 0)}};
    auto const heard = heard_;
    auto const before = before_;
    for (std::size_t lane = 0; lane < heard.size(); ++lane) before_[lane] = after(before[lane], heard[lane]);
    say();
    auto const all_said = static_cast<double>(e_.lanes * e_.said);
    for (std::size_t lane = 0; lane < heard.size(); ++lane) {
      auto const& follows = heard_[lane];
      s.all += surprise(before_[lane], follows) / all_said;
      s.last += surprise(after(flat(), heard[lane]), follows) / all_said;
      s.others += surprise(after(before[(lane + 1) % heard.size()], heard[lane]), follows) / all_said;
      for (std::size_t i = 0; i < follows.size(); ++i) {
        s.lesson.input.bytes[8 * lane + i] = byte_of(heard[lane][i]);
        s.lesson.target.next.bytes[8 * lane + i] = byte_of(follows[i]);
        s.lesson.target.live[8 * lane + i] = 1;
      }
    }
    return s;
  }

 private:
  static std::size_t count(std::int64_t n) { return static_cast<std::size_t>(n); }
  static std::int32_t byte_of(std::size_t letter) { return 'A' + static_cast<std::int32_t>(letter); }
  [[nodiscard]] belief flat() const { return belief(count(e_.sources), 1.0 / static_cast<double>(e_.sources)); }

  /// Every source lives on or is exchanged, and speaks.
  void say() {
    auto const draws = random_.next();
    std::uint64_t n = 0;
    for (std::size_t lane = 0; lane < source_.size(); ++lane) {
      bool const exchanged = draws.uniform(n++) * static_cast<double>(e_.lifetime) < 1;
      auto const another = draws.word(n++) % says_.size();
      if (exchanged || heard_[lane].empty()) source_[lane] = another;
      heard_[lane].clear();
      for (std::int64_t i = 0; i < e_.said; ++i)
        heard_[lane].push_back(letter_of(says_[source_[lane]], draws.uniform(n++)));
    }
  }
  static std::size_t letter_of(std::vector<double> const& p, double u) {
    std::size_t c = 0;
    while (c + 1 < p.size() && u >= p[c]) u -= p[c++];
    return c;
  }

  /// What is believed when `heard` has come, and the source has lived on or not.
  [[nodiscard]] belief after(belief b, letters const& heard) const {
    take_in(b, heard);
    double const gone = 1 / static_cast<double>(e_.lifetime);
    for (auto& p : b) p = (1 - gone) * p + gone / static_cast<double>(e_.sources);
    return b;
  }
  /// −log of what was believed of these letters.
  [[nodiscard]] double surprise(belief b, letters const& follows) const { return take_in(b, follows); }
  double take_in(belief& b, letters const& heard) const {
    double nats = 0;
    for (auto const c : heard) {
      double sum = 0;
      for (std::size_t i = 0; i < b.size(); ++i) sum += b[i] *= says_[i][c];
      for (auto& p : b) p /= sum;
      nats -= std::log(sum);
    }
    return nats;
  }

  experiment e_;
  ouro::random_stream random_;
  std::vector<std::vector<double>> says_;  ///< of each source, the probability of each letter
  std::vector<std::size_t> source_;        ///< of each lane
  std::vector<letters> heard_;             ///< in each lane, last
  std::vector<belief> before_;             ///< what was believed before that
};

/// Its loss in a step.
double lived_through(network const& model, state& s, ouro::lesson<network> const& l) {
  ouro::context<B> cx;
  auto const seen = lived(model, cx, s, l.input);
  return model.actor.loss(cx, seen, l.input, l.target).value.item();
}

/// Whether the easy one that is made without an argument is learned.
bool learned(experiment const& e) {
  network model(e.network_config(), seed_of(e.seed));
  world w(e);
  auto s = model.newborn(seed_of(e.seed), e.lanes);
  ouro::adamw const rule{.learning_rate = e.learning_rate, .warmup = 100, .total = e.updates};
  teach(model, s, rule, e.guarded, e.updates,
        [&](std::optional<double>) { return lessons(e.span, [&] { return w.next().lesson; }); });

  constexpr int steps = 400;
  double own = 0, given = 0, all = 0, last = 0, others = 0;
  for (int i = 0; i < steps; ++i) {
    auto const step = w.next();
    auto another = of_the_next(s);
    given += lived_through(model, another, step.lesson) / steps;
    own += lived_through(model, s, step.lesson) / steps;
    all += step.all / steps, last += step.last / steps, others += step.others / steps;
  }
  std::printf("nats per letter             its own   of Bayes\n");
  std::printf("without a state                     %10.4f\n", last);
  std::printf("as it is                 %10.4f %10.4f\n", own, all);
  std::printf("with all of another's    %10.4f %10.4f\n", given, others);
  double const missed = (own - all) / (last - all);
  std::printf("it misses %.1f %% of what a state can give\n", 100 * missed);
  return missed < 0.85;
}

}  // namespace

int main(int argc, char** argv) { return run<experiment>("infer", argc, argv, learned); }
