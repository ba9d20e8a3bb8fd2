// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Learning: an update lives through some wake steps and the sleep before them, goes back through all of it, and moves
// the weights.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ouro/autodiff/settle.hpp>
#include <ouro/system/system.hpp>
#include <ouro/tensor/elementary.hpp>
#include <ouro/train/adamw.hpp>
#include <ouro/train/diagnosis.hpp>
#include <ouro/train/lesson.hpp>

namespace ouro {

/// Where the seconds of an update went.
struct phase_seconds {
  double wake = 0;      ///< steps awake, forward
  double actor = 0;     ///< the losses, which are computed in the backward pass; a settled Actor's own one too
  double sleep = 0;     ///< steps asleep, forward
  double backward = 0;  ///< back through the rest
  double optimiser = 0;

  phase_seconds& operator+=(phase_seconds const& o) {
    wake += o.wake, actor += o.actor, sleep += o.sleep, backward += o.backward, optimiser += o.optimiser;
    return *this;
  }
};

/// What an update did.
struct update_report {
  std::int64_t update = 0;   ///< updates accepted so far, this one included
  double loss = 0;           ///< mean over the lessons that counted
  double cross_entropy = 0;  ///< the Actor's loss, nats per byte for bytes; mean over the lessons that counted
  double predicted = 0;      ///< the Brain's guess of it
  double gradient_norm = 0;  ///< before clipping
  double learning_rate = 0;
  std::int64_t live = 0;  ///< targets that counted
  phase_seconds seconds;
  bool refused = false;  ///< something was not finite: weights, statistics and state are as before
  std::string reason;    ///< then the first such value and where it is, as not_finite() says
};

template <class System>
class trainer {
  static_assert(!std::is_const_v<System>, "a trainer changes its model, which is const here");

 public:
  using backend = typename System::backend;

  /// Trains `model`, which must outlive the trainer. `dropout` applies while training: that of the model's configuration,
  /// where it has one, if none is said. Of the inner values of an update about `room` bytes are kept for its gradient; what does
  /// not fit is computed again, and what costs least for its size in any case. Without that bound a device may work for the
  /// Actor of one lesson while it goes back through the next, and for that of the first while it goes on to the others. Errors
  /// (argument): a dropout outside [0, 1).
  trainer(System& model, adamw rule, std::optional<double> dropout = {}, std::int64_t room = context<backend>::no_bound)
      : model_(model), rule_(rule), dropout_(dropout.value_or(own_dropout(model))), room_(room) {
    require(dropout_ >= 0 && dropout_ < 1, errc::argument, "trainer", "dropout must be in [0, 1), got ", dropout_);
  }

  /// One update. The state moves on through every lesson and the sleep between; gradients flow through all of them and
  /// stop at the state given. Each loss counts 1 / lessons. If anything is not finite, nothing changes. Errors (argument): no
  /// lesson, a rule of no use, moments of another model; (numeric): moments that were put into memory() are not finite.
  update_report update(state<backend>& life, std::vector<lesson<System>> const& lessons);

  [[nodiscard]] System const& model() const { return model_; }
  [[nodiscard]] adamw const& rule() const { return rule_; }
  [[nodiscard]] adamw& rule() { return rule_; }
  /// Whether a guess of the loss that is far too high is kept from teaching the Actor to do worse, see loss(); not at first.
  [[nodiscard]] bool& guarded() { return guarded_; }
  /// What must be saved beside weights and state for an exact resume.
  [[nodiscard]] std::vector<moments<backend>>& memory() {
    moments_known_ = false;
    return moments_;
  }
  [[nodiscard]] std::vector<moments<backend>> const& memory() const { return moments_; }
  /// Updates accepted so far, by which the learning rate goes: to be restored with memory().
  [[nodiscard]] std::int64_t& updates() { return updates_; }
  [[nodiscard]] std::int64_t updates() const { return updates_; }

