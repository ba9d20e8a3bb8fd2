// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Does a life know what it does not know? The Brain guesses the loss that its Actor will have. Here the truth is known: in
// each step all bytes of a lane are one of 2^h, drawn uniformly, and h is drawn anew for each step and lane, so that no Actor can
// have less than h·log 2 nats per byte, and one that has understood has just that.
//
//   example_foresee '{"patches": 1, "lanes": 16, "updates": 2000, "learning_rate": 1e-3}'
//
// What is measured, of a newborn with these weights: its guess, its loss and the truth for each h, and how much of the guesses'
// variance is the truth's.
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <vector>

#include "../small_life.hpp"

namespace {

using namespace small_life;

constexpr std::int64_t most_bits = 8;

struct experiment {
  std::int64_t patches = 4;  ///< of 8 bytes that are heard in a step, before those that are guessed at
  std::int64_t lanes = 4;
  std::int64_t updates = 500;
  double learning_rate = 2e-3;
  bool guarded = true;  ///< a guess far too high does not teach the Actor to do worse
  ouro::short_text<255> brain = "attention";
  std::int64_t seed = 1;
  OURO_MODULE(experiment, patches, lanes, updates, learning_rate, guarded, brain, seed);

  void validate() const {
    require_in("foresee", patches, 1, 64, "patches");
    require_usual("foresee", *this, 1);
  }
  [[nodiscard]] ouro::gridman_config network_config() const { return config(8, patches, brain.view()); }
};

/// Streams whose entropy is known.
class source {
 public:
  explicit source(experiment const& e) : e_(e), random_(seed_of(e.seed + 1000)) {}

  /// h for each lane.
  std::vector<std::int64_t> bits(std::int64_t lanes) {
    auto const draws = random_.next();
    std::vector<std::int64_t> bits;
    for (std::int64_t lane = 0; lane < lanes; ++lane)
      bits.push_back(static_cast<std::int64_t>(draws.word(static_cast<std::uint64_t>(lane)) % (most_bits + 1)));
    return bits;
  }

  /// A step for lanes of so many bits a byte: each patch is to be followed by the next.
  ouro::lesson<network> step(std::vector<std::int64_t> const& bits) {
    auto const draws = random_.next();
    std::int64_t const length = e_.patches * 8;
    ouro::patches heard{static_cast<std::int64_t>(bits.size()), e_.patches, 8, {}};
    ouro::patches next = heard;
    std::uint64_t n = 0;
    for (auto const of_lane : bits) {
      std::vector<std::int32_t> stream;
      for (std::int64_t i = 0; i < length + 8; ++i)
        stream.push_back(static_cast<std::int32_t>(draws.word(n++) % (std::uint64_t{1} << of_lane)));
      heard.bytes.insert(heard.bytes.end(), stream.begin(), stream.end() - 8);
      next.bytes.insert(next.bytes.end(), stream.begin() + 8, stream.end());
    }
    std::vector<char> const live(next.bytes.size(), 1);
    return {std::move(heard), {std::move(next), live}};
  }

 private:
  experiment e_;
  ouro::random_stream random_;
};

/// How y depends on x, by least squares.
struct line {
  double slope;
  double share;  ///< of y's variance, R²
};
line line_through(std::vector<double> const& x, std::vector<double> const& y) {
  auto const n = static_cast<double>(x.size());
  double sx = 0, sy = 0, xx = 0, xy = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    sx += x[i], sy += y[i], xx += x[i] * x[i], xy += x[i] * y[i], yy += y[i] * y[i];
  xx -= sx * sx / n, xy -= sx * sy / n, yy -= sy * sy / n;
  return {xy / xx, xy * xy / (xx * yy)};
}

/// What came of some steps.
struct record {
  std::vector<double> truths;
  std::vector<double> losses;
  std::vector<double> guesses;
};
record examined(network const& model, source& world, experiment const& e) {
  record r;
  auto s = model.newborn(seed_of(e.seed + 1), 1);
  for (int i = 0; i < 50 * most_bits; ++i) {
    auto const bits = world.bits(1);
    auto const step = world.step(bits);
    ouro::context<B> cx;
    auto const seen = lived(model, cx, s, step.input);
    auto const judged = ouro::loss(model, cx, seen, step.input, step.target);
    r.truths.push_back(static_cast<double>(bits[0]) * std::log(2.0));
    r.losses.push_back(judged.task.item());
    r.guesses.push_back(judged.predicted.item());
  }
  return r;
}

/// The means for each truth.
void print(record const& r) {
  std::printf("%10s %10s %10s\n", "truth", "loss", "guess");
  std::map<double, std::vector<std::size_t>> steps;
  for (std::size_t i = 0; i < r.truths.size(); ++i) steps[r.truths[i]].push_back(i);
  for (auto const& [truth, of_it] : steps) {
    double loss = 0, guess = 0;
    for (auto const i : of_it) loss += r.losses[i], guess += r.guesses[i];
    auto const n = static_cast<double>(of_it.size());
    std::printf("%10.3f %10.3f %10.3f\n", truth, loss / n, guess / n);
  }
}

/// Whether the easy one that is made without an argument is learned.
bool learned(experiment const& e) {
  network model(e.network_config(), seed_of(e.seed));
  auto s = model.newborn(seed_of(e.seed), e.lanes);
  source world(e);
  ouro::adamw const rule{.learning_rate = e.learning_rate, .warmup = 100, .total = e.updates};
  teach(model, s, rule, e.guarded, e.updates,
        [&](std::optional<double>) { return lessons(4, [&] { return world.step(world.bits(e.lanes)); }); });
  auto const r = examined(model, world, e);
  std::printf("nats per byte\n");
  print(r);
  auto const by_truth = line_through(r.truths, r.guesses);
  auto const by_loss = line_through(r.losses, r.guesses);
  std::printf("guess by truth: R² %.4f, slope %.3f; by loss: R² %.4f, slope %.3f\n", by_truth.share, by_truth.slope,
              by_loss.share, by_loss.slope);
  return by_truth.share > 0.5;
}

}  // namespace

int main(int argc, char** argv) { return run<experiment>("foresee", argc, argv, learned); }
