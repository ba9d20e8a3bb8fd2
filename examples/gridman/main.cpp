// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// gridman: makes, trains, talks to and keeps lives. Exit codes: 0 done, 2 usage, 3 data, 4 numeric, 5 storage.
#if defined(__linux__)
#include <malloc.h>
#endif
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>

#include <ouro/backend/cpu_gridman.hpp>
#include <ouro/data/corpus.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/life/life.hpp>
#include <ouro/nn/mixers/hybrid.hpp>

#include "backends.hpp"
#include "bench.hpp"
#include "exchange.hpp"
#include "names.hpp"

namespace {

template <class B>
using network = ouro::gridman<B, ouro::hybrid>;
template <class B>
using life = ouro::life<B, ouro::hybrid>;
using watch = std::chrono::steady_clock;

volatile std::sig_atomic_t stopping = 0;
/// A second ends at once; the last commit is safe. What follows within a quarter of a second is the first one again:
/// `timeout` sends each to its child and then to its group.
void on_signal(int number) {
  static std::atomic<std::int64_t> first{0};
  auto const now = std::chrono::nanoseconds(watch::now().time_since_epoch()).count();
  std::int64_t before = 0;
  if (!first.compare_exchange_strong(before, now) && now - before > 250'000'000) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
  stopping = 1;
}
/// For commands that end well: they look at `stopping`, or end soon. `flags` 0 ends a read that waits, SA_RESTART lets all calls go on.
void look_at_signals(int flags) {
  struct ::sigaction how {};
  how.sa_handler = on_signal;
  how.sa_flags = flags;
  for (int number : {SIGINT, SIGTERM}) ::sigaction(number, &how, nullptr);
}

double seconds_since(watch::time_point start) { return std::chrono::duration<double>(watch::now() - start).count(); }

int exit_code(ouro::errc code) {
  switch (code) {
    case ouro::errc::data: return 3;
    case ouro::errc::numeric: return 4;
    case ouro::errc::storage: return 5;
    default: return 2;
  }
}

/// Opens a life, or looks at it, and says which of its generations could not be read.
template <class B>
life<B> opened(std::string const& path, bool only_look = false) {
  auto l = only_look ? life<B>::look(path) : life<B>::open(path);
  for (auto const& why : l.passed_over()) std::fprintf(stderr, "gridman: passed over %s\n", why.c_str());
  return l;
}

/// Says which lines of a text were skipped when the reading ends, however it ends.
class skipped_lines {
 public:
  explicit skipped_lines(ouro::corpus const& text) : text_(&text) {}
  skipped_lines(skipped_lines const&) = delete;
  skipped_lines& operator=(skipped_lines const&) = delete;
  ~skipped_lines() {
    if (text_ == nullptr || text_->skipped() == 0) return;
    auto const& list = text_->complaints();
    for (auto c = list.begin(); c != list.end(); ++c)  // another epoch has the same ones
      if (std::find(list.begin(), c, *c) == c) std::fprintf(stderr, "skipped %s\n", c->c_str());
    std::fprintf(stderr, "gridman: bad lines skipped, each counted whenever it was read: %lld\n",
                 static_cast<long long>(text_->skipped()));
  }
  void forget() { text_ = nullptr; }