 private:
  static double own_dropout(System const& model) {
    if constexpr (requires { model.config().dropout; }) return model.config().dropout;
    else return 0;
  }
  /// Wall-clock time; <chrono> would cost every user 0.3 s to compile.
  static double seconds() {
    std::timespec now{};
    std::timespec_get(&now, TIME_UTC);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }

  /// What an update that begins with `life` lives in.
  context<backend> context_of(state<backend> const& life) const {
    context<backend> cx{.training = true, .dropout = dropout_, .guarded = guarded_};
    cx.room = room_;
    cx.masks.key = life.random.key ^ 0x6F75726F6472ULL;
    cx.masks.counter = static_cast<std::uint64_t>(life.clock) << 24U;
    cx.narrow = narrow_;
    return cx;
  }
  void require_finite_moments();
  std::string reason_of(state<backend> const& life, std::vector<lesson<System>> const& lessons,
                        std::vector<tensor<backend>> const& gradients) const;

  /// What a lesson's loss is computed with, and what came of it.
  struct judgement {
    context<backend> cx;
    step_loss<backend> loss;
    double seconds = 0;
  };

  /// Postpones a lesson's loss until the backward pass comes to it: what the Actor needs for its own gradient is gone before
  /// the next is computed, and a device can work for it while it goes back through the rest.
  void judge(tape<backend>& t, impression<backend> const& seen, lesson<System> const& l, double weight, judgement& j) {
    postpone<backend>(t, {seen.now, seen.before, seen.hormone, seen.predicted_loss},
                      [this, &l, weight, &j](std::vector<tensor<backend>> const& in) {
                        double const start = seconds();
                        auto const step = loss(model_, j.cx, {in[0], in[1], in[2], in[3]}, l.input, l.target);
                        j.loss = {step.total.detach(), step.task.detach(), step.predicted.detach(), step.live};
                        j.seconds = seconds() - start;
                        return step.live > 0 ? scale(step.total, weight) : tensor<backend>::zeros({1}, dtype::f32);
                      });
  }

