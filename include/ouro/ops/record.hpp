// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What an operation sees of a tape: it hands over its result, its inputs and its vector-Jacobian product.
//
// Convention of every gradient: the first contribution to an input's gradient assigns, later ones add. An input that
// no tape watches is not wanted and its work is skipped. Gradients of inputs that are one value, or overlapping parts of
// one, have memory of their own: a step may write all that it is asked for in any order, or at once.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include <ouro/concepts/backend.hpp>
#include <ouro/tensor/tensor.hpp>

namespace ouro {

/// The gradient of one recorded value: absent until something contributes to it.
template <class B>
struct gradient_slot {
  tensor<B> value;
  shape dims;
  dtype type = dtype::f32;
  std::int64_t whole = -1;  ///< the node that this one is a slice or copy of, if it is one: [start, …) of `axis`
  int axis = 0;
  std::int64_t start = 0;
  bool on_branch = false;  ///< whether calls on the branch may have written the value

  /// Whether the slice lies in one run of the whole's memory.
  [[nodiscard]] bool runs_on() const {
    for (int i = 0; i < axis; ++i)
      if (dims[i] != 1) return false;
    return true;
  }
};

/// Errors: an operand is absent (argument); one that is there is not computed in the type of the first, or that is not real (shape).
template <class B>
void require_one_type(char const* where, tensor<B> const& x, std::initializer_list<tensor<B> const*> others = {}) {
  require(!x.empty(), errc::argument, where, "an operand is absent");
  require(is_real(x.type()), errc::shape, where, "needs a real dtype, got ", name_of(x.type()));
  for (auto const* o : others)
    require(o->empty() || (is_real(o->type()) && computed_in(o->type()) == computed_in(x.type())), errc::shape, where,
            "dtypes must agree and be real, got ", name_of(x.type()), " and ", name_of(o->type()));
}

/// Errors (argument): an index of what has `count` is not below that. On a device, which is not waited for, the result is NaN.
template <class B>
void require_below([[maybe_unused]] char const* where, [[maybe_unused]] tensor<B> const& indices,
                   [[maybe_unused]] std::int64_t count) {
  if constexpr (!on_device<B>) {
    auto const v = indices.read();
    auto const* const p = v.template as<std::int32_t>();
    for (std::int64_t i = 0; i < v.size(); ++i)
      require(p[i] < count, errc::argument, where, "there is no ", p[i], " among ", count);
  }
}

template <class B>
class gradients;

/// A recorded vector-Jacobian product. It runs once, and may use up what it keeps.
template <class B>
struct backward_step : counted {
  virtual ~backward_step() = default;
  virtual void operator()(tensor<B> const& dy, gradients<B>& dx) = 0;
  /// What can be done before its turn comes: needs no gradient, and touches none of those outside.
  virtual void prepare() {}
};

/// Where a vector-Jacobian product puts its results; inputs are numbered as they were recorded.
template <class B>
class gradients {
 public:
  /// Of the operation `name`.
  gradients(recorder<B>& tape, char const* name, std::vector<std::int64_t> const& nodes)
      : tape_(tape), name_(name), nodes_(nodes) {}

  /// Errors (argument), of this and the others: the operation has not so many inputs.
  [[nodiscard]] bool wants(std::size_t input) const { return node_of(input) >= 0; }

