// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// golden_check FILE... [--backend reference|cpu|cuda] [--dtype f64|f32]: runs a fixture of the format "ouro-golden-1" and
// prints, for each kind of tensor, the largest relative error. Exits 1 above the tolerances of that format, and 3 where a
// file could not be run; the others are run all the same.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <ouro/backend/reference.hpp>
#if defined(OURO_HAS_CPU)
#include <ouro/backend/cpu.hpp>
#endif
#if defined(OURO_HAS_CUDA)
#include <ouro/backend/cuda.hpp>
#endif
#include <ouro/io/archive.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/train/adamw.hpp>

namespace {

using ouro::dtype;

struct tally {
  double worst = 0;
  std::string where;
  double limit = 0;
  int count = 0;
};

template <class B>
class checker {
 public:
  checker(std::string const& path, dtype type)
      : in_(ouro::safetensors_reader::open(path)), type_(type), single_(in_.at("initial/mem").type == "F32") {}

  bool run() {
    auto const& meta = in_.metadata();
    auto const config = configuration(meta.at("config"));
    bool const training = meta.at("mode") == "train";
    ouro::gridman<B> model(config, ouro::seed{1}, type_);
    for (auto const& f : ouro::fields(model)) {
      auto const value = ouro::load<B>(in_.at("weights/" + name(f.path)), type_, f.path);
      *f.value = value.copy();
    }
    auto s = model.newborn(ouro::seed{1}, std::stoll(meta.at("lanes")));
    auto initial = [&](char const* key) { return stored(std::string("initial/") + key).copy(type_); };
    s.mem = initial("mem"), s.working = initial("state"), s.oscillator = initial("oscillator");
    s.hormone = initial("hormone"), s.self = initial("self");
    if (in_.contains("initial/thought")) s.thought = initial("thought");

    struct inner final : ouro::observer<B> {
      std::map<std::string, std::vector<ouro::tensor<B>>> seen;
      void see(char const* what, ouro::tensor<B> const& value) override { seen[what].push_back(value.detach()); }
    };
    std::string const steps = meta.at("steps");
    std::size_t i = 0;
    int u = 0;
    std::vector<ouro::moments<B>> memory;
    while (i < steps.size()) {
      ouro::context<B> cx{.training = training};
      ouro::gradient_list<B> gradients;
      {
        ouro::tape<B> tape;
        if (training) ouro::watch(tape, ouro::fields(model));
        ouro::tensor<B> total;
        for (std::int64_t wakes = 0; i < steps.size() && (!training || wakes < config.bptt); ++i) {
          std::string const at = "step" + std::to_string(i) + "/";
          inner eyes;
          cx.watcher = &eyes;
          if (steps[i] == 'S') {
            s = ouro::sleep(model, cx, std::move(s));
          } else {
            auto const input = bytes(at + "input").next;
            auto [next, seen] = ouro::wake(model, cx, std::move(s), input);
            s = std::move(next);
            if (steps[i] == 'W') {
              ++wakes;
              auto const target = bytes(at + "target");
              auto const l = ouro::loss(model, cx, seen, input, target);
              scalar(at + "loss", l.total);
              scalar(at + "loss_ce", l.task);
              if (l.live > 0) scalar(at + "loss_predicted", l.predicted);
              if (l.live > 0) {
                auto const part = ouro::scale(l.total, 1.0 / static_cast<double>(config.bptt));
                total = total.empty() ? part : total + part;
              }
              if (in_.contains(at + "logits") || in_.contains(at + "inner/anchors")) {
                auto const y = model.actor.predict(cx, seen, input, target);
                if (in_.contains(at + "logits")) compare("logits", at + "logits", y, logits_limit(at));
              }
            } else {
              speak(model, cx, seen, input, at);
            }
          }
          for (auto const& [what, values] : eyes.seen)
            if (in_.contains(at + "inner/" + what))
              compare("inner", at + "inner/" + what, values.back(), state_limit());
          states(at, s);
          cx.watcher = nullptr;
        }
        if (!training) break;
        if (total) tape.backward(total);
        gradients = ouro::gradients_of(tape, ouro::fields(model));
        s = s.detach();
      }
      if (meta.count("update" + std::to_string(u) + "/no_gradient") != 0) update(model, cx, gradients, memory, u);
      ++u;
    }
    return report();
  }