  System& model_;
  adamw rule_;
  double dropout_;
  std::int64_t room_;
  bool guarded_ = false;
  std::vector<moments<backend>> moments_;
  bool moments_known_ = true;  ///< to be finite, as an update leaves them
  shared<narrow_weights<backend>> narrow_ = make_owned<narrow_weights<backend>>();
  shared<narrow_weights<backend>> narrow_of_losses_ =
      make_owned<narrow_weights<backend>>();  // which the side stream may make
  std::int64_t updates_ = 0;
};

template <class System>
update_report trainer<System>::update(state<backend>& life, std::vector<lesson<System>> const& lessons) {
  require(!lessons.empty(), errc::argument, "trainer", "an update needs at least one lesson");
  rule_.validate();
  require_finite_moments();
  update_report report;
  double start = seconds();
  auto lap = [&](double& phase) {
    double const now = seconds();
    phase += now - start;
    start = now;
  };
  auto s = life.detach();
  auto cx = context_of(life);
  auto const list = fields(model_);
  for (auto const& narrow : {narrow_, narrow_of_losses_}) {
    if (cx.inner(dtype::f32) == dtype::bf16) narrow->renew(list);
    else narrow->clear();
  }
  std::vector<tensor<backend>> gradients;
  double counted = 0;
  tensor<backend> figures;  // squares of gradients and state, then each lesson's losses: what the host reads at once
  {
    tape<backend> t(cx.keeps_all());
    watch(t, list);
    std::vector<judgement> judged(lessons.size());  // read when all is on its way: a device is not waited for before
    for (std::size_t i = 0; i < lessons.size(); ++i) {
      auto const& l = lessons[i];
      while (model_.rhythm.asleep(s.clock)) s = sleep(model_, cx, std::move(s));
      lap(report.seconds.sleep);
      auto [next, seen] = wake(model_, cx, std::move(s), l.input);
      s = std::move(next);
      lap(report.seconds.wake);
      judged[i].cx = cx.apart();
      judged[i].cx.narrow = narrow_of_losses_;
      judged[i].cx.masks = cx.masks.reserve(detail::draws_of_a_loss);
      judge(t, seen, l, 1.0 / static_cast<double>(lessons.size()), judged[i]);
      lap(report.seconds.backward);
    }
    t.backward();
    std::vector<tensor<backend>> losses;  // total, task and predicted of each lesson that counted
    for (auto& j : judged) {
      cx.statistics.insert(cx.statistics.end(), j.cx.statistics.begin(), j.cx.statistics.end());
      report.live += j.loss.live;
      report.seconds.actor += j.seconds;
      report.seconds.backward -= j.seconds;
      if (j.loss.live == 0) continue;
      ++counted;
      losses.insert(losses.end(), {j.loss.total, j.loss.task, j.loss.predicted});
    }
    if (counted > 0) gradients = gradient_values(t, list);
    s = s.detach();
    figures = tensor<backend>::zeros({2 + static_cast<std::int64_t>(losses.size())}, dtype::f64);
    auto const to = figures.write();
    sum_of_squares(to.slice(0, 0, 1), gradients);
    sum_of_squares(to.slice(0, 1, 1), s.tensors());
    for (std::size_t i = 0; i < losses.size(); ++i)
      if (losses[i])
        backend::copy(to.slice(0, 2 + static_cast<std::int64_t>(i), 1), losses[i].read().reshape({1}), false);
  }  // while a device still works for it, all that was recorded is forgotten, and what follows from it is prepared
  lap(report.seconds.backward);
  report.learning_rate = rule_.rate(updates_);
  parameter_update<backend> weights(list, moments_, gradients, rule_, report.learning_rate);
  next_statistics<backend> statistics(list, cx);
  lap(report.seconds.optimiser);
  auto const read = figures.template values<double>();
  for (std::size_t i = 2; i < read.size(); i += 3) {
    report.loss += read[i] / counted;
    report.cross_entropy += read[i + 1] / counted;
    report.predicted += read[i + 2] / counted;
  }
  lap(report.seconds.backward);
  report.gradient_norm = elementary::sqrt(read[0]);
  report.refused = !elementary::isfinite(report.loss) || !elementary::isfinite(report.gradient_norm) ||
                   !elementary::isfinite(read[1]) || !weights.keeps_finite(report.gradient_norm);
  report.update = updates_;
  if (report.refused) {
    report.reason = reason_of(life, lessons, gradients);
    return report;
  }
  weights.apply(report.gradient_norm);
  statistics.apply();
  life = std::move(s);
  lap(report.seconds.optimiser);
  report.update = ++updates_;
  return report;
}

template <class System>
void trainer<System>::require_finite_moments() {
  if (moments_known_) return;
  std::vector<tensor<backend>> all;
  for (auto const& m : moments_)
    if (!m.first.empty()) all.insert(all.end(), {m.first, m.second});
  require(elementary::isfinite(norm_of<backend>(all)), errc::numeric, "trainer", "the moments are not finite");
  moments_known_ = true;
}

/// Of an update that was refused, with weights and state as they were before.
template <class System>
std::string trainer<System>::reason_of(state<backend> const& life, std::vector<lesson<System>> const& lessons,
                                       std::vector<tensor<backend>> const& gradients) const {
  System const& model = model_;
  if (auto where = not_finite(model, context_of(life), life, lessons); !where.empty()) return where;
  std::size_t i = 0;
  for (auto const& f : fields(model)) {
    if (f.kind != field_kind::parameter || i == gradients.size()) continue;
    auto const& g = gradients[i++];
    if (!g.empty() && !elementary::isfinite(norm_of<backend>({g}))) return "the gradient of " + f.path;
  }
  return "what the gradients would make of weights or moments";
}

}  // namespace ouro