  /// The buffer of an input's gradient, in the input's shape and contiguous; not wanted if nobody watches the input. That
  /// of a slice lies in the gradient of the whole.
  [[nodiscard]] destination into(std::size_t input) { return buffer(node_of(input), false); }
  /// The same for calls that may be made on the branch: whoever needs the gradient joins it.
  [[nodiscard]] destination on_branch(std::size_t input) { return buffer(node_of(input), false, BranchBackend<B>); }
  /// The same in the memory of `spent`, whose values the step reads for the last time as it writes, if the gradient has
  /// their shape and type, nothing has contributed to it yet, and nobody else owns that memory.
  [[nodiscard]] destination into(std::size_t input, tensor<B>& spent) {
    if (!wants(input)) return {};
    auto& slot = tape_.slot(nodes_[input]);
    if (!slot.value.empty() || slot.whole >= 0 || slot.type != spent.type() || !(slot.dims == spent.dims()) ||
        !spent.unique() || !spent.contiguous())
      return into(input);
    join_branch<B>();  // they may read it
    view const memory = spent.write();
    slot.value = spent;
    return {memory, false};
  }
  /// The same for all inputs of an operation that writes every element of each, and whose results may be strided: a whole
  /// that nothing has contributed to, and whose parts they are, needs no zeros.
  [[nodiscard]] std::vector<destination> into_all_strided() {
    std::vector<part> parts;
    for (auto const n : nodes_) parts.push_back(place_of(n));
    std::vector<destination> all;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      bool const tiled = parts[i].whole != nodes_[i] && tile(parts, parts[i].whole, parts[i].axis);
      all.push_back(tiled ? piece(parts[i]) : buffer(nodes_[i], true));
    }
    return all;
  }
  /// The same, filled with zeros if it was absent: for operations that touch only a part of it.
  [[nodiscard]] view into_zeroed(std::size_t input) {
    auto const d = into(input);
    if (d.wanted() && !d.accumulate) B::fill(d.out, 0.0);
    return d.out;
  }
  /// Contributes a whole tensor: without a copy, when it is the first and its type is not narrower than the gradient's. Errors
  /// (shape): it is not of the input's.
  void give(std::size_t input, tensor<B> const& g) {
    if (!wants(input)) return;
    auto& slot = tape_.slot(nodes_[input]);
    require_like(input, g, slot.dims);
    if (slot.value.empty() && size_of(g.type()) >= size_of(slot.type)) {
      slot.value = g.detach();
    } else {
      B::scale(into(input), g.read(), 1.0);
    }
  }
  /// Contributes a part of a gradient that nobody else needs: without a copy, when it is the first, its memory runs on, and the
  /// input is no slice, whose gradient lies in that of the whole.
  void give_part(std::size_t input, tensor<B> const& g) {
    if (!wants(input)) return;
    auto& slot = tape_.slot(nodes_[input]);
    require_like(input, g, slot.dims);
    if (slot.value.empty() && slot.whole < 0 && slot.type == g.type() && g.contiguous()) {
      slot.value = g.detach();
    } else {
      auto const d = into(input);
      B::copy(d.out, g.read(), d.accumulate);
    }
  }

 private:
  [[nodiscard]] std::int64_t node_of(std::size_t input) const {
    require(input < nodes_.size(), errc::argument, name_, "the operation has ", nodes_.size(),
            " inputs, its gradient speaks of number ", input);
    return nodes_[input];
  }
  void require_like(std::size_t input, tensor<B> const& g, shape const& dims) const {
    require(!g.empty() && g.dims() == dims, errc::shape, name_, "the gradient of input ", input,
            " must be of its shape ", dims, ", got ", g.dims());
  }
  /// Where a slice of a slice lies in the outermost whole along one axis, if none of them has a gradient yet.
  struct part {
    std::int64_t whole;  // the node itself if it is no slice
    int axis;
    std::int64_t start;
    std::int64_t length;
  };
  part place_of(std::int64_t node) {
    part p{node, -1, 0, 0};
    if (node < 0) return p;
    auto const* slot = &tape_.slot(node);
    p.axis = slot->axis;
    p.length = slot->dims[p.axis];
    while (slot->value.empty() && slot->whole >= 0 && slot->axis == p.axis) {
      p.start += slot->start;
      p.whole = slot->whole;
      slot = &tape_.slot(p.whole);
    }
    if (!slot->value.empty()) p.whole = node;
    return p;
  }
  /// Whether the parts of a whole along an axis lie side by side, from its first element to its last.
  bool tile(std::vector<part> const& parts, std::int64_t whole, int axis) {
    std::int64_t total = 0;
    std::int64_t end = 0;
    for (std::size_t pass = 0; pass < parts.size(); ++pass)
      for (auto const& p : parts) {
        if (p.whole != whole || p.axis != axis) continue;
        if (pass == 0) total += p.length;
        if (p.start == end) end += p.length;
      }
    std::int64_t const extent = tape_.slot(whole).dims[axis];
    return total == extent && end == extent;
  }
  /// A part of a whole that has no gradient but what is about to be written.
  destination piece(part const& p) {
    auto& slot = tape_.slot(p.whole);
    if (slot.value.empty()) slot.value = tensor<B>(slot.dims, slot.type);
    return {slot.value.write().slice(p.axis, p.start, p.length), false};
  }