 private:
  static ouro::gridman_config configuration(std::string const& text) {
    auto const j = ouro::json::parse(text);
    auto get = [&](char const* key) {
      auto const* v = j.find(key);
      ouro::require(v != nullptr, ouro::errc::data, "golden_check", "no '", key, "' in the configuration");
      return v->integer();
    };
    ouro::gridman_config c;
    c.width = get("width"), c.heads = get("heads"), c.sensor_layers = get("sensor_layers");
    c.brain_layers = get("brain_layers"), c.actor_layers = get("actor_layers"), c.patch = get("patch");
    c.chunk = get("chunk"), c.state_rows = get("state_rows"), c.memory_rows = get("memory_rows");
    c.anchors = get("anchors"), c.wake = get("wake"), c.sleep = get("sleep"), c.bptt = get("bptt");
    c.dropout = c.oscillator_noise = c.sleep_noise = 0;
    c.ignored_bytes_as_zero = true;
    return c;
  }

  /// The reference's name of one of our tensors.
  static std::string name(std::string const& path) {
    std::string const ours = "brain.core.self_encoder.";
    return path.rfind(ours, 0) == 0 ? path.substr(std::string("brain.core.").size()) : path;
  }

  ouro::tensor<B> stored(std::string const& key) const { return ouro::load<B>(in_.at(key), dtype::f64, key); }
  ouro::byte_target bytes(std::string const& key) const {
    auto const t = ouro::load<B>(in_.at(key), dtype::i32, key);
    ouro::byte_target out{{t.dim(0), t.dim(1), t.dim(2), t.template values<std::int32_t>()}, {}};
    for (auto& b : out.next.bytes) {
      out.live.push_back(b >= 0);
      if (b < 0) b = 0;
    }
    return out;
  }

  void speak(ouro::gridman<B> const& model, ouro::context<B>& cx, ouro::impression<B> const& seen,
             ouro::patches const& input, std::string const& at) {
    auto const said = ouro::load<B>(in_.at(at + "said"), dtype::i32, at).template values<std::int32_t>();
    auto const forced = ouro::load<B>(in_.at(at + "forced"), dtype::i32, at);
    auto const forces = forced.template values<std::int32_t>();
    auto const want =
        in_.contains(at + "logits") ? stored(at + "logits").template values<double>() : std::vector<double>{};
    std::int64_t const patch = model.actor.patch();
    std::vector<std::int32_t> previous;
    for (std::int64_t b = 0; b < input.lanes; ++b) previous.push_back(input.at(b, input.count - 1, patch - 1));
    typename ouro::byte_actor<B>::voice voice(model.actor, cx, seen, previous);
    std::vector<char> apart(static_cast<std::size_t>(input.lanes), 0);
    for (std::int64_t i = 0; i < patch; ++i) {
      auto const y = voice.next().template values<double>();
      for (std::int64_t b = 0; b < input.lanes; ++b) {
        auto const row = y.begin() + b * ouro::byte_vocabulary;
        auto const expected = said[static_cast<std::size_t>(b * patch + i)];
        auto best = static_cast<std::int32_t>(std::max_element(row, row + ouro::byte_vocabulary) - row);
        if (i < forced.dim(1)) best = forces[static_cast<std::size_t>(b * forced.dim(1) + i)];
        if (!apart[static_cast<std::size_t>(b)]) {
          if (!want.empty()) {
            double error = 0;
            double size = 0;
            for (std::int64_t c = 0; c < ouro::byte_vocabulary; ++c) {
              auto const w = want[static_cast<std::size_t>((b * patch + i) * ouro::byte_vocabulary + c)];
              error = std::max(error, std::abs(w - row[c]));
              size = std::max(size, std::abs(w));
            }
            note("logits", at + "logits", error / size, logits_limit(at));
          }
          bool const close = type_ == dtype::f32 && row[best] - row[expected] < 1e-4;
          if (best != expected && close) apart[static_cast<std::size_t>(b)] = 1;
          else note("bytes said", at + "said", best == expected ? 0 : 1, 0);
        }
        previous[static_cast<std::size_t>(b)] = expected;
      }
      voice.tell(previous);
    }
  }

