// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Ways to say when a part is computed: `checkpoint` computes it again when its gradient is needed, and `settle` its gradient
// at once, so that nothing of it has to be kept; `postpone` computes a loss and its gradient in the backward pass alone.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <ouro/autodiff/tape.hpp>
#include <ouro/ops/arithmetic.hpp>

namespace ouro {

namespace detail {

/// The recording that watches any of the tensors, or null.
template <class B>
shared<recording<B>> recording_of(std::vector<tensor<B>> const& inputs) {
  for (auto const& x : inputs)
    if (auto const watcher = x.origin().first) return shared<recording<B>>(static_cast<recording<B>*>(watcher.get()));
  return nullptr;
}

/// The nodes of values, -1 for those that nobody watches. Errors (argument): another tape watches one.
template <class B>
std::vector<std::int64_t> nodes_of(std::vector<tensor<B>> const& values, recording<B> const& tape) {
  std::vector<std::int64_t> nodes;
  for (auto const& x : values) {
    auto const [watcher, node] = x.origin();
    require(watcher == nullptr || watcher.get() == &tape, errc::argument, "settle",
            "operands are watched by two different tapes");
    nodes.push_back(node);
  }
  return nodes;
}

/// A function that may run several times: f(part, inputs). A type of its own behind one face, so that what runs it is
/// compiled once.
template <class B>
struct computation : counted {
  virtual ~computation() = default;
  virtual tensor<B> operator()(std::int64_t part, std::vector<tensor<B>> const& inputs) const = 0;
};
template <class B, class F>
struct computation_of final : computation<B> {
  explicit computation_of(F g) : f(std::forward<F>(g)) {}
  tensor<B> operator()(std::int64_t part, std::vector<tensor<B>> const& inputs) const override {
    if constexpr (requires { f(part, inputs); }) return f(part, inputs);
    else return f(inputs);
  }
  F f;
};

template <class B>
void require_scalar(tensor<B> const& y) {
  require(y.size() == 1, errc::shape, "settle", "the function must return a scalar, got shape ", y.dims());
}

/// Runs forward and backward of f on detached inputs; parameters' and inputs' gradients land in buffers of their own.
template <class B>
class local_gradient {
 public:
  local_gradient(shared<recording<B>> tape, std::vector<tensor<B>> const& inputs)
      : tape_(std::move(tape)),
        nodes_(nodes_of(inputs, *tape_)),
        mark_(static_cast<std::int64_t>(tape_->nodes.size())),
        outer_(tape_->settled_from) {
    for (auto const& x : inputs) {
      inputs_.push_back(x.detach());
      if (nodes_[inputs_.size() - 1] < 0) continue;
      tape_->nodes.push_back({"input", {}, nullptr, {{}, x.dims(), x.type()}});
      inputs_.back().set_origin(tape_, static_cast<std::int64_t>(tape_->nodes.size()) - 1);
    }
    first_ = static_cast<std::int64_t>(tape_->nodes.size());
    tape_->settled_from = mark_;  // last: what fails before has left nothing but nodes that nobody knows
    std::swap(tape_->settled, outer_settled_);
  }
  local_gradient(local_gradient const&) = delete;
  local_gradient& operator=(local_gradient const&) = delete;
  ~local_gradient() {
    tape_->nodes.resize(static_cast<std::size_t>(mark_));
    tape_->settled_from = outer_;
    std::swap(tape_->settled, outer_settled_);
  }

  /// y = f(inputs), and its gradients for dy = 1.
  tensor<B> run(computation<B> const& f, std::int64_t part) {
    auto const y = f(part, inputs_);
    require_scalar(y);
    back(y.origin(), tensor<B>::full(y.dims(), y.type(), 1.0));
    return y.detach();
  }
  /// The gradients of f(inputs) for the given dy.
  void run(computation<B> const& f, std::int64_t part, tensor<B> const& dy) {
    auto const from = f(part, inputs_).origin();  // nobody needs the result itself
    back(from, dy);
  }

  /// (node, gradient) of everything outside that received one: the leaves, and the inputs under their own nodes.
  std::vector<std::pair<std::int64_t, tensor<B>>> take() {
    std::vector<std::pair<std::int64_t, tensor<B>>> out;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (nodes_[i] < 0) continue;
      auto g = tape_->nodes[static_cast<std::size_t>(inputs_[i].origin().second)].gradient.value;
      if (g) out.emplace_back(nodes_[i], std::move(g));
    }
    for (auto& s : tape_->settled)
      if (s.gradient.value) out.emplace_back(s.node, std::move(s.gradient.value));
    return out;
  }

