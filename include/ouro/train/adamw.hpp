// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// AdamW over the flat list of a module's parameters, with clipping by the global norm.
#pragma once

#include <cstdint>
#include <vector>

#include <ouro/autodiff/tape.hpp>
#include <ouro/nn/module.hpp>
#include <ouro/ops/norm.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// Settings of AdamW (Loshchilov & Hutter, 2019) and of its schedule.
struct adamw {
  double learning_rate = 3e-4;  ///< the peak
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  double clip = 1.0;           ///< the largest global gradient norm; 0 = no clipping
  std::int64_t warmup = 1000;  ///< updates of linear warm-up
  std::int64_t total = 0;      ///< updates until the cosine reaches zero; 0 = constant after warm-up

  /// Errors (argument): a setting that no update could use.
  void validate() const {
    auto within = [](bool good, char const* name, double value) {
      require(good, errc::argument, "adamw", name, " is out of range: ", value);
    };
    within(learning_rate >= 0 && learning_rate <= 1e3, "learning_rate", learning_rate);  // about what a weight moves by
    within(beta1 >= 0 && beta1 < 1, "beta1", beta1);
    within(beta2 >= 0 && beta2 < 1, "beta2", beta2);
    within(epsilon > 0 && elementary::isfinite(epsilon), "epsilon", epsilon);
    within(weight_decay >= 0 && weight_decay <= 1e3, "weight_decay", weight_decay);
    within(clip >= 0 && elementary::isfinite(clip), "clip", clip);
    within(warmup >= 0, "warmup", static_cast<double>(warmup));
    within(total >= 0, "total", static_cast<double>(total));
  }

  /// The learning rate of update u = 0, 1, …: u/w below the warm-up w, else ½(1 + cos(π(u − w)/(U − w))), times the
  /// peak; without a total U the peak itself.
  [[nodiscard]] double rate(std::int64_t u) const {
    if (total > 0 && u >= total) return 0;
    if (u < warmup) return learning_rate * static_cast<double>(u) / static_cast<double>(warmup);
    if (total == 0) return learning_rate;
    double const part = static_cast<double>(u - warmup) / static_cast<double>(total - warmup);
    return learning_rate * 0.5 * (1 + elementary::cos(3.14159265358979323846 * part));
  }
};

/// The moments of one parameter, and how many gradients it has had: bias correction counts its own.
template <class B>
struct moments {
  tensor<B> first;
  tensor<B> second;
  std::int64_t steps = 0;
};

/// The gradients of a module's parameters, in their order; absent where a tape found none.
template <class B>
struct gradient_list {
  std::vector<tensor<B>> values;
  double norm = 0;  ///< the global 2-norm; finite exactly when every gradient is
};

/// Watches every parameter of a module's fields. One that shares its memory gets its own first: two parameters that began as
/// copies of one tensor, or a model and its copy, learn apart.
template <class B>
void watch(tape<B>& t, std::vector<field<tensor<B>>> const& list) {
  for (auto const& f : list) {
    if (f.kind != field_kind::parameter) continue;
    if (!f.value->empty() && !f.value->unique() && f.value->origin().first == nullptr) *f.value = f.value->copy();
    t.watch(*f.value);
  }
}

/// The gradients alone: nobody is waited for.
template <class B>
std::vector<tensor<B>> gradient_values(tape<B> const& t, std::vector<field<tensor<B>>> const& list) {
  std::vector<tensor<B>> values;
  for (auto const& f : list)
    if (f.kind == field_kind::parameter) values.push_back(t.gradient(*f.value));
  return values;
}
template <class B>
gradient_list<B> gradients_of(tape<B> const& t, std::vector<field<tensor<B>>> const& list) {
  gradient_list<B> g{gradient_values(t, list)};
  g.norm = norm_of(g.values);
  return g;
}