  void states(std::string const& at, ouro::state<B> const& s) {
    compare("state", at + "mem", s.mem, state_limit());
    compare("state", at + "state", s.working, state_limit());
    compare("state", at + "thought", *s.thought, state_limit());
    compare("state", at + "oscillator", s.oscillator, state_limit());
    compare("state", at + "hormone", s.hormone, state_limit());
    compare("state", at + "self", s.self, state_limit());
  }

  void update(ouro::gridman<B>& model, ouro::context<B>& cx, ouro::gradient_list<B> const& g,
              std::vector<ouro::moments<B>>& memory, int u) {
    std::string const at = "update" + std::to_string(u) + "/";
    std::set<std::string> none;
    std::string word;
    for (char c : in_.metadata().at(at + "no_gradient") + " ") {
      if (c != ' ') word += c;
      else if (!word.empty()) none.insert(word), word.clear();
    }
    std::size_t i = 0;
    for (auto const& f : ouro::fields(model)) {
      if (f.kind != ouro::field_kind::parameter) continue;
      auto const& value = g.values[i++];
      note("gradient present", at + f.path, value.empty() == (none.count(name(f.path)) > 0) ? 0 : 1, 0);
      auto const key = at + "grad/" + name(f.path);
      if (value && in_.contains(key)) compare("gradient", key, value, gradient_limit());
    }
    scalar_value("gradient norm", at + "grad_norm", g.norm, gradient_limit());
    ouro::apply_statistics(ouro::fields(model), cx);
    auto setting = [&](char const* key, double otherwise) {
      auto const found = in_.metadata().find(key);
      return found == in_.metadata().end() ? otherwise : std::stod(found->second);
    };
    ouro::adamw rule{.learning_rate = setting("learning_rate", 3e-4),
                     .epsilon = setting("eps", 1e-8),
                     .weight_decay = setting("weight_decay", 0.01),
                     .clip = setting("clip", 1.0)};
    if (auto const betas = in_.metadata().find("betas"); betas != in_.metadata().end()) {
      rule.beta1 = std::stod(betas->second);
      rule.beta2 = std::stod(betas->second.substr(betas->second.find(',') + 1));
    }
    ouro::update_parameters(ouro::fields(model), memory, g, rule, rule.learning_rate);
    for (auto const& f : ouro::fields(model)) {
      auto const key = at + "weights/" + name(f.path);
      if (!in_.contains(key)) continue;
      if (type_ == dtype::f64 || f.kind != ouro::field_kind::parameter) {
        compare("weights", key, *f.value, type_ == dtype::f64 ? 1e-7 : 1e-4);
      } else {
        auto const a = f.value->template values<double>();
        auto const b = stored(key).template values<double>();
        double worst = 0;
        for (std::size_t k = 0; k < a.size(); ++k) worst = std::max(worst, std::abs(a[k] - b[k]));
        note("weights / rate", key, worst / (rule.learning_rate * (u + 1)), 0.2);
      }
    }
  }