 private:
  void back(std::pair<shared<recorder<B>>, std::int64_t> const& from, tensor<B> const& dy) {
    if (from.first.get() == tape_.get()) {  // also where it is an input or a leaf
      std::vector<std::int64_t> const nodes{from.second};
      gradients<B>(*tape_, "settle", nodes).give(0, dy);
      tape_->run(static_cast<std::int64_t>(tape_->nodes.size()) - 1, first_);
    }
    tape_->nodes.resize(static_cast<std::size_t>(first_));
  }

  shared<recording<B>> tape_;
  std::vector<std::int64_t> nodes_;  // of the inputs outside
  std::vector<tensor<B>> inputs_;
  std::int64_t mark_;
  std::int64_t first_ = 0;
  std::int64_t outer_;
  std::vector<typename recording<B>::settled_gradient> outer_settled_;
};

/// Whether two views may have an element in common: their memory is looked at from the first byte to the last.
inline bool may_overlap(view const& a, view const& b) {
  auto end = [](view const& v) {
    std::int64_t last = 0;
    for (int i = 0; i < v.dims.rank(); ++i) last += (v.dims[i] - 1) * v.steps[i];
    return static_cast<char const*>(v.data) + (last + 1) * size_of(v.type);
  };
  if (a.size() == 0 || b.size() == 0) return false;
  return static_cast<char const*>(a.data) < end(b) && static_cast<char const*>(b.data) < end(a);
}

/// Adds factor · list[i] (contiguous) to the gradient of input i for all of them, at once where they lie apart.
template <class B>
void contribute(gradients<B>& dx, std::vector<std::pair<std::size_t, tensor<B>>> const& list, tensor<B> const& factor) {
  std::vector<destination> places;
  std::vector<const_view> values;
  auto add = [&] {
    B::scale_by(places.data(), values.data(), values.size(), factor.read());
    places.clear();
    values.clear();
  };
  for (auto const& [input, g] : list) {
    auto const d = dx.into(input);
    for (auto const& p : places)
      if (may_overlap(p.out, d.out)) {
        add();
        break;
      }
    places.push_back(d);
    values.push_back(g.read());
  }
  add();
}

/// Gives what local_gradient has taken to the nodes it is for: the first of a node as it is, the others added at once.
template <class B>
void hand_on(recording<B>& tape, std::vector<std::pair<std::int64_t, tensor<B>>> const& found) {
  std::vector<std::int64_t> nodes;
  for (auto const& f : found) nodes.push_back(f.first);
  gradients<B> dx(tape, "settle", nodes);
  std::vector<std::pair<std::size_t, tensor<B>>> more;
  for (std::size_t i = 0; i < found.size(); ++i) {
    auto const& g = found[i].second;
    auto const& slot = tape.slot(nodes[i]);
    bool const adds = !slot.value.empty() && is_floating(g.type()) && g.type() == slot.type &&
                      (more.empty() || g.type() == more[0].second.type());
    if (adds) more.emplace_back(i, packed(g));
    else dx.give(i, g);
  }
  if (!more.empty()) contribute(dx, more, tensor<B>::full({1}, more[0].second.type(), 1.0));
}

template <class B>
tensor<B> settled(std::vector<tensor<B>> const& inputs, std::int64_t parts, computation<B> const& f) {
  require(parts > 0, errc::argument, "settle", "needs at least one part");
  auto const tape = recording_of(inputs);
  tensor<B> total;
  auto sum = [&](tensor<B> const& y) {
    require_scalar(y);
    total = total.empty() ? y : add(total, y);  // which is recorded where leaves are watched that are no inputs
  };
  if (tape == nullptr) {
    for (std::int64_t p = 0; p < parts; ++p) sum(f(p, inputs));
    return total;
  }
  std::vector<std::pair<std::int64_t, tensor<B>>> kept;
  {
    local_gradient<B> local(tape, inputs);
    for (std::int64_t p = 0; p < parts; ++p) sum(local.run(f, p));
    kept = local.take();
  }
  struct step final : backward_step<B> {
    std::vector<std::pair<std::size_t, tensor<B>>> list;
    void operator()(tensor<B> const& dy, gradients<B>& dx) override { contribute(dx, list, dy); }
  };
  auto scaled = make_owned<step>();
  std::vector<std::int64_t> nodes;
  for (auto& [node, g] : kept) {
    scaled->list.emplace_back(nodes.size(), std::move(g));
    nodes.push_back(node);
  }
  auto const node = tape->record("settle", total, std::move(nodes), std::move(scaled));
  total.set_origin(tape, node);
  return total;
}

template <class B>
tensor<B> checkpointed(std::vector<tensor<B>> const& inputs, shared<computation<B>> f) {
  auto const tape = recording_of(inputs);
  if (tape == nullptr) return (*f)(0, inputs);
  std::vector<tensor<B>> plain;
  tensor<B> y;
  {
    local_gradient<B> local(tape, inputs);
    for (auto const& x : inputs) plain.push_back(x.detach());
    y = (*f)(0, plain).detach();
  }

  struct step final : backward_step<B> {
    step(shared<computation<B>> g, std::vector<tensor<B>> x, recording<B>& t)
        : run(std::move(g)), inputs(std::move(x)), tape(t) {}
    shared<computation<B>> run;
    std::vector<tensor<B>> inputs;
    recording<B>& tape;  // which owns this step
    void operator()(tensor<B> const& dy, gradients<B>&) override {
      std::vector<std::pair<std::int64_t, tensor<B>>> found;
      {
        local_gradient<B> local(shared<recording<B>>(&tape), inputs);
        local.run(*run, 0, dy);
        found = local.take();
      }
      hand_on(tape, found);
    }
  };
  auto const node =
      tape->record("checkpoint", y, nodes_of(inputs, *tape), make_owned<step>(std::move(f), inputs, *tape));
  y.set_origin(tape, node);
  return y;
}

/// What its turn finds of f(inputs) and its gradient is only handed on.
template <class B>
struct postponed_step final : backward_step<B> {
  postponed_step(shared<computation<B>> g, std::vector<tensor<B>> x, recording<B>& t)
      : run(std::move(g)), inputs(std::move(x)), tape(t) {}
  void prepare() override {
    if (prepared) return;
    local_gradient<B> local(shared<recording<B>>(&tape), inputs);
    local.run(*run, 0);
    found = local.take();
    prepared = true;
  }
  void operator()(tensor<B> const&, gradients<B>&) override {
    prepare();
    hand_on(tape, found);
  }

