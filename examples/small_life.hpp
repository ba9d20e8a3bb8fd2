// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the experiments of docs/science.md have in common: a small network, and what is asked of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/ouro.hpp>

namespace small_life {

using B = ouro::cpu;
using network = ouro::gridman<B, ouro::hybrid>;
using tensor = ouro::tensor<B>;
using state = ouro::state<B>;

/// D 64, 8 rows of State, 16 of Mem, one layer in Sensor and Actor and two in the Brain; `sleeps` steps asleep after four awake.
inline ouro::gridman_config config(std::int64_t patch, std::int64_t chunk, std::string_view brain,
                                   std::int64_t sleeps = 2) {
  ouro::gridman_config c;
  c.width = 64, c.heads = 4, c.sensor_layers = 1, c.brain_layers = 2, c.actor_layers = 1;
  c.patch = patch, c.chunk = chunk, c.state_rows = 8, c.memory_rows = 16, c.anchors = 1, c.dropout = 0;
  c.wake = 4, c.sleep = sleeps;
  return c.layers(brain);
}

/// Errors (config): outside from..to.
inline void require_in(char const* where, std::int64_t value, std::int64_t from, std::int64_t to, char const* name) {
  ouro::require(value >= from && value <= to, ouro::errc::config, where, name, " must be in ", from, "..", to, ", got ",
                value);
}

/// The same for the settings that every experiment has, and for `sleeps` and `span`, which most have.
template <class Experiment>
void require_usual(char const* where, Experiment const& e, std::int64_t least_lanes) {
  if constexpr (requires { e.sleeps; }) require_in(where, e.sleeps, 0, 1000, "sleeps");
  if constexpr (requires { e.span; }) require_in(where, e.span, 1, 1000, "span");
  require_in(where, e.lanes, least_lanes, 4096, "lanes");
  require_in(where, e.updates, 1, 1000000, "updates");
  require_in(where, e.seed, 0, 1000000, "seed");
}

inline ouro::seed seed_of(std::int64_t number) { return ouro::seed{static_cast<std::uint64_t>(number)}; }

/// Makes the experiment that the first argument, a JSON object of what differs, describes. It is printed, and learned(e) makes it:
/// without an argument exit code 1 says that nothing was learned, 2 says that there was an error.
template <class Experiment, class Learned>
int run(char const* name, int argc, char** argv, Learned&& learned) {
  try {
    auto const e = argc > 1 ? ouro::changed(Experiment{}, std::string(argv[1])) : Experiment{};
    std::printf("%s\n", ouro::to_text(e).c_str());
    return learned(e) || argc > 1 ? 0 : 1;
  } catch (ouro::error const& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 2;
  }
}

/// Tells when something is learned: the running mean of the loss is below a tenth of what it is by chance. Then something harder begins.
class mastery {
 public:
  /// By chance one of `choices`.
  explicit mastery(std::int64_t choices) : by_chance_(std::log(static_cast<double>(choices))), mean_(by_chance_) {}
  bool learned(double loss) {
    mean_ += (loss - mean_) / 20;
    bool const is = mean_ < by_chance_ / 10;
    if (is) mean_ = by_chance_;
    return is;
  }

 private:
  double by_chance_;
  double mean_;
};

/// As many lessons, one after the other from `next`.
template <class Next>
std::vector<ouro::lesson<network>> lessons(std::int64_t count, Next&& next) {
  std::vector<ouro::lesson<network>> all;
  for (std::int64_t i = 0; i < count; ++i) all.push_back(next());
  return all;
}

/// Makes `updates` updates with lessons that `next` hands out, who is told the loss of the last ones; `life`
/// lives through all of them. Errors (numeric): an update was refused.
template <class Next>
void teach(network& model, state& life, ouro::adamw const& rule, bool guarded, std::int64_t updates, Next&& next) {
  ouro::trainer<network> trainer(model, rule);
  trainer.guarded() = guarded;
  std::optional<double> last;
  double loss = 0;
  double guess = 0;
  for (std::int64_t u = 1; u <= updates; ++u) {
    auto const lessons = next(last);  // who may have changed the life
    auto const report = trainer.update(life, lessons);
    ouro::require(!report.refused, ouro::errc::numeric, "teach", "update ", u, " was refused: ", report.reason);
    last = report.cross_entropy;
    loss += report.cross_entropy / 100;
    guess += report.predicted / 100;
    if (u % 100 != 0) continue;
    std::fprintf(stderr, "update %lld  %.4f nats, guessed %.4f\n", static_cast<long long>(u), loss, guess);
    loss = guess = 0;
  }
}

/// Every lane is given what the next one has.
inline tensor of_the_next(tensor const& t) {
  return ouro::concat({ouro::slice(t, 0, 1, t.dim(0) - 1), ouro::slice(t, 0, 0, 1)}, 0);
}
inline std::optional<tensor> of_the_next(std::optional<tensor> const& t) { return of_the_next(t.value()); }
/// All but the oscillator, which has noise of its own.
inline state of_the_next(state s) {
  for (auto* t : {&s.mem, &s.working, &s.self, &s.hormone}) *t = of_the_next(*t);
  s.thought = of_the_next(s.thought);
  return s;
}

/// One step, and those asleep before it that are due: what the Actor acts on.
inline ouro::impression<B> lived(network const& model, ouro::context<B>& cx, state& s, ouro::patches const& x) {
  auto r = ouro::live_on(model, cx, std::move(s), x);
  s = std::move(r.state);
  return std::move(r.seen);
}

/// The most probable byte at each place of `expected`, of logits (B,S,P,V).
inline std::vector<std::int32_t> most_probable(tensor const& logits) {
  auto const values = logits.values<float>();
  auto const width = logits.dim(3);
  std::vector<std::int32_t> bytes;
  for (auto row = values.begin(); row != values.end(); row += width)
    bytes.push_back(static_cast<std::int32_t>(std::max_element(row, row + width) - row));
  return bytes;
}

/// One step: what is said, byte by byte, to be held to the lesson.
inline std::vector<std::int32_t> said(network const& model, state& s, ouro::lesson<network> const& l) {
  ouro::context<B> cx;
  auto const seen = lived(model, cx, s, l.input);
  return most_probable(model.actor.predict(cx, seen, l.input, l.target));
}

}  // namespace small_life