/// What an update does to every parameter that has a gradient; a parameter without one neither moves nor decays. It is made
/// before the norm of the gradients must be known, so that a device still works for them. Until apply() has returned every
/// parameter is as it was.
template <class B>
class parameter_update {
 public:
  /// Of `list`, whose parameters no tape may watch any more, by their gradients and moments; `m` grows to the number of
  /// parameters on first use. All of these must stay where they are until apply(). Errors (argument): gradients or moments of other
  /// parameters, or a rate that is no number.
  parameter_update(std::vector<field<tensor<B>>> const& list, std::vector<moments<B>>& m,
                   std::vector<tensor<B>> const& gradients, adamw const& rule, double rate)
      : clip_(rule.clip) {
    require(elementary::isfinite(rate), errc::argument, "adamw", "the rate must be a number, got ", rate);
    if (gradients.empty()) return;  // nothing was learned from
    std::size_t parameters = 0;
    for (auto const& f : list) parameters += f.kind == field_kind::parameter ? 1 : 0;
    require(gradients.size() == parameters, errc::argument, "adamw", "there are gradients of ", gradients.size(),
            " parameters, the model has ", parameters);
    require(m.empty() || m.size() == gradients.size(), errc::argument, "adamw", "the moments are of ", m.size(),
            " parameters, the model has ", gradients.size());
    m.resize(gradients.size());
    updates_.reserve(m.size());
    dense_.reserve(m.size());
    moved_.reserve(m.size());
    std::size_t i = 0;
    for (auto const& f : list) {
      if (f.kind != field_kind::parameter) continue;
      auto const& gradient = gradients[i];
      auto& own = m[i++];
      if (gradient.empty()) continue;
      require(gradient.dims() == f.value->dims(), errc::argument, "adamw", "the gradient of ", f.path,
              " has another shape: ", gradient.dims(), " for ", f.value->dims());
      if (own.first.empty())
        own = {tensor<B>::zeros(f.value->dims(), f.value->type()), tensor<B>::zeros(f.value->dims(), f.value->type())};
      require(own.first.dims() == f.value->dims() && own.second.dims() == f.value->dims(), errc::argument, "adamw",
              "the moments of ", f.path, " have another shape: ", own.first.dims(), " and ", own.second.dims(), " for ",
              f.value->dims());
      auto const t = static_cast<double>(own.steps + 1);
      dense_.push_back(packed(gradient));
      moved_.push_back(&own);
      updates_.push_back({f.value->write(),
                          own.first.write(),
                          own.second.write(),
                          dense_.back().read(),
                          {.learning_rate = rate * f.learning_rate,
                           .beta1 = rule.beta1,
                           .beta2 = rule.beta2,
                           .epsilon = rule.epsilon,
                           .weight_decay = rule.weight_decay * f.decay,
                           .correction1 = 1 - elementary::pow(rule.beta1, t),
                           .correction2 = 1 - elementary::pow(rule.beta2, t)}});
    }
  }

  /// Moves the parameters, by gradients that are clipped by their global norm.
  void apply(double norm) {
    for (auto& u : updates_) u.step.gradient_scale = factor(norm);
    B::adamw(updates_.data(), updates_.size());
    for (auto* own : moved_) ++own->steps;
  }
  /// Whether the squares of gradients of this norm, clipped, are numbers that f32 has: no moment would be finite again.
  [[nodiscard]] bool keeps_finite(double norm) const { return norm * factor(norm) < 1e19; }

 private:
  [[nodiscard]] double factor(double norm) const { return clip_ > 0 && norm > clip_ ? clip_ / (norm + 1e-6) : 1.0; }

  double clip_;
  std::vector<adamw_update> updates_;
  std::vector<tensor<B>> dense_;  // gradients
  std::vector<moments<B>*> moved_;
};

/// Clips and updates every parameter that has a gradient, as parameter_update. Errors (argument): a setting of the rule; (numeric):
/// the norm of the gradients is not finite: nothing is changed.
template <class B>
void update_parameters(std::vector<field<tensor<B>>> const& list, std::vector<moments<B>>& m, gradient_list<B> const& g,
                       adamw const& rule, double rate) {
  rule.validate();
  require(elementary::isfinite(g.norm), errc::numeric, "adamw", "the norm of the gradients is ", g.norm);
  parameter_update<B>(list, m, g.values, rule, rate).apply(g.norm);
}

}  // namespace ouro
