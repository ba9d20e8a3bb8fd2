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
  };

  [[nodiscard]] bool open() const override { return open_; }

  std::int64_t record(char const* name, tensor<B> const& y, std::vector<std::int64_t> inputs,
                      shared<backward_step<B>> step) override {
    nodes.push_back({name, std::move(inputs), std::move(step), {{}, y.dims(), y.type()}});
    return static_cast<std::int64_t>(nodes.size()) - 1;
  }

  /// Inside settle(), contributions to leaves from before it go to buffers of their own.
  gradient_slot<B>& slot(std::int64_t n) override {
    auto& own = nodes[static_cast<std::size_t>(n)];
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
  void prepare(std::int64_t i) {
    side_stream_scope<B> const aside(ahead);
    auto const step = nodes[static_cast<std::size_t>(i)].step;  // it may move the nodes
    step->prepare();
  }
  void run_step(std::int64_t i) {
    auto& n = nodes[static_cast<std::size_t>(i)];
    if (!n.step || n.gradient.value.empty()) return;
    if (n.gradient.on_branch) join_branch<B>();
    tensor<B> const dy = std::exchange(n.gradient.value, {});
    auto const step = std::exchange(n.step, nullptr);
    auto const inputs = std::move(n.inputs);
    n.name = "used";
    gradients<B> dx(*this, inputs);
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
  /// twice is harmless. Errors: another tape watches the same storage.
  void watch(tensor<B> const& x) {
    if (x.empty()) return;
    auto const [owner, node] = x.origin();
    if (owner == recording_) return;
    require(owner == nullptr, errc::argument, "tape", "the tensor is already watched by another tape");
    require(is_floating(x.type()), errc::argument, "tape", "only f32 and f64 have gradients, got ", name_of(x.type()));
    recording_->nodes.push_back({"leaf", {}, nullptr, {{}, x.dims(), x.type()}});
    recording_->leaves.push_back(x);  // first: who is watched will be let go
    x.watch(recording_, static_cast<std::int64_t>(recording_->nodes.size()) - 1);
  }

  /// Runs the recording in reverse from `y` (one element), adding seed · ∂y/∂leaf to every leaf's gradient. A tape runs
  /// back over each operation once: call it for the sum of the losses. Errors: y is not recorded here.
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
