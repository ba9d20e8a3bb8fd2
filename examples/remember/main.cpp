// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Does a life remember? It hears symbols, hears other things, sleeps, and is asked: by then nothing but its state can know.
// Before the question something may be taken from it, or it is given another life's: then it must answer as the other would.
// It learns with one symbol and no other things at first, and whenever that is learned with one more.
//
//   example_remember '{"symbols": 2, "letters": 16, "sleeps": 2, "kept": "mem"}'
//
// What is measured: the bits of the answer that are carried, log2(letters) less the cross entropy, and how often the most
// probable byte is right. Answers are drawn anew for each episode, so that without a memory there are 0 bits.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "../small_life.hpp"

namespace {

using namespace small_life;

struct experiment {
  std::int64_t symbols = 1;  ///< to be remembered
  std::int64_t letters = 4;  ///< that a symbol may be
  std::int64_t filler = 0;   ///< steps awake after them, of other letters
  std::int64_t sleeps = 1;   ///< steps asleep after those
  ouro::short_text<15> kept =
      "mem";                 ///< until it is asked: "all" of the state, "mem" alone, or "none" (the stateless twin)
  std::int64_t patches = 1;  ///< of 8 bytes, in a step
  std::int64_t lanes = 32;   ///< episodes in an update
  std::int64_t updates = 400;
  double learning_rate = 1e-3;
  bool guess = true;     ///< learn by the loss in which the Brain guesses the Actor's, or by the Actor's alone
  bool guarded = false;  ///< and if by the guess, with the Actor's gradient as if it were right
  ouro::short_text<255> brain = "attention";
  std::int64_t seed = 1;
  OURO_MODULE(experiment, symbols, letters, filler, sleeps, kept, patches, lanes, updates, learning_rate, guess,
              guarded, brain, seed);

  void validate() const {
    auto const in = [](auto... arguments) { require_in("remember", arguments...); };
    in(symbols, 1, 8, "symbols");
    in(letters, 2, 26, "letters");
    in(filler, 0, 1000, "filler");
    in(patches, 1, 64, "patches");
    require_usual("remember", *this, 2);
    ouro::require(kept.view() == "all" || kept.view() == "mem" || kept.view() == "none", ouro::errc::config, "remember",
                  "kept must be all, mem or none, got ", kept.str());
  }
  [[nodiscard]] ouro::gridman_config network_config() const { return config(8, patches, brain.view()); }
};

/// What the lanes hear, step by step, and what they should say in the end.
struct episode {
  std::vector<ouro::patches> heard;
  ouro::byte_target answer;
};

class examiner {
 public:
  explicit examiner(experiment const& e) : e_(e), random_(seed_of(e.seed + 1000)) {}

  /// Of an experiment so much easier: first there is less filler, then there are fewer symbols.
  [[nodiscard]] static experiment easier(experiment e, std::int64_t by) {
    auto const less_filler = std::min(by, e.filler);
    e.filler -= less_filler;
    e.symbols = std::max<std::int64_t>(1, e.symbols - (by - less_filler));
    return e;
  }

  episode draw(std::int64_t easier_by = 0) {
    auto const asked = easier(e_, easier_by);
    std::int64_t const step = e_.patches * 8;
    auto const draws = random_.next();
    std::uint64_t n = 0;
    auto letter = [&](char first, std::int64_t count) {
      return first + static_cast<std::int32_t>(draws.word(n++) % static_cast<std::uint64_t>(count));
    };
    auto blank = [&](char byte) {
      return ouro::patches{e_.lanes, e_.patches, 8, std::vector<std::int32_t>(index(e_.lanes * step), byte)};
    };
    auto symbols = blank('.');
    auto question = blank('.');
    ouro::byte_target answer{blank('.'), std::vector<char>(index(e_.lanes * step), 0)};
    for (std::int64_t lane = 0; lane < e_.lanes; ++lane) {
      std::int64_t const last = (lane + 1) * step - 8;  // the patch after which it answers
      for (std::int64_t i = 0; i < 8; ++i) question.bytes[index(last + i)] = '?';
      for (std::int64_t i = 0; i < asked.symbols; ++i) {
        auto const symbol = letter('A', e_.letters);
        symbols.bytes[index(lane * step + i)] = answer.next.bytes[index(last + i)] = symbol;
        answer.live[index(last + i)] = 1;
      }
    }
    std::vector<ouro::patches> heard{symbols};
    for (std::int64_t k = 0; k < asked.filler; ++k) {
      heard.push_back(blank('.'));
      for (auto& byte : heard.back().bytes) byte = letter('a', 26);
    }
    heard.push_back(question);
    return {heard, answer};
  }

  /// Lives an episode; `change` is what is done to the state before the question.
  template <class Change>
  ouro::impression<B> ask(network const& model, ouro::context<B>& cx, episode const& e, Change&& change) {
    auto s = model.newborn(ouro::seed{random_.next().word(0)}, e_.lanes);
    ouro::impression<B> seen;
    for (std::size_t i = 0; i < e.heard.size(); ++i) {
      if (i + 1 == e.heard.size()) {
        for (std::int64_t k = 0; k < e_.sleeps; ++k) s = ouro::sleep(model, cx, std::move(s));
        if (e_.kept.view() != "all") take(s, e_.kept.view() == "none");
        change(s);
      }
      auto r = ouro::wake(model, cx, std::move(s), e.heard[i]);
      s = std::move(r.state);
      seen = std::move(r.seen);
    }
    return seen;
  }

