// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Where an update that was refused went wrong: it is lived through once more, and every value is looked at.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ouro/nn/context.hpp>
#include <ouro/nn/module.hpp>
#include <ouro/ops/norm.hpp>
#include <ouro/system/system.hpp>
#include <ouro/tensor/elementary.hpp>
#include <ouro/train/lesson.hpp>

namespace ouro {

namespace detail {

inline constexpr std::uint64_t draws_of_a_loss = 1U << 20U;  ///< masks of dropouts in a lesson's loss, at most

/// Notes the first of the values it sees that is not finite: "layer 2 after compressor".
template <class B>
class finite_watch final : public observer<B> {
 public:
  void see(char const* name, tensor<B> const& value) override {
    if (!found.empty()) return;
    bool const again = name == last_;
    if (!again) before_ = std::move(last_), last_ = name, count_ = 0;
    ++count_;
    if (value.empty() || elementary::isfinite(norm_of<B>({value}))) return;
    bool const numbered = std::string(name) == "layer";
    found = name + (numbered ? " " + std::to_string(count_) + (before_.empty() ? "" : " after " + before_) : "");
  }
  /// The tensors of a state, as "state.mem".
  void see(state<B> const& s) {
    s.for_each_tensor(
        [&](char const* name, tensor<B> const& member) { see((std::string("state.") + name).c_str(), member); });
  }

  std::string found;

 private:
  std::string last_;
  std::string before_;
  int count_ = 0;
};

}  // namespace detail

/// The first value that is not finite when `life` lives through these lessons, and where: a weight ("actor.head.bias"), the
/// state it begins with ("state.mem"), a value inside a step ("lesson 2, awake: layer 1 after compressor"), the state or the loss
/// after it. Empty if there is none. `cx` is the context of the update, with the same masks; nothing is changed.
template <class System, class B>
std::string not_finite(System const& model, context<B> cx, state<B> life, std::vector<lesson<System>> const& lessons) {
  detail::finite_watch<B> watch;
  for (auto const& f : fields(model)) watch.see(f.path.c_str(), *f.value);
  watch.see(life);
  if (!watch.found.empty()) return watch.found;
  cx.watcher = &watch;
  for (std::size_t i = 0; i < lessons.size(); ++i) {
    auto const in = "lesson " + std::to_string(i + 1);
    while (model.rhythm.asleep(life.clock)) {
      life = sleep(model, cx, std::move(life));
      watch.see(life);
      if (!watch.found.empty()) return in + ", asleep before it: " + watch.found;
    }
    auto [next, seen] = wake(model, cx, std::move(life), lessons[i].input);
    life = std::move(next);
    watch.see(life);
    if (!watch.found.empty()) return in + ", awake: " + watch.found;
    auto own = cx.apart();
    own.masks = cx.masks.reserve(detail::draws_of_a_loss);
    auto const judged = loss(model, own, seen, lessons[i].input, lessons[i].target);
    if (judged.live == 0) continue;
    watch.see("the Actor's loss", judged.task);
    watch.see("the predicted loss", judged.predicted);
    watch.see("the loss", judged.total);
    if (!watch.found.empty()) return in + ": " + watch.found;
  }
  return "";
}

}  // namespace ouro