 private:
  ouro::corpus const* text_;
};

struct training {
  std::string path;
  std::vector<std::string> texts;
  std::int64_t updates = 0;
  double minutes = 0;
  double rate = 3e-4;
  std::int64_t warmup = 100;
  std::int64_t total = 0;
  std::string log;
  bool strict = false;
  bool answers_only = false;
  bool guarded = false;
  double save_every = 120;
  double room = 0;
};

/// Errors (argument): a command would read what it writes, as one of the texts or what such a folder holds.
void require_outside(char const* what, std::string const& place, std::vector<std::string> const& texts,
                     char const* command) {
  for (auto const& text : texts)
    ouro::require(!ouro::exists(text) || !ouro::is_inside(place, text), ouro::errc::argument, command, what, " is in ",
                  text, ", and would be read");
}

/// Errors (data): no byte of the texts would be a target.
void require_target(std::vector<std::string> const& texts, ouro::corpus_options const& options) {
  ouro::corpus text(texts, options);
  skipped_lines skipped(text);
  for (ouro::text_lesson t; text.next(t);)
    if (std::find(t.target.live.begin(), t.target.live.end(), 1) != t.target.live.end()) return skipped.forget();
  ouro::fail(ouro::errc::data, "train", "the text has nothing to learn: it is shorter than two patches",
             options.answers_only ? ", or has no answers" : "");
}

template <class B>
void train(training const& o) {
  auto l = opened<B>(o.path);
  require_outside("the life", o.path, o.texts, "train");
  if (!o.log.empty()) {
    auto const folder = ouro::parent_of(o.log);
    ouro::require(ouro::exists(folder), ouro::errc::storage, "train", "there is no folder ", folder, " for the log");
    require_outside("the log", ouro::is_file(o.log) ? o.log : folder, o.texts, "train");
  }
  auto const& config = l.model.config();
  ouro::corpus_options const reading{config.patch, config.chunk, o.answers_only, o.strict};
  require_target(o.texts, reading);
  ouro::corpus text(o.texts, reading);
  skipped_lines const skipped(text);
  // Another text begins at its beginning; the same one goes on.
  text.resume(l.progress.cursor);
  auto trainer = l.resume({.learning_rate = o.rate, .warmup = o.warmup, .total = o.total}, {}, room_bytes(o.room));
  trainer.guarded() = o.guarded;

  std::unique_ptr<std::FILE, decltype([](std::FILE* f) { std::fclose(f); })> log;
  if (!o.log.empty()) {
    std::error_code unknown;
    bool const fresh = std::filesystem::file_size(o.log, unknown) == 0 || unknown;
    log.reset(std::fopen(o.log.c_str(), "a"));
    ouro::require(log != nullptr, ouro::errc::storage, "train", "cannot write ", o.log);
    if (fresh)
      std::fprintf(log.get(), "update,loss,cross_entropy,predicted,gradient_norm,learning_rate,bytes_per_second\n");
  }
  std::int64_t const first = trainer.updates();
  auto kept = first;
  auto learned = text.position();
  auto keep = [&] {
    l.progress.cursor = learned;
    l.commit(trainer);
    kept = trainer.updates();
  };
  auto save = [&] {
    keep();
    ouro::require(log == nullptr || (std::fflush(log.get()) == 0 && std::ferror(log.get()) == 0), ouro::errc::storage,
                  "train", "cannot write ", o.log, "; the life is saved");
  };
  bool const terminal = ::isatty(STDOUT_FILENO) == 1;
  auto const goal = o.updates > 0 ? saturating_sum(first, o.updates) : std::numeric_limits<std::int64_t>::max();
  auto const start = watch::now();
  auto saved = start;
  double shown = -1;
  double mean = 0;
  std::int64_t refused = 0;
  try {
    while (trainer.updates() < goal && stopping == 0 && std::ferror(stdout) == 0) {
      double const elapsed = seconds_since(start);
      if (o.minutes > 0 && elapsed > o.minutes * 60) break;
      // With a time to keep, the cosine ends when the time does: as much of it is over.
      if (auto const past = trainer.updates() - o.warmup; o.minutes > 0 && o.total == 0 && past > 0) {
        double const whole = static_cast<double>(past) / std::max(elapsed / (o.minutes * 60), 1e-6);
        trainer.rule().total = o.warmup + static_cast<std::int64_t>(std::ceil(whole));
      }
      auto const r = trainer.update(l.state, text.cycle(config.bptt));
      learned = text.position();
      if (r.refused) {
        std::fprintf(
            stderr, "update %lld refused: loss %g, gradient norm %g; weights and state are as before; not finite: %s\n",
            static_cast<long long>(r.update), r.loss, r.gradient_norm, r.reason.c_str());
        ouro::require(++refused < 8, ouro::errc::numeric, "train",
                      "eight updates in a row were not finite: ", r.reason);
        continue;
      }
      refused = 0;
      l.progress.heard += config.bptt * config.chunk * config.patch;
      std::int64_t const done = r.update - first;
      double const now = seconds_since(start);
      if (r.live > 0) mean = mean == 0 ? r.cross_entropy : 0.98 * mean + 0.02 * r.cross_entropy;
      double const speed = static_cast<double>(done * config.bptt * config.chunk * config.patch) / now;
      if (log != nullptr)
        std::fprintf(log.get(), "%lld,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g\n", static_cast<long long>(r.update), r.loss,
                     r.cross_entropy, r.predicted, r.gradient_norm, r.learning_rate, speed);
      if (now - shown > (terminal ? 0.5 : 15.0)) {
        shown = now;
        double left = o.minutes > 0 ? o.minutes * 60 - now : 0;
        if (o.updates > 0) left = now / static_cast<double>(done) * static_cast<double>(o.updates - done);
        std::printf("%supdate %lld  %.3f nats/byte (%.3f bits)  predicted %.3f  %.1f kB/s  %.0f s left%s",
                    terminal ? "\r\033[K" : "", static_cast<long long>(r.update), mean, mean / std::log(2.0),
                    r.predicted, speed / 1000, std::max(left, 0.0), terminal ? "" : "\n");
        std::fflush(stdout);
      }
      if (seconds_since(saved) > o.save_every) {
        save();
        saved = watch::now();
      }
    }
  } catch (...) {  // the life is as its last update left it
    try {
      if (trainer.updates() > kept) keep();
    } catch (std::exception const& e) {
      std::fprintf(stderr, "gridman: what was learned since the last save is lost: %s\n", e.what());
    }
    throw;
  }
  save();
  std::printf("%supdate %lld: ", terminal ? "\n" : "", static_cast<long long>(trainer.updates()));
  if (mean > 0) std::printf("%.3f nats/byte, ", mean);
  std::printf("epoch %lld, saved\n", static_cast<long long>(text.position().epoch));
}

/// The network of a life as it speaks; the life's own stays what it is.
template <class B>
network<B> speaker_of(life<B> const& l, std::string const& weights) {
  auto speaker = l.model;
  speaker.actor.store_weights(dtype_named("weights", weights));
  return speaker;
}

/// Bits per byte of the texts, read once from the life's present state; the life on disk is not touched. The first patch
/// is only heard; the ends of documents cost bits, but are no bytes. With `newborn_every` it is another newborn of its network that
/// lives the first of so many steps.
template <class B>
void evaluate(std::string const& path, std::string const& weights, std::vector<std::string> const& texts,
              std::int64_t newborn_every) {
  auto l = opened<B>(path, true);
  require_outside("the life", path, texts, "evaluate");
  auto const speaker = speaker_of(l, weights);
  auto const& config = l.model.config();
  ouro::corpus text(texts, {.patch = config.patch, .chunk = config.chunk, .overlap = true});
  skipped_lines const skipped(text);
  auto s = l.state;
  ouro::context<B> cx;
  double nats = 0;
  std::int64_t bytes = 0;
  std::int64_t first = -1;  // bytes of the first patch
  std::int64_t steps = 0;
  bool whole = true;
  auto bytes_in = [](auto from, auto to) { return std::count_if(from, to, [](auto b) { return b < 256; }); };
  for (ouro::text_lesson t; (whole = stopping == 0) && text.next(t);) {
    if (first < 0) first = bytes_in(t.input.bytes.begin(), t.input.bytes.begin() + config.patch);
    if (newborn_every > 0 && steps++ % newborn_every == 0) {
      auto const clock = s.clock;  // it sleeps when the life would
      s = l.model.newborn(ouro::seed{static_cast<std::uint64_t>(steps)});
      s.clock = clock;
    }
    auto [next, seen] = ouro::live_on(l.model, cx, std::move(s), t.input);
    s = std::move(next);
    auto const loss = speaker.actor.loss(cx, seen, t.input, t.target);
    if (loss.live == 0) continue;
    nats += loss.value.item() * static_cast<double>(loss.live);
    ouro::require(std::isfinite(nats), ouro::errc::numeric, "evaluate", "the loss is not finite after ", bytes,
                  " bytes");
    bytes += bytes_in(t.target.next.bytes.begin(), t.target.next.bytes.end());
  }
  ouro::require(bytes > 0 || !whole, ouro::errc::data, "evaluate", "the text is shorter than two patches");
  if (bytes == 0) std::printf("stopped before the first byte\n");
  else
    std::printf("%s%.4f bits per byte over %s%lld%s bytes\n",
                whole ? "" : "stopped: ", nats / static_cast<double>(bytes) / std::log(2.0), whole ? "" : "the first ",
                static_cast<long long>(bytes), whole ? (" of " + std::to_string(first + bytes)).c_str() : "");
}

template <class B>
void talk(life<B>& l, network<B> const& speaker, std::string const& prompt, ouro::speech_options const& o) {
  auto const said = ouro::speak(speaker, l.state, prompt, o, [](std::string const& part) {
    std::fwrite(part.data(), 1, part.size(), stdout);
    std::fflush(stdout);
    return stopping == 0 && std::ferror(stdout) == 0;  // nobody reads it any more
  });
  l.progress.heard += static_cast<std::int64_t>(prompt.size());
  l.progress.said += static_cast<std::int64_t>(said.size());
  l.commit();
  std::printf("\n"), std::fflush(stdout);  // a line that has ended is kept
}

template <class B>
void chat(std::string const& path, std::string const& weights, ouro::speech_options const& o) {
  auto l = opened<B>(path);
  auto const speaker = speaker_of(l, weights);
  bool const terminal = ::isatty(STDIN_FILENO) == 1;
  std::string line;
  for (;;) {
    if (terminal) std::printf("> "), std::fflush(stdout);
    if (stopping != 0 || std::ferror(stdout) != 0 || !std::getline(std::cin, line) || stopping != 0) break;
    if (!line.empty()) talk(l, speaker, "\nUser: " + line + "\nGridman: ", o);
  }
  if (terminal) std::printf("\n");
  ouro::require(stopping != 0 || std::ferror(stdin) == 0, ouro::errc::storage, "chat", "cannot read standard input");
}

/// As many sleep steps, or fewer if it is stopped.
template <class B>
void let_sleep(std::string const& path, std::int64_t steps) {
  auto l = opened<B>(path);
  std::int64_t slept = 0;
  for (; slept < steps && stopping == 0; ++slept) l.state = ouro::sleep(l.model, std::move(l.state));
  l.commit();
  if (slept < steps)
    std::printf("stopped after %lld of %lld sleep steps, saved\n", static_cast<long long>(slept),
                static_cast<long long>(steps));
}

template <class B>
void inspect(std::string const& path, bool as_json) {
  auto const l = opened<B>(path, true);
  auto norm = [](ouro::tensor<B> const& t) {
    return ouro::norm_of<B>({t}) / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, t.size())));
  };
  auto const parameters = static_cast<long long>(ouro::parameter_count(l.model));
  auto const brain = l.model.config().mixers.str();
  auto i = [](std::int64_t n) { return static_cast<long long>(n); };
  std::printf(
      as_json
          ? "{\"config\":%s,\"brain\":%s,\"parameters\":%lld,\"generation\":%lld,\"clock\":%lld,"
            "\"updates\":%lld,\"heard\":%lld,\"said\":%lld,\"rms\":{\"mem\":%.6g,\"state\":%.6g,\"hormone\":%.6g}}\n"
          : "config      %s\nbrain       %s\nparameters  %lld\ngeneration  %lld\nsteps lived %lld\n"
            "updates     %lld\nheard       %lld bytes\nsaid        %lld bytes\nrms         mem %.4f, state "
            "%.4f, hormone %.4f\n",
      ouro::to_text(l.model.config()).c_str(), (as_json ? ouro::json::quote(brain) : brain).c_str(), parameters,
      i(l.generation()), i(l.state.clock), i(l.progress.updates), i(l.progress.heard), i(l.progress.said),
      norm(l.state.mem), norm(l.state.working), norm(l.state.hormone));
}