  /// Clears everything, or all but Mem.
  static void take(state& s, bool mem_too) {
    for (auto* t : {&s.working, &s.hormone, &s.self}) *t = tensor::zeros(t->dims(), t->type());
    if (mem_too) s.mem = tensor::zeros(s.mem.dims(), s.mem.type());
    s.thought.reset();
  }

  struct result {
    double bits = 0;  ///< of an answer's log2(letters) · symbols
    double right = 0;
  };
  /// Over 8 batches. `shift`: lane b is held to the answer of lane b + shift.
  template <class Change>
  result judge(network const& model, Change&& change, std::int64_t shift = 0) {
    result r;
    constexpr int batches = 8;
    double right = 0;
    for (int i = 0; i < batches; ++i) {
      auto e = draw();
      auto& expected = e.answer.next.bytes;
      ouro::context<B> cx;
      auto const seen = ask(model, cx, e, change);
      std::rotate(expected.begin(), expected.begin() + shift * e_.patches * 8, expected.end());
      double const nats = model.actor.loss(cx, seen, e.heard.back(), e.answer).value.item();  // per symbol
      r.bits += symbols() * (std::log2(static_cast<double>(e_.letters)) - nats / std::log(2.0)) / batches;
      auto const said = most_probable(model.actor.predict(cx, seen, e.heard.back(), e.answer));
      for (std::size_t at = 0; at < expected.size(); ++at)
        if (e.answer.live[at] != 0 && said[at] == expected[at]) ++right;
    }
    r.right = right / (batches * static_cast<double>(e_.lanes) * symbols());
    return r;
  }

 private:
  [[nodiscard]] double symbols() const { return static_cast<double>(e_.symbols); }
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  experiment e_;
  ouro::random_stream random_;
};

network trained(experiment const& e, examiner& teacher) {
  network model(e.network_config(), seed_of(e.seed));
  auto const list = ouro::fields(model);
  std::vector<ouro::moments<B>> moments;
  ouro::adamw const rule{.learning_rate = e.learning_rate, .warmup = 100};
  mastery of_lesson(e.letters);
  std::int64_t easier_by = e.symbols - 1 + e.filler;
  double nats = 0;
  for (std::int64_t u = 0; u < e.updates; ++u) {
    auto const lesson = teacher.draw(easier_by);
    ouro::context<B> cx{.training = true, .guarded = e.guarded};
    ouro::gradient_list<B> gradients;
    {
      ouro::tape<B> tape;
      ouro::watch(tape, list);
      auto const seen = teacher.ask(model, cx, lesson, [](state&) {});
      auto const loss = ouro::loss(model, cx, seen, lesson.heard.back(), lesson.answer);
      tape.backward(e.guess ? loss.total : loss.task);
      gradients = ouro::gradients_of(tape, list);
      double const task = loss.task.item();
      if (of_lesson.learned(task) && easier_by > 0) --easier_by;
      nats += task / 100;
    }
    ouro::update_parameters(list, moments, gradients, rule, rule.rate(u));
    ouro::apply_statistics(list, cx);
    if ((u + 1) % 100 != 0) continue;
    std::fprintf(stderr, "update %lld  %.4f nats per symbol\n", static_cast<long long>(u + 1), nats);
    nats = 0;
  }
  return model;
}

/// Whether the easy one that is made without an argument is learned.
bool learned(experiment const& e) {
  examiner teacher(e);
  auto const model = trained(e, teacher);
  auto const say = [](char const* what, examiner::result const& r) {
    std::printf("%-22s %6.3f bits  %5.1f %% right\n", what, r.bits, 100 * r.right);
    return r;
  };
  std::printf("%.1f bits in an answer, by chance 0 bits and %.1f %%\n",
              std::log2(static_cast<double>(e.letters)) * static_cast<double>(e.symbols),
              100.0 / static_cast<double>(e.letters));
  auto const given = [&](char const* what, auto... parts) {
    return say(what, teacher.judge(
                         model, [&](state& s) { ((s.*parts = of_the_next(s.*parts)), ...); }, 1));
  };
  auto const own = say("as it is", teacher.judge(model, [](state&) {}));
  auto const cleared = say("all taken away", teacher.judge(model, [](state& s) { examiner::take(s, true); }));
  auto const mem = given("with another's Mem", &state::mem);
  if (e.kept.view() == "all") {
    given("with another's State", &state::working);
    given("with another's self", &state::self);
    given("with another's hormone", &state::hormone);
    given("with another's thought", &state::thought);
    given("State and thought", &state::working, &state::thought);
  }
  return own.bits > 1.5 && mem.bits > 1.5 && cleared.right < 0.5;
}

}  // namespace

int main(int argc, char** argv) { return run<experiment>("remember", argc, argv, learned); }
