// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// gridman: makes, trains, talks to and keeps lives. Exit codes: 0 done, 2 usage, 3 data, 4 numeric, 5 storage.
#if defined(__linux__)
#include <malloc.h>
#endif
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <ouro/backend/cpu_gridman.hpp>
#include <ouro/data/corpus.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/life/life.hpp>
#include <ouro/nn/mixers/hybrid.hpp>

#include "backends.hpp"
#include "bench.hpp"
#include "names.hpp"

namespace {

template <class B>
using network = ouro::gridman<B, ouro::hybrid>;
template <class B>
using life = ouro::life<B, ouro::hybrid>;
using watch = std::chrono::steady_clock;

volatile std::sig_atomic_t stopping = 0;
void on_signal(int number) {
  stopping = 1;
  std::signal(number, SIG_DFL);  // a second signal ends at once; the last commit is safe
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
  double save_every = 120;
  double room = 0;
};

template <class B>
void train(training const& o) {
  auto l = life<B>::open(o.path);
  auto const& config = l.model.config();
  ouro::corpus text(o.texts, {config.patch, config.chunk, o.answers_only, o.strict});
  // Another text begins at its beginning; the same one goes on.
  if (l.progress.cursor.text == text.position().text) text.seek(l.progress.cursor);
  ouro::trainer<network<B>> trainer(l.model, {.learning_rate = o.rate, .warmup = o.warmup, .total = o.total},
                                    config.dropout, room_bytes(o.room));
  trainer.memory() = std::move(l.memory);
  trainer.updates() = l.progress.updates;

  std::unique_ptr<std::FILE, decltype([](std::FILE* f) { std::fclose(f); })> log;
  if (!o.log.empty()) {
    bool const fresh = !std::filesystem::exists(o.log);
    log.reset(std::fopen(o.log.c_str(), "a"));
    ouro::require(log != nullptr, ouro::errc::storage, "train", "cannot write ", o.log);
    if (fresh)
      std::fprintf(log.get(), "update,loss,cross_entropy,predicted,gradient_norm,learning_rate,bytes_per_second\n");
  }
  auto learned = text.position();
  auto save = [&] {
    l.memory = trainer.memory();
    l.progress.updates = trainer.updates();
    l.progress.cursor = learned;
    l.commit();
  };
  bool const terminal = ::isatty(STDOUT_FILENO) == 1;
  std::int64_t const first = trainer.updates();
  std::int64_t goal = o.updates > 0 ? first + o.updates : std::numeric_limits<std::int64_t>::max();
  auto const start = watch::now();
  auto saved = start;
  double shown = -1;
  double mean = 0;
  std::int64_t refused = 0;
  try {
    while (trainer.updates() < goal && stopping == 0) {
      double const elapsed = seconds_since(start);
      if (o.minutes > 0 && elapsed > o.minutes * 60) break;
      std::vector<ouro::lesson<network<B>>> cycle;
      for (std::int64_t i = 0; i < config.bptt; ++i) {
        auto t = text.endless();
        cycle.push_back({std::move(t.input), std::move(t.target)});
      }
      auto const r = trainer.update(l.state, cycle);
      learned = text.position();
      if (r.refused) {
        std::fprintf(stderr, "update %lld refused: loss %g, gradient norm %g; weights and state are as before\n",
                     static_cast<long long>(r.update), r.loss, r.gradient_norm);
        ouro::require(++refused < 8, ouro::errc::numeric, "train", "eight updates in a row were not finite");
        continue;
      }
      refused = 0;
      l.progress.heard += config.bptt * config.chunk * config.patch;
      std::int64_t const done = r.update - first;
      double const now = seconds_since(start);
      // With a time to keep, the cosine ends when the time does: its length is estimated once.
      if (o.minutes > 0 && o.total == 0 && done == 20)
        trainer.rule().total = first + static_cast<std::int64_t>(20 * o.minutes * 60 / now * 0.98);
      mean = mean == 0 ? r.cross_entropy : 0.98 * mean + 0.02 * r.cross_entropy;
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
      if (trainer.updates() > first) save();
    } catch (std::exception const& e) {
      std::fprintf(stderr, "gridman: what was learned since the last save is lost: %s\n", e.what());
    }
    throw;
  }
  save();
  std::printf("%supdate %lld: %.3f nats/byte, epoch %lld, saved\n", terminal ? "\n" : "",
              static_cast<long long>(trainer.updates()), mean, static_cast<long long>(text.position().epoch));
  for (auto const& c : text.complaints()) std::fprintf(stderr, "skipped %s\n", c.c_str());
}

/// The network of a life as it speaks; the life's own stays what it is.
template <class B>
network<B> speaker_of(life<B> const& l, std::string const& weights) {
  auto speaker = l.model;
  speaker.actor.store_weights(dtype_named("weights", weights));
  return speaker;
}

/// Bits per byte of the texts, read once from the life's present state; the life on disk is not touched.
template <class B>
void evaluate(std::string const& path, std::string const& weights, std::vector<std::string> const& texts) {
  auto l = life<B>::open(path);
  auto const speaker = speaker_of(l, weights);
  auto const& config = l.model.config();
  ouro::corpus text(texts, {config.patch, config.chunk, false, false});
  auto s = l.state;
  ouro::context<B> cx;
  ouro::text_lesson t;
  double nats = 0;
  std::int64_t bytes = 0;
  while (stopping == 0 && text.next(t)) {
    while (l.model.rhythm.asleep(s.clock)) s = ouro::sleep(l.model, cx, std::move(s));
    auto [next, seen] = ouro::wake(l.model, cx, std::move(s), t.input);
    s = std::move(next);
    auto const loss = speaker.actor.loss(cx, seen, t.input, t.target);
    if (loss.live == 0) continue;
    nats += loss.value.item() * static_cast<double>(loss.live);
    bytes += loss.live;
  }
  ouro::require(bytes > 0, ouro::errc::data, "evaluate", "the text is shorter than two patches");
  std::printf("%.4f bits per byte over %lld bytes\n", nats / static_cast<double>(bytes) / std::log(2.0),
              static_cast<long long>(bytes));
}

template <class B>
void talk(life<B>& l, network<B> const& speaker, std::string const& prompt, ouro::speech_options const& o) {
  auto const said = ouro::speak(speaker, l.state, prompt, o, [](std::string const& part) {
    std::fwrite(part.data(), 1, part.size(), stdout);
    std::fflush(stdout);
  });
  std::printf("\n");
  l.progress.heard += static_cast<std::int64_t>(prompt.size());
  l.progress.said += static_cast<std::int64_t>(said.size());
  l.commit();
}

template <class B>
void chat(std::string const& path, std::string const& weights, ouro::speech_options const& o) {
  auto l = life<B>::open(path);
  auto const speaker = speaker_of(l, weights);
  bool const terminal = ::isatty(STDIN_FILENO) == 1;
  std::string line;
  for (;;) {
    if (terminal) std::printf("> "), std::fflush(stdout);
    if (stopping != 0 || !std::getline(std::cin, line)) break;
    if (!line.empty()) talk(l, speaker, "\nUser: " + line + "\nGridman: ", o);
  }
}

template <class B>
void inspect(std::string const& path, bool as_json) {
  auto const l = life<B>::open(path);
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

template <class B>
void export_weights(std::string const& path, std::string const& file) {
  auto const l = life<B>::open(path);
  ouro::require(!ouro::exists(file), ouro::errc::storage, "export", file, " exists already");
  ouro::safetensors_writer out;
  out.set("config", ouro::to_text(l.model.config()));
  for (auto const& f : ouro::fields(l.model)) ouro::store(out, reference_name(f.path), *f.value);
  ouro::write_file_durably(file, out.str());
}

template <class B>
void import_weights(std::string const& path, std::string const& file) {
  auto l = life<B>::open(path);
  auto const in = ouro::safetensors_reader::open(file);
  std::string differences;
  auto const list = ouro::fields(l.model);
  for (auto const& f : list) {
    auto const name = reference_name(f.path);
    std::int64_t size = 1;
    if (in.contains(name))
      for (auto d : in.at(name).dims) size *= d;
    if (!in.contains(name)) differences += "\n  missing: " + name + " " + f.value->dims().str();
    else if (size != f.value->size()) differences += "\n  " + name + ": expected " + f.value->dims().str();
  }
  ouro::require(differences.empty(), ouro::errc::storage, "import", file, " is another network:", differences);
  for (auto const& f : list)
    *f.value = ouro::reshape(ouro::load<B>(in.at(reference_name(f.path)), l.model.type(), f.path), f.value->dims());
  l.memory.clear();
  l.commit();
}

/// An update records megabytes in small pieces and forgets them at its end. The C library would give their pages back each time
/// and ask for them again: a quarter of the host's time where a device does the rest.
void keep_the_heap() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  keep_the_heap();
  CLI::App app{"gridman: lives that learn, sleep, speak, and are never reset"};
  app.require_subcommand(1);
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
  bool as_json = false;
  training t;
  ouro::speech_options speech;
  std::string weights = "f32";
  std::vector<std::string> texts;

  auto with_place = [&](CLI::App* c, computation_options& o) {
    c->add_option("--backend", o.backend, backend_help)->capture_default_str();
    c->add_option("--products", o.products, products_help)->capture_default_str();
    c->add_option("--inner", o.inner, inner_help)->capture_default_str();
  };
  auto with_life = [&](char const* name, char const* what) {
    auto* c = app.add_subcommand(name, what);
    c->add_option("life", path, "the life's folder")->required();
    with_place(c, where);
    return c;
  };
  auto with_speech = [&](CLI::App* c) {
    c->add_option("--bytes", speech.bytes, "at most this many bytes")->capture_default_str();
    c->add_option("--temperature", speech.temperature, "0: always the most probable byte")->capture_default_str();
    c->add_option("--top-k", speech.top_k, "only the k most probable bytes; 0: all")->capture_default_str();
    c->add_option("--weights", weights, weights_help)->capture_default_str();
  };
  auto with_training = [&](CLI::App* c) {
    c->add_option("texts", t.texts, "files, folders or .jsonl files")->required();
    c->add_option("--updates", t.updates, "stop after this many more updates");
    c->add_option("--minutes", t.minutes, "stop after this time; the learning rate ends with it");
    c->add_option("--learning-rate", t.rate, "the peak")->capture_default_str();
    c->add_option("--warmup", t.warmup, "updates of linear warm-up")->capture_default_str();
    c->add_option("--total", t.total, "the update at which the cosine reaches zero; 0: none");
    c->add_option("--room", t.room, "MB of inner values that an update may keep, the rest is computed again; 0: all")
        ->capture_default_str();
    c->add_option("--log", t.log, "append a line for each update to this CSV file");
    c->add_flag("--strict", t.strict, "stop at a bad line instead of skipping it");
  };
  auto* make = with_life("new", "make a newborn life");
  make->add_option("--preset", preset_name, "nano, mini, small, medium or large")->capture_default_str();
  make->add_option("--brain", brain, brain_help);
  make->add_option("--config", config_text, config_help);
  make->add_option("--seed", seed, "of network and noise")->capture_default_str();
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
  judge->add_option("texts", texts, "files, folders or .jsonl files")->required();
  judge->add_option("--weights", weights, weights_help)->capture_default_str();
  auto* look = with_life("inspect", "sizes, age, norms, what it has read and said");
  look->add_flag("--json", as_json, "as one JSON object");
  auto* rest = with_life("sleep", "let Mem and State exchange what they hold");
  rest->add_option("steps", times, "sleep steps")->capture_default_str();
  auto* fork = with_life("fork", "copy a life into a new folder");
  fork->add_option("copy", other, "the new folder")->required();
  auto* out = with_life("export", "write the network under the reference's names");
  out->add_option("file", other, "a new .safetensors file")->required();
  auto* in = with_life("import", "take a network in the reference's names; the state goes on");
  in->add_option("file", other, "a .safetensors file")->required();

  bench_options b;
  auto* measure = app.add_subcommand("bench", "how fast a newborn learns and speaks on this machine");
  with_place(measure, b.where);
  measure->add_option("--preset", b.preset, "nano, mini, small, medium or large")->capture_default_str();
  measure->add_option("--brain", b.brain, brain_help);
  measure->add_option("--config", b.config, config_help);
  measure->add_option("--text", b.text, "a file to read; made up if not given");
  measure->add_option("--updates", b.updates, "updates that count")->capture_default_str();
  measure->add_option("--warmup", b.warmup, "updates before them")->capture_default_str();
  measure->add_option("--rate", b.rate, "the learning rate, constant")->capture_default_str();
  measure->add_option("--angle", b.angle, "of the newborn oscillator")->capture_default_str();
  measure
      ->add_option("--room", b.room, "MB of inner values that an update may keep, the rest is computed again; 0: all")
      ->capture_default_str();
  measure->add_option("--speak", b.speak, "bytes to say after training")->capture_default_str();
  measure->add_option("--weights", b.weights, weights_help)->capture_default_str();
  measure->add_option("--save-weights", b.save_weights, "write the newborn network to this file");
  measure->add_flag("--profile", b.profile, "time every primitive; the update becomes a little slower");
  measure->add_flag("--json", b.json, "as one JSON object");

  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
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
        life<B>::create(path, with_brain(ouro::changed(preset(preset_name), config_text), brain), ouro::seed{seed},
                        ouro::seed{seed + 1});
      } else if (learn->parsed() || tune->parsed()) {
        train<B>(t);
      } else if (say->parsed()) {
        auto l = life<B>::open(path);
        talk(l, speaker_of(l, weights), prompt, speech);
      } else if (talk_to->parsed()) {
        chat<B>(path, weights, speech);
      } else if (judge->parsed()) {
        evaluate<B>(path, weights, texts);
      } else if (look->parsed()) {
        inspect<B>(path, as_json);
      } else if (rest->parsed()) {
        auto l = life<B>::open(path);
        for (std::int64_t i = 0; i < times; ++i) l.state = ouro::sleep(l.model, std::move(l.state));
        l.commit();
      } else if (fork->parsed()) {
        auto const l = life<B>::open(path);  // locked while it is copied
        ouro::require(!ouro::exists(other), ouro::errc::storage, "fork", other, " exists already");
        std::filesystem::copy(path, other, std::filesystem::copy_options::recursive);
        ouro::sync_directory(other);
      } else if (out->parsed()) {
        export_weights<B>(path, other);
      } else if (in->parsed()) {
        import_weights<B>(path, other);
      }
    });
  } catch (ouro::error const& e) {
    std::fprintf(stderr, "gridman: %s\n", e.what());
    return exit_code(e.code());
  } catch (std::exception const& e) {
    std::fprintf(stderr, "gridman: %s\n", e.what());
    return 5;
  }
  return 0;
}