/// An update records megabytes in small pieces and forgets them at its end. The C library would give their pages back each time
/// and ask for them again: a quarter of the host's time where a device does the rest.
void keep_the_heap() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

/// The exit code.
int run(int argc, char** argv) {
  CLI::App app{"gridman: lives that learn, sleep, speak, and are never reset"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "gridman " OURO_VERSION);
  app.footer(
      "A life is a folder. Try:\n  gridman new alice.ouro\n  gridman train alice.ouro book.txt --minutes 5\n"
      "  gridman speak alice.ouro \"In the beginning \"\nExit codes: 0 done, 2 usage, 3 data, 4 numeric, 5 storage.");
  std::string path;
  std::string other;
  std::string prompt;
  std::string preset_name = "nano";
  std::string brain;
  std::string config_text = "{}";
  computation_options where;
  std::uint64_t seed = 42;
  std::int64_t times = 1;
  std::int64_t newborn_every = 0;
  bool as_json = false;
  training t;
  ouro::speech_options speech;
  std::string weights = "f32";
  std::vector<std::string> texts;

  // CLI11's own ranges let NaN pass, its numbers stop at the largest one, and it reads 010 as eight: whole numbers are given
  // to it in plain decimal (`transform`).
  auto number = []<class T>(T least, std::string const& what, T most = std::numeric_limits<T>::max()) {
    return CLI::Validator(
        [=](std::string& text) {
          auto value = least;
          auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
          bool const good =
              problem == std::errc{} && end == text.data() + text.size() && value >= least && value <= most;
          if (!good) return "must be " + what + ", got " + text;
          if constexpr (std::is_integral_v<T>) text = std::to_string(value);
          return std::string();
        },
        "");
  };
  auto const named =
      CLI::Validator([](std::string& text) { return text.empty() ? "must not be empty" : std::string(); }, "");
  auto const count = number(std::int64_t{0}, "a whole number from 0 on");
  auto const positive_count = number(std::int64_t{1}, "a whole number from 1 on");
  auto const not_negative = number(0.0, "a number from 0 on");
  auto const positive = number(std::numeric_limits<double>::denorm_min(), "a positive number");
  auto const rate = number(std::numeric_limits<double>::denorm_min(), "a number above 0 and at most 1", 1.0);
  auto const any_seed = number(std::uint64_t{0}, "a whole number from 0 to 2^64-1");
  auto const finite = number(std::numeric_limits<double>::lowest(), "a number");
  auto with_place = [&](CLI::App* c, computation_options& o) {
    c->add_option("--backend", o.backend, backend_help)->capture_default_str();
    c->add_option("--products", o.products, products_help)->capture_default_str();
    c->add_option("--inner", o.inner, inner_help)->capture_default_str();
  };
  auto with_life = [&](char const* name, char const* what) {
    auto* c = app.add_subcommand(name, what);
    c->add_option("life", path, "the life's folder")->required()->check(named);
    with_place(c, where);
    return c;
  };
  auto with_speech = [&](CLI::App* c) {
    c->add_option("--bytes", speech.bytes, "at most this many bytes")->transform(count)->capture_default_str();
    c->add_option("--temperature", speech.temperature, "0: always the most probable byte")
        ->check(not_negative)
        ->capture_default_str();
    c->add_option("--top-k", speech.top_k, "only the k most probable bytes; 0: all")
        ->transform(count)
        ->capture_default_str();
    c->add_option("--weights", weights, weights_help)->capture_default_str();
  };
  auto with_training = [&](CLI::App* c) {
    c->add_option("texts", t.texts, "files, folders or .jsonl files")->required()->check(named);
    c->add_option("--updates", t.updates, "stop after this many more updates")->transform(positive_count);
    c->add_option("--minutes", t.minutes, "stop after this time; the learning rate ends with it")->check(positive);
    c->add_option("--learning-rate", t.rate, "the peak")->check(rate)->capture_default_str();
    c->add_option("--warmup", t.warmup, "updates of linear warm-up")->transform(count)->capture_default_str();
    c->add_option("--total", t.total, "the update at which the cosine reaches zero; 0: none")->transform(count);
    c->add_option("--room", t.room, "MB of inner values that an update may keep, the rest is computed again; 0: all")
        ->capture_default_str();
    c->add_flag("--guarded", t.guarded,
                "a guess of the loss that is far too high does not teach the Actor to do worse");
    c->add_option("--log", t.log, "append a line for each update to this CSV file")->check(named);
    c->add_flag("--strict", t.strict, "stop at a bad line instead of skipping it");
  };
  auto* make = with_life("new", "make a newborn life");
  make->add_option("--preset", preset_name, "nano, mini, small, medium or large")->capture_default_str();
  make->add_option("--brain", brain, brain_help)->check(named);
  make->add_option("--config", config_text, config_help);
  make->add_option("--seed", seed, "of network and noise")->transform(any_seed)->capture_default_str();
  auto* learn = with_life("train", "read texts; run it again to go on");
  with_training(learn);
  auto* tune = with_life("tune", "learn from conversations: only the answers are targets");
  with_training(tune);
  auto* say = with_life("speak", "let it go on from a prompt");
  say->add_option("prompt", prompt, "what it hears")->required();
  with_speech(say);
  auto* talk_to = with_life("chat", "talk with it, a line at a time");
  with_speech(talk_to);
  auto* judge = with_life("evaluate", "bits per byte of texts; leaves no trace in the life");
  judge->add_option("texts", texts, "files, folders or .jsonl files")->required()->check(named);
  judge->add_option("--weights", weights, weights_help)->capture_default_str();
  judge
      ->add_option("--newborn-every", newborn_every, "give it a newborn's state before each of so many steps; 0: never")
      ->transform(count);
  auto* look = with_life("inspect", "sizes, age, norms, what it has read and said");
  look->add_flag("--json", as_json, "as one JSON object");
  auto* rest = with_life("sleep", "let Mem and State exchange what they hold");
  rest->add_option("steps", times, "sleep steps")->transform(count)->capture_default_str();
  auto* fork = with_life("fork", "copy a life into a new folder");
  fork->add_option("copy", other, "the new folder")->required()->check(named);
  auto* out = with_life("export", "write the network under the reference's names");
  out->add_option("file", other, "a new .safetensors file")->required()->check(named);
  auto* in = with_life("import", "take a network in the reference's names; the state goes on");
  in->add_option("file", other, "a .safetensors file")->required()->check(named);

  bench_options b;
  auto* measure = app.add_subcommand("bench", "how fast a newborn learns and speaks on this machine");
  with_place(measure, b.where);
  measure->add_option("--preset", b.preset, "nano, mini, small, medium or large")->capture_default_str();
  measure->add_option("--brain", b.brain, brain_help);
  measure->add_option("--config", b.config, config_help);
  measure->add_option("--text", b.text, "a file to read; made up if not given")->check(named);
  measure->add_option("--updates", b.updates, "updates that count")->transform(count)->capture_default_str();
  measure->add_option("--warmup", b.warmup, "updates before them")->transform(count)->capture_default_str();
  measure->add_option("--rate", b.rate, "the learning rate, constant")->check(not_negative)->capture_default_str();
  measure->add_option("--angle", b.angle, "of the newborn oscillator")->check(finite)->capture_default_str();
  measure
      ->add_option("--room", b.room, "MB of inner values that an update may keep, the rest is computed again; 0: all")
      ->capture_default_str();
  measure->add_option("--speak", b.speak, "bytes to say after training")->transform(count)->capture_default_str();
  measure->add_option("--weights", b.weights, weights_help)->capture_default_str();
  measure->add_option("--save-weights", b.save_weights, "write the newborn network to this file")->check(named);
  measure->add_flag("--profile", b.profile, "time every primitive; the update becomes a little slower");
  measure->add_flag("--json", b.json, "as one JSON object");

  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& e) {
    auto const unread = app.remaining(true);
    bool const option = !unread.empty() && unread[0].size() > 1 && unread[0].starts_with('-');
    if (option && dynamic_cast<CLI::RequiredError const*>(&e) != nullptr) {
      std::fprintf(stderr, "gridman: there is no option '%s'; a text that begins so comes after --\n",
                   unread[0].c_str());
      return 2;
    }
    if (e.get_exit_code() != 0 && app.get_subcommands().empty() && !unread.empty()) {
      std::fprintf(stderr, "gridman: there is no %s '%s'\nRun with --help for more information.\n",
                   unread[0].starts_with('-') ? "option" : "command", unread[0].c_str());
      return 2;
    }
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (talk_to->parsed()) look_at_signals(0);
  for (auto const* c : {learn, tune, say, judge, rest})
    if (c->parsed()) look_at_signals(SA_RESTART);
  try {
    t.path = path;
    t.answers_only = tune->parsed();
    for (auto const* c : {learn, tune})
      if (c->parsed()) suit_training(where, c->count("--products") > 0, c->count("--inner") > 0);
    if (measure->parsed()) {
      bench(b);
      return 0;
    }
    with_backend(where, [&]<class B>(std::type_identity<B>) {
      if (make->parsed()) {
        life<B>::create(path, described(preset_name, config_text, brain), ouro::seed{seed}, ouro::seed{seed + 1});
      } else if (learn->parsed() || tune->parsed()) {
        train<B>(t);
      } else if (say->parsed()) {
        auto l = opened<B>(path);
        talk(l, speaker_of(l, weights), prompt, speech);
      } else if (talk_to->parsed()) {
        chat<B>(path, weights, speech);
      } else if (judge->parsed()) {
        evaluate<B>(path, weights, texts, newborn_every);
      } else if (look->parsed()) {
        inspect<B>(path, as_json);
      } else if (rest->parsed()) {
        let_sleep<B>(path, times);
      } else if (fork->parsed()) {
        opened<B>(path).fork(other);
      } else if (out->parsed()) {
        export_weights(opened<B>(path, true), other);
      } else if (in->parsed()) {
        auto l = opened<B>(path);
        import_weights(l, other);
      }
    });
  } catch (ouro::error const& e) {
    std::fprintf(stderr, "gridman: %s\n", e.what());
    return exit_code(e.code());
  } catch (std::bad_alloc const&) {
    std::fprintf(stderr, "gridman: not enough memory for %s; a life is as it was last saved\n",
                 app.get_subcommands().front()->get_name().c_str());
    return 5;
  } catch (std::exception const& e) {
    std::fprintf(stderr, "gridman: %s\n", e.what());
    return 5;
  }
  return 0;
}

/// Whatever was closed leads nowhere: files that are opened later must not be taken for it.
void occupy_standard_streams() {
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(fd, F_GETFD) < 0) static_cast<void>(::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY));
}

}  // namespace

int main(int argc, char** argv) {
  occupy_standard_streams();
  for (int number : {SIGPIPE, SIGXFSZ})
    std::signal(number, SIG_IGN);  // what cannot be written is an error, which says so
  keep_the_heap();
  int const code = run(argc, argv);
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  std::fprintf(stderr, "gridman: cannot write to standard output\n");
  return code == 0 ? 5 : code;
}