  shared<computation<B>> run;
  std::vector<tensor<B>> inputs;  // kept until then: the side stream may still read them
  recording<B>& tape;             // which owns this step
  bool prepared = false;
  std::vector<std::pair<std::int64_t, tensor<B>>> found;
};

template <class B>
void postponed(recording<B>& tape, std::vector<tensor<B>> inputs, shared<computation<B>> f) {
  require(tape.settled_from == 0, errc::argument, "postpone", "inside of settle or checkpoint there is no later");
  auto const seed = tensor<B>::full({1}, dtype::f32, 1.0);
  auto nodes = nodes_of(inputs, tape);
  tape.postponed.reserve(tape.postponed.size() + 1);  // what fails later must not leave a loss that nobody waits for
  auto const node = tape.record("postpone", seed, std::move(nodes),
                                make_owned<postponed_step<B>>(std::move(f), std::move(inputs), tape));
  tape.slot(node).value = seed;
  tape.postponed.push_back(node);
  if (tape.postponed.size() == 1) tape.fork_ahead();
  if (tape.postponed.size() == 2)
    tape.prepare_ahead(tape.postponed.front());  // while the device does what came after it
}

}  // namespace detail

/// Σ_part f(part, inputs) for part = 0 … parts − 1, where each f is a scalar: every part runs forward and backward at
/// once and is forgotten; only the gradients towards the inputs and the leaves are kept, to be multiplied by the
/// derivative of what follows (the chain rule is linear in it). f must reach watched values only through `inputs` and
/// leaves. Where no input is watched, it is the sum that f computes. Errors: no part (argument); f is no scalar (shape).
template <Backend B, class F>
tensor<B> settle(std::vector<tensor<B>> const& inputs, std::int64_t parts, F const& f) {
  return detail::settled<B>(inputs, parts, detail::computation_of<B, F const&>(f));
}

/// y = f(inputs), keeping only the inputs: the gradient runs f again. f must be deterministic, return one tensor, and
/// reach watched values only through `inputs` and leaves.
template <Backend B, class F>
tensor<B> checkpoint(std::vector<tensor<B>> const& inputs, F f) {
  return detail::checkpointed<B>(inputs, make_owned<detail::computation_of<B, F>>(std::move(f)));
}

/// Adds f(inputs), a scalar, to what the next backward() of the tape differentiates. f runs when that comes to where it was
/// postponed, before all that was recorded earlier, forwards and backwards at once; or before, at the same time as
/// the rest, on a backend that can do two things at once: the first that is postponed runs there when the second is, the others
/// while the backward pass goes on after the one behind. Until then it keeps what it refers to. f must reach watched values only
/// through `inputs` and leaves. Errors (argument): inside settle() or checkpoint().
template <Backend B, class F>
void postpone(tape<B>& t, std::vector<tensor<B>> inputs, F f) {
  detail::postponed<B>(*t.recording(), std::move(inputs), make_owned<detail::computation_of<B, F>>(std::move(f)));
}

}  // namespace ouro
