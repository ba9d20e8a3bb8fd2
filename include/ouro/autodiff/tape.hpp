// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Reverse-mode differentiation. A tape is an explicit object: what it watches is differentiated, nothing else is, and
// there is no global mode. Operations on watched values append themselves; `backward` runs them in reverse.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <ouro/ops/record.hpp>

namespace ouro {

namespace detail {

/// The recording itself; shared by the tape and by the tensors it produced, so that neither can dangle.
template <class B>
class recording final : public recorder<B> {
 public:
  struct node {
    char const* name = "";
    std::vector<std::int64_t> inputs;
    shared<backward_step<B>> step;  // null for a leaf, and once it has run
    gradient_slot<B> gradient;
    bool used = false;            // whether the step has run
    std::int64_t asked_for = -1;  // the last operation that has this or a part of it as an input
  };

  [[nodiscard]] bool open() const override { return open_; }

  /// Of inputs that have elements in common all but the first are recorded as copies: the step has a gradient for each.
  std::int64_t record(char const* name, tensor<B> const& y, std::vector<std::int64_t> inputs,
                      shared<backward_step<B>> step) override {
    auto const number = static_cast<std::int64_t>(nodes.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i] < 0) continue;
      auto& whole = at(whole_of(inputs[i]));
      if (std::exchange(whole.asked_for, number) != number) continue;
      for (std::size_t j = 0; j < i; ++j)
        if (have_common_elements(inputs[i], inputs[j])) {
          inputs[i] = record_copy(inputs[i]);
          break;
        }
    }
    nodes.push_back({name, std::move(inputs), std::move(step), {{}, y.dims(), y.type()}});
    return static_cast<std::int64_t>(nodes.size()) - 1;
  }

  /// Inside settle(), contributions to leaves from before it go to buffers of their own.
  gradient_slot<B>& slot(std::int64_t n) override {
    auto& own = at(n);
    if (n >= settled_from) return own.gradient;
    require(!own.step, errc::argument, "settle", "the function uses a value of the outer computation (made by ",
            own.name, "); pass it as an argument");
    for (auto& s : settled)
      if (s.node == n) return s.gradient;
    settled.push_back({n, {{}, own.gradient.dims, own.gradient.type}});
    return settled.back().gradient;
  }

  /// Runs the recorded steps from `last` down to `first`, dropping each gradient and closure once it is used. What was made
  /// on the branch is there at the end. The backend may work for a postponed one while it runs those behind it.
  void run(std::int64_t last, std::int64_t first) {
    for (std::int64_t i = last; i >= first; --i) {
      bool const waited = !postponed.empty() && postponed.back() == i;
      if (waited) {
        prepare(i);
        join_side_stream<B>();
        postponed.pop_back();
      }
      run_step(i);
      if (waited && !postponed.empty()) fork_ahead();
    }
    join_branch<B>();
  }

  /// What is prepared next needs nothing that is made from here on: its calls come later, so that a device that follows its
  /// host has the others first.
  void fork_ahead() {
    if (ahead) ouro::fork_side_stream<B>();
  }
  /// Computes what was postponed to node i in the side stream, if the backend has one and may.
  void prepare_ahead([[maybe_unused]] std::int64_t i) {
    if constexpr (SideStreamBackend<B>)
      if (ahead) prepare(i);
  }

  void close() {
    open_ = false;
    for (auto const& leaf : leaves) leaf.watch(nullptr, -1);
    leaves.clear();
    nodes.clear();
  }

  /// What a leaf from outside settle() received inside.
  struct settled_gradient {
    std::int64_t node;
    gradient_slot<B> gradient;
  };

  std::vector<node> nodes;
  std::vector<tensor<B>> leaves;
  std::int64_t settled_from = 0;
  std::vector<settled_gradient> settled;
  std::vector<std::int64_t> postponed;  ///< nodes, in their order, that wait for their turn in the backward pass
  bool ahead = true;                    ///< whether what is postponed may be computed before its turn

 private:
  node& at(std::int64_t i) { return nodes[static_cast<std::size_t>(i)]; }
  /// The node that this one is a slice of a slice … of, or itself.
  std::int64_t whole_of(std::int64_t i) {
    while (at(i).gradient.whole >= 0) i = at(i).gradient.whole;
    return i;
  }
  bool have_common_elements(std::int64_t a, std::int64_t b) {
    if (a < 0 || b < 0 || whole_of(a) != whole_of(b)) return false;
    auto first_of = [this](std::int64_t i) {
      shape first = at(i).gradient.dims;
      for (int axis = 0; axis < first.rank(); ++axis) first[axis] = 0;
      for (; at(i).gradient.whole >= 0; i = at(i).gradient.whole) first[at(i).gradient.axis] += at(i).gradient.start;
      return first;
    };
    shape const begin[2] = {first_of(a), first_of(b)};
    shape const length[2] = {at(a).gradient.dims, at(b).gradient.dims};
    for (int axis = 0; axis < begin[0].rank(); ++axis)
      if (begin[0][axis] >= begin[1][axis] + length[1][axis] || begin[1][axis] >= begin[0][axis] + length[0][axis])
        return false;
    return true;
  }
  std::int64_t record_copy(std::int64_t i) {
    struct copied final : backward_step<B> {
      void operator()(tensor<B> const& dy, gradients<B>& dx) override { dx.give(0, dy); }
    };
    nodes.push_back({"copy", {i}, make_owned<copied>(), {{}, at(i).gradient.dims, at(i).gradient.type}});
    return static_cast<std::int64_t>(nodes.size()) - 1;
  }

