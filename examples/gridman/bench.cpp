// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
#include "bench.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

#include <ouro/backend/cpu_gridman.hpp>
#include <ouro/backend/profiled.hpp>
#include <ouro/io/archive.hpp>
#include <ouro/io/file.hpp>
#include <ouro/life/life.hpp>
#include <ouro/nn/mixers/hybrid.hpp>
#include <ouro/train/trainer.hpp>

#include "backends.hpp"
#include "names.hpp"

namespace {

using watch = std::chrono::steady_clock;
double since(watch::time_point start) { return std::chrono::duration<double>(watch::now() - start).count(); }

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  auto const n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/// The most memory ever held, in bytes: by this process, or on the device.
template <class B>
double peak_memory() {
  if (std::is_base_of_v<ouro::cuda, B>) return static_cast<double>(ouro::cuda_peak_memory());
  ::rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

template <class B>
std::string machine() {
  return std::is_base_of_v<ouro::cuda, B> ? ouro::cuda_description() : ouro::cpu_description();
}

/// What this machine can do: the rate of a large product, and that of a copy between memory and memory, both ways.
struct peak_rates {
  double operations;
  double bytes;
};
template <class B>
peak_rates measure_peaks() {
  std::int64_t const n = std::is_base_of_v<ouro::cuda, B> ? 8192 : 1536;
  auto const a = ouro::tensor<B>::full({n, n}, ouro::dtype::f32, 0.5);
  auto c = ouro::tensor<B>::full({n, n}, ouro::dtype::f32, 0.0);
  auto const from = ouro::tensor<B>::full({64 << 20}, ouro::dtype::f32, 0.5);
  auto to = ouro::tensor<B>::full({64 << 20}, ouro::dtype::f32, 0.0);
  for (bool warm : {false, true}) {
    if (warm) B::profile().clear();
    for (int i = 0; i < 3; ++i) {
      B::matmul(c.write(), a.read(), a.read(), 1.0);
      B::copy(to.write(), from.read(), false);
    }
  }
  auto const product = B::profile()["matmul"];
  auto const copy = B::profile()["copy"];
  B::profile().clear();
  return {product.operations / product.seconds, copy.bytes / copy.seconds};
}

/// Where the time of `count` updates (or patches) went that took so many seconds, and what the machine's peaks leave to
/// gain; empty unless B profiles.
template <class B>
std::string table_of(std::string const& unit, double count, double seconds, peak_rates const& peak) {
  std::string text;
  if constexpr (requires { B::profile(); }) {
    std::vector<std::pair<std::string, ouro::primitive_profile>> rows(B::profile().begin(), B::profile().end());
    auto least = [&](ouro::primitive_profile const& p) {
      return std::min(p.seconds, std::max(p.operations / peak.operations, p.bytes / peak.bytes));
    };
    std::sort(rows.begin(), rows.end(),
              [](auto const& x, auto const& y) { return x.second.seconds > y.second.seconds; });
    char line[160];
    auto print = [&](auto... parts) {
      text.append(line, static_cast<std::size_t>(std::snprintf(line, sizeof line, parts...)));
    };
    print("  %-26s %9s %9s %6s %9s %8s %11s\n", "primitive", "calls", ("ms/" + unit).c_str(), "share", "GFLOP/s",
          "GB/s", "ms to gain");
    double busy = 0;
    for (auto const& [name, p] : rows) {
      auto rate = [seconds = p.seconds](double amount) { return amount > 0 ? amount / seconds / 1e9 : 0.0; };
      print("  %-26s %9.0f %9.3f %5.1f%% %9.1f %8.1f %11.3f\n", name.c_str(), static_cast<double>(p.calls) / count,
            1e3 * p.seconds / count, 100 * p.seconds / seconds, rate(p.operations), rate(p.bytes),
            1e3 * (p.seconds - least(p)) / count);
      busy += p.seconds;
    }
    print("  %-26s %9s %9.3f %5.1f%%\n", "between the primitives", "", 1e3 * (seconds - busy) / count,
          100 * (seconds - busy) / seconds);
  }
  return text;
}

std::string list(std::vector<double> const& values) {
  std::string out;
  for (double v : values) out += (out.empty() ? "" : ",") + ouro::detail::exact(v);
  return "[" + out + "]";
}

/// Blocks of (S + 1) P bytes, over and over: inputs are the first S patches, targets the last S.
class blocks {
 public:
  blocks(std::string const& path, ouro::gridman_config const& c) : config_(c) {
    std::size_t const size = static_cast<std::size_t>((c.chunk + 1) * c.patch);
    if (path.empty()) {
      for (std::uint64_t i = 0; bytes_.size() < 4 * size; ++i)
        bytes_ += "word" + std::to_string(ouro::random_draw{1, 2}.word(i) % 1000) + (i % 12 == 11 ? ".\n" : " ");
    } else {
      bytes_ = ouro::read_file(path);
    }
    ouro::require(bytes_.size() >= size, ouro::errc::data, "bench", "the text must have at least ", size, " bytes");
  }
  ouro::text_lesson next() {
    auto const s = static_cast<std::size_t>(config_.chunk);
    auto const p = static_cast<std::size_t>(config_.patch);
    if (at_ + (s + 1) * p > bytes_.size()) at_ = 0;
    auto part = [&](std::size_t from) {
      ouro::patches x{1, config_.chunk, config_.patch, {}};
      for (std::size_t i = from; i < from + s * p; ++i) x.bytes.push_back(static_cast<unsigned char>(bytes_[i]));
      return x;
    };
    ouro::text_lesson l{part(at_), {part(at_ + p), std::vector<char>(s * p, 1)}};
    at_ += (s + 1) * p;
    return l;
  }

 private:
  ouro::gridman_config config_;
  std::string bytes_;
  std::size_t at_ = 0;
};

template <class B>
void run(bench_options const& o, ouro::gridman_config const& config) {
  using network = ouro::gridman<B, ouro::hybrid>;
  network model(config, ouro::seed{42});
  if (!o.save_weights.empty()) write_weights("bench", {}, model, o.save_weights);
  auto life = model.newborn(ouro::seed{7});
  life.oscillator =
      ouro::tensor<B>::from(std::vector<double>{std::cos(o.angle), std::sin(o.angle)}, {1, 2}, model.type());
  ouro::trainer<network> trainer(model, {.learning_rate = o.rate, .warmup = 0}, config.dropout, room_bytes(o.room));
  blocks text(o.text, config);
  double const before = peak_memory<B>();
  peak_rates rates{};

  std::vector<double> seconds;
  std::vector<double> losses;
  ouro::phase_seconds phases;
  for (std::int64_t u = 0, end = saturating_sum(o.warmup, o.updates); u < end; ++u) {
    std::vector<ouro::lesson<network>> cycle;
    for (std::int64_t i = 0; i < config.bptt; ++i) cycle.push_back(text.next());
    if constexpr (requires { B::profile(); })
      if (u == o.warmup) B::profile().clear();
    auto const start = watch::now();
    auto const r = trainer.update(life, cycle);
    losses.push_back(r.loss);
    if (u < o.warmup) continue;
    seconds.push_back(since(start));
    phases += r.seconds;
  }
  double const peak = peak_memory<B>();
  auto const n = static_cast<double>(std::max<std::int64_t>(1, o.updates));
  double all = 0;
  for (double s : seconds) all += s;
  std::string profile;
  if constexpr (requires { B::profile(); }) {
    auto const update = B::profile();
    rates = measure_peaks<B>();
    B::profile() = update;
    profile = "  a large product runs at " + std::to_string(std::llround(rates.operations / 1e9)) +
              " GFLOP/s here, a copy at " + std::to_string(std::llround(rates.bytes / 1e9)) +
              " GB/s; to gain: what a primitive takes beyond either\n";
  }
  if (o.updates > 0) profile += table_of<B>("update", n, all, rates);
  double spoken = 0;
  double speaking = 0;
  if (o.speak > 0) {
    model.actor.store_weights(dtype_named("weights", o.weights));
    ouro::context<B> cx;
    auto first = text.next().input;
    ouro::patches patch{1, 1, config.patch, {first.bytes.begin(), first.bytes.begin() + config.patch}};
    if constexpr (requires { B::profile(); }) B::profile().clear();
    auto const start = watch::now();
    while (spoken < static_cast<double>(o.speak)) {
      auto r = ouro::wake(model, cx, std::move(life), patch);
      life = std::move(r.state);
      patch = model.actor.act(cx, r.seen, patch);
      spoken += static_cast<double>(config.patch);
    }
    speaking = since(start);
    profile += table_of<B>("patch", spoken / static_cast<double>(config.patch), speaking, rates);
  }

  double const second = median(seconds);
  double const text_bytes = static_cast<double>(config.bptt * config.chunk * config.patch);
  double const learned = second > 0 ? text_bytes / second : 0;
  double const said = speaking > 0 ? spoken / speaking : 0;
  if (o.json) {
    std::printf(
        "{\"config\":%s,\"parameters\":%lld,\"machine\":%s,\"seconds\":%s,\"losses\":%s,\"memory_after_construction\":%"
        ".0f,"
        "\"peak_memory\":%.0f,\"bytes_per_second\":%.6g,\"generated_bytes_per_second\":%.6g,"
        "\"phases\":{\"wake\":%.6g,\"actor\":%.6g,\"sleep\":%.6g,\"backward\":%.6g,\"optimiser\":%.6g}}\n",
        ouro::to_text(model.config()).c_str(), static_cast<long long>(ouro::parameter_count(model)),
        ouro::json::quote(machine<B>()).c_str(), list(seconds).c_str(), list(losses).c_str(), before, peak, learned,
        said, phases.wake / n, phases.actor / n, phases.sleep / n, phases.backward / n, phases.optimiser / n);
  } else {
    std::printf("%s\n%s, %lld parameters, %lld updates of %.0f bytes, %s\n", ouro::to_text(model.config()).c_str(),
                model.config().mixers.str().c_str(), static_cast<long long>(ouro::parameter_count(model)),
                static_cast<long long>(o.updates), text_bytes, machine<B>().c_str());
    std::printf("  update      %9.4f s (median)   %.0f bytes/s\n", second, learned);
    std::printf(
        "    wake      %9.4f s\n    actor     %9.4f s (forward and backward)\n    sleep     %9.4f s\n"
        "    backward  %9.4f s\n    optimiser %9.4f s\n",
        phases.wake / n, phases.actor / n, phases.sleep / n, phases.backward / n, phases.optimiser / n);
    std::printf("  memory      %9.1f MB at most, %.1f MB before the first update\n", peak / 1e6, before / 1e6);
    if (o.speak > 0) std::printf("  speech      %9.0f bytes/s\n", said);
  }
  std::fputs(profile.c_str(), o.json ? stderr : stdout);
}

}  // namespace

void bench(bench_options const& o) {
  auto const config = described(o.preset, o.config, o.brain);
  ouro::require(o.updates >= 0 && o.warmup >= 0 && o.speak >= 0, ouro::errc::argument, "bench",
                "counts must not be negative");
  with_backend(o.where, [&]<class B>(std::type_identity<B>) {
    if (o.profile) run<ouro::profiled<B>>(o, config);
    else run<B>(o, config);
  });
}