  destination buffer(std::int64_t node, bool strided, bool on_branch = false) {
    if (node < 0) return {};
    auto& slot = tape_.slot(node);
    bool const fresh = slot.value.empty();
    if (fresh && slot.whole >= 0 && (strided || slot.runs_on())) {
      auto const whole = buffer(slot.whole, strided, on_branch);
      if (slot.dims == whole.out.dims) return whole;
      if (!whole.accumulate) B::fill(whole.out, 0.0);
      return {whole.out.slice(slot.axis, slot.start, slot.dims[slot.axis]), true, on_branch};
    }
    bool const stays = fresh || (slot.value.unique() && slot.value.contiguous());
    if (slot.on_branch && !(on_branch && stays)) join_branch<B>();
    if (fresh) slot.value = tensor<B>(slot.dims, slot.type);
    else if (!stays) slot.value = slot.value.copy();
    slot.on_branch = slot.on_branch || on_branch;
    return {slot.value.write(), !fresh, on_branch};
  }

  recorder<B>& tape_;
  char const* name_;
  std::vector<std::int64_t> const& nodes_;
};

/// The gradients of the inputs 0, 1, … that are wanted, by a call for each, which is told where it goes and reads dy: the
/// rest of a backward pass waits for the first alone, and for the others when it needs what they write.
template <class B, class First, class... Others>
void each_gradient(tensor<B> const& dy, gradients<B>& dx, First const& first, Others const&... others) {
  destination const front = dx.into(0);
  std::size_t count = 0;
  destination const to[] = {(static_cast<void>(others), dx.on_branch(++count))...};
  {
    branch_scope<B> const branch;
    auto const* d = to;
    ((d->wanted() ? others(*d) : void(), ++d), ...);
  }
  if (front.wanted()) first(front);
  if (!dy.unique()) join_branch<B>();  // it may become another gradient, which is added to where it is
}

/// Records `y = op(inputs…)` with its vector-Jacobian product `backward(dy, dx)` on the tape that watches the inputs.
/// Costs nothing but the closure when none is watched. Errors: inputs watched by two different tapes.
template <class B, class F>
tensor<B> recorded(char const* name, tensor<B> y, tensor<B> const* const* inputs, std::size_t count, F&& backward) {
  shared<recorder<B>> tape;
  std::vector<std::int64_t> nodes(count, -1);
  for (std::size_t i = 0; i < count; ++i) {
    auto [watcher, node] = inputs[i]->origin();
    if (watcher == nullptr) continue;
    require(tape == nullptr || tape == watcher, errc::argument, name, "operands are watched by two different tapes");
    tape = std::move(watcher);
    nodes[i] = node;
  }
  if (tape == nullptr) return y;

  struct step final : backward_step<B> {
    explicit step(F&& f) : run(std::forward<F>(f)) {}
    void operator()(tensor<B> const& dy, gradients<B>& dx) override { run(dy, dx); }
    std::decay_t<F> run;
  };
  auto const node = tape->record(name, y, std::move(nodes), make_owned<step>(std::forward<F>(backward)));
  y.set_origin(std::move(tape), node);
  return y;
}

template <class B, class F>
tensor<B> recorded(char const* name, tensor<B> y, std::initializer_list<tensor<B> const*> inputs, F&& backward) {
  return recorded(name, std::move(y), inputs.begin(), inputs.size(), std::forward<F>(backward));
}

/// The tensor itself if its memory is contiguous, else a contiguous copy; unwatched, for kernels.
template <class B>
tensor<B> packed(tensor<B> const& x) {
  return x.contiguous() ? x.detach() : x.copy();
}

}  // namespace ouro