  void prepare(std::int64_t i) {
    side_stream_scope<B> const aside(ahead);
    auto const step = at(i).step;  // it may move the nodes
    step->prepare();
  }
  void run_step(std::int64_t i) {
    auto& n = at(i);
    require(!n.used || n.gradient.value.empty(), errc::argument, "backward",
            "a tape runs back over each operation once; call it for the sum of the losses");
    if (!n.step || n.gradient.value.empty()) return;
    if (n.gradient.on_branch) join_branch<B>();
    tensor<B> const dy = std::exchange(n.gradient.value, {});
    auto const step = std::exchange(n.step, nullptr);
    auto const inputs = std::move(n.inputs);
    n.used = true;
    gradients<B> dx(*this, n.name, inputs);
    (*step)(dy, dx);  // may record more, and so move the nodes
  }

  bool open_ = true;
};

}  // namespace detail

template <class B>
class tape {
 public:
  /// What is postponed may be computed at the same time as the rest of the backward pass, if the backend can do two things at
  /// once, unless `ahead` is false: that takes memory for both.
  explicit tape(bool ahead = true) : recording_(make_owned<detail::recording<B>>()) { recording_->ahead = ahead; }
  tape(tape const&) = delete;
  tape& operator=(tape const&) = delete;
  /// Forgets everything recorded; tensors that were watched are plain values from here on.
  ~tape() { recording_->close(); }

  /// Makes a tensor a leaf: operations on it, and on copies of it, are recorded, and its gradient is kept. Watching
  /// twice is harmless. Errors (argument): another tape watches it; it is a view, detached or the result of an operation on
  /// a tape, for its copy() is what can be watched.
  void watch(tensor<B> const& x) {
    if (x.empty()) return;
    auto const [owner, node] = x.origin();
    if (owner == recording_) return;
    require(owner == nullptr, errc::argument, "tape", "the tensor is already watched by another tape");
    require(x.is_plain(), errc::argument, "tape",
            "a view, a detached tensor or a result cannot be watched; watch its copy()");
    require(is_floating(x.type()), errc::argument, "tape", "only f32 and f64 have gradients, got ", name_of(x.type()));
    recording_->nodes.push_back({"leaf", {}, nullptr, {{}, x.dims(), x.type()}});
    recording_->leaves.push_back(x);  // first: who is watched will be let go
    x.watch(recording_, static_cast<std::int64_t>(recording_->nodes.size()) - 1);
  }

  /// Runs the recording in reverse from `y` (one element), adding seed · ∂y/∂leaf to every leaf's gradient. A tape runs
  /// back over each operation once: call it for the sum of the losses. Errors: y is no scalar (shape); it is not recorded here,
  /// or depends on what the tape has run back over already (argument).
  void backward(tensor<B> const& y, double seed = 1.0) {
    require(y.size() == 1, errc::shape, "backward", "needs a scalar, got shape ", y.dims());
    auto const [owner, node] = y.origin();
    require(owner == recording_, errc::argument, "backward", "the value was not recorded on this tape");
    recording_->slot(node).value = tensor<B>::full(y.dims(), y.type(), seed);
    backward();
  }
  /// The same for what was postponed alone.
  void backward() { recording_->run(static_cast<std::int64_t>(size()) - 1, 0); }

  /// The gradient of a watched tensor; absent if nothing contributed to it.
  [[nodiscard]] tensor<B> gradient(tensor<B> const& x) const {
    auto const [owner, node] = x.origin();
    require(owner == recording_, errc::argument, "tape", "the tensor is not watched by this tape");
    return recording_->nodes[static_cast<std::size_t>(node)].gradient.value;
  }

  /// The number of operations and leaves recorded.
  [[nodiscard]] std::size_t size() const { return recording_->nodes.size(); }

  /// For those that record what is no operation on tensors.
  [[nodiscard]] shared<detail::recording<B>> const& recording() const { return recording_; }

 private:
  shared<detail::recording<B>> recording_;
};

}  // namespace ouro