  [[nodiscard]] double state_limit() const { return type_ == dtype::f32 ? 1e-4 : single_ ? 1e-6 : 1e-9; }
  [[nodiscard]] double gradient_limit() const { return type_ == dtype::f32 ? 1e-3 : 1e-6; }
  [[nodiscard]] double logits_limit(std::string const& at) const {
    return type_ == dtype::f64 && in_.at(at + "logits").type == "F32" ? 1e-7 : state_limit();
  }
  void scalar(std::string const& key, ouro::tensor<B> const& value) {
    scalar_value("loss", key, value.empty() ? 0.0 : value.item(), state_limit());
  }
  void scalar_value(char const* kind, std::string const& key, double value, double limit) {
    if (!in_.contains(key)) return;
    double const want = stored(key).item();
    note(kind, key, want == value ? 0 : std::abs(value - want) / std::abs(want), limit);
  }
  void compare(char const* kind, std::string const& key, ouro::tensor<B> const& value, double limit) {
    auto const a = value.template values<double>();
    auto const b = stored(key).template values<double>();
    double error = a.size() == b.size() ? 0 : INFINITY;
    double size = 0;
    for (std::size_t i = 0; i < b.size() && i < a.size(); ++i) {
      error = std::isfinite(a[i]) ? std::max(error, std::abs(a[i] - b[i])) : INFINITY;
      size = std::max(size, std::abs(b[i]));
    }
    note(kind, key, error == 0 ? 0 : error / std::max(size, 1e-300), limit);
  }
  void note(std::string const& kind, std::string const& where, double error, double limit) {
    auto& t = tallies_[kind];
    t.limit = std::max(t.limit, limit);
    ++t.count;
    failed_ = failed_ || !(error <= limit);
    if (!(error <= t.worst)) t.worst = error, t.where = where;
  }
  bool report() const {
    for (auto const& [kind, t] : tallies_)
      std::printf("  %-18s %6d compared, worst %.2e (limit %.0e) %s\n", kind.c_str(), t.count, t.worst, t.limit,
                  t.where.c_str());
    return !failed_;
  }

  ouro::safetensors_reader in_;
  dtype type_;
  bool single_;
  std::map<std::string, tally> tallies_;
  bool failed_ = false;
};

template <class B>
bool check(std::string const& path, dtype type) {
  return checker<B>(path, type).run();
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> files;
  std::string backend = "reference";
  std::string type = "f64";
  for (int i = 1; i < argc; ++i) {
    std::string const a = argv[i];
    if (a == "--backend" && i + 1 < argc) backend = argv[++i];
    else if (a == "--dtype" && i + 1 < argc) type = argv[++i];
    else files.push_back(a);
  }
  if (files.empty() || (type != "f64" && type != "f32")) {
    std::fprintf(stderr, "usage: golden_check FILE... [--backend reference|cpu|cuda] [--dtype f64|f32]\n");
    return 2;
  }
  int worst = 0;  // of all files: 1 above a tolerance, 3 what could not be run
  for (auto const& path : files) {
    std::printf("%s on %s %s\n", path.c_str(), backend.c_str(), type.c_str());
    auto const t = type == "f64" ? dtype::f64 : dtype::f32;
    bool passed = false;
    try {
      if (backend == "reference") {
        passed = check<ouro::reference>(path, t);
#if defined(OURO_HAS_CPU)
      } else if (backend == "cpu") {
        passed = check<ouro::cpu>(path, t);
#endif
#if defined(OURO_HAS_CUDA)
      } else if (backend == "cuda") {
        passed = check<ouro::cuda>(path, t);
#endif
      } else {
        std::fprintf(stderr, "golden_check: backend '%s' is not built\n", backend.c_str());
        return 2;
      }
    } catch (std::exception const& e) {
      std::fprintf(stderr, "golden_check: %s: %s\n", path.c_str(), e.what());
      worst = 3;
    }
    std::printf("%s\n", passed ? "  passed" : "  FAILED");
    if (!passed) worst = std::max(worst, 1);
  }
  return worst;
}
