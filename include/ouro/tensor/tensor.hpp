// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The value everything is made of: shape, dtype and shared storage. Copying a tensor shares its storage; writing
// through one that is shared copies first, so a copy never changes behind its owner's back.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <ouro/tensor/shared.hpp>
#include <ouro/tensor/view.hpp>

namespace ouro {

template <class B>
class tensor;
template <class B>
struct gradient_slot;  // ops/record.hpp, as the next
template <class B>
struct backward_step;

/// The face of a tape that tensors and operations know (autodiff/tape.hpp implements it).
template <class B>
class recorder : public counted {
 public:
  virtual ~recorder() = default;
  [[nodiscard]] virtual bool open() const = 0;
  virtual std::int64_t record(char const* name, tensor<B> const& y, std::vector<std::int64_t> inputs,
                              shared<backward_step<B>> step) = 0;
  virtual gradient_slot<B>& slot(std::int64_t node) = 0;
};

namespace detail {

/// Memory of one backend, and the tape (if any) that watches it as a leaf.
template <class B>
struct storage : counted {
  explicit storage(std::int64_t n) : bytes(n), memory(B::allocate(static_cast<std::size_t>(n))) {}
  ~storage() { B::deallocate(memory, static_cast<std::size_t>(bytes)); }

  std::int64_t bytes;
  void* memory;
  shared<recorder<B>> watcher;
  std::int64_t leaf = -1;
};

}  // namespace detail

template <class B>
class tensor {
 public:
  using backend = B;

  /// The absent tensor: no storage, rank 0, `empty()`.
  tensor() noexcept;
  tensor(tensor const& other);
  tensor(tensor&& other) noexcept;
  tensor& operator=(tensor const& other);
  tensor& operator=(tensor&& other) noexcept;
  ~tensor();
  /// Uninitialised memory for `dims`. Errors (shape): a negative extent, or more bytes than can be counted.
  explicit tensor(shape const& dims, dtype type = dtype::f32);

  static tensor full(shape const& dims, dtype type, double value);
  static tensor zeros(shape const& dims, dtype type = dtype::f32) { return full(dims, type, 0.0); }
  /// One element that is seen as all: extents without their memory, to be assigned to and not written to.
  static tensor repeated(shape const& dims, dtype type, double value);
  /// Copies host values in, converting to `type`.
  template <class T>
  static tensor from(std::vector<T> const& values, shape const& dims, dtype type = dtype_of<T>) {
    require(static_cast<std::int64_t>(values.size()) == dims.size(), errc::shape, "tensor::from", "needs ", dims.size(),
            " values for shape ", dims, ", got ", values.size());
    tensor t(dims, type);
    B::upload(t.write(), const_view(values.data(), dtype_of<T>, dims));
    return t;
  }
  template <class T>
  static tensor from(std::initializer_list<T> values, shape const& dims, dtype type = dtype_of<T>) {
    return from(std::vector<T>(values), dims, type);
  }

  [[nodiscard]] bool empty() const { return storage_ == nullptr; }
  explicit operator bool() const { return !empty(); }
  [[nodiscard]] shape const& dims() const { return dims_; }
  /// The extent of an axis; negative ones count from the end. Errors (shape): there is no such axis.
  [[nodiscard]] std::int64_t dim(int axis) const { return dims_[axis_of(dims_, axis, "dim")]; }
  [[nodiscard]] int rank() const { return dims_.rank(); }
  [[nodiscard]] std::int64_t size() const { return empty() ? 0 : dims_.size(); }
  [[nodiscard]] dtype type() const { return type_; }
  [[nodiscard]] bool contiguous() const { return read().contiguous(); }

  /// The elements, for reading.
  [[nodiscard]] const_view read() const {
    return const_view(storage_ ? storage_->memory : nullptr, type_, dims_, steps_).offset(start_);
  }
  /// The elements, for writing: unshares the storage first, and is no tape's result or leaf any more.
  [[nodiscard]] view write();
  /// True when no other tensor can see a write through this one.
  [[nodiscard]] bool unique() const { return storage_.unique(); }

  /// A contiguous, unwatched tensor with the same values in storage of its own, in another dtype if asked.
  [[nodiscard]] tensor copy(dtype type) const;
  [[nodiscard]] tensor copy() const { return copy(type_); }

  /// The same values, seen by no tape.
  [[nodiscard]] tensor detach() const;

  /// The values in row-major order on the host, converted to T.
  template <class T>
  [[nodiscard]] std::vector<T> values() const {
    std::vector<T> host(static_cast<std::size_t>(size()));
    if (!host.empty()) B::download(view(host.data(), dtype_of<T>, dims_), read());
    return host;
  }
  /// The value of a tensor with one element.
  [[nodiscard]] double item() const {
    require(size() == 1, errc::shape, "item", "needs one element, got shape ", dims_);
    return values<double>()[0];
  }

  /// The same storage seen under another shape, strides and offset: for the movement operations of ops/.
  [[nodiscard]] tensor alias(const_view const& v) const;

  /// The open tape and the node that produced this value, or that watch it as a leaf; used by ops/record.hpp.
  [[nodiscard]] std::pair<shared<recorder<B>>, std::int64_t> origin() const {
    if (node_ >= 0 && tape_->open()) return {tape_, node_};
    if (is_plain() && storage_ && storage_->watcher) return {storage_->watcher, storage_->leaf};
    return {nullptr, unwatched};
  }
  /// Whether it is all of its storage and sees who watches that: neither detached, nor a view, nor the result of a tape.
  [[nodiscard]] bool is_plain() const { return node_ == inherited; }
  void set_origin(shared<recorder<B>> tape, std::int64_t node) {
    tape_ = std::move(tape);
    node_ = node;
  }
  /// Marks (or, with nullptr, unmarks) the storage itself as a leaf of a tape.
  void watch(shared<recorder<B>> tape, std::int64_t leaf) const {
    storage_->watcher = std::move(tape);
    storage_->leaf = leaf;
  }

 private:
  static constexpr std::int64_t unwatched = -1;
  static constexpr std::int64_t inherited = -2;

  shared<detail::storage<B>> storage_;
  shared<recorder<B>> tape_;
  std::int64_t node_ = inherited;
  std::int64_t start_ = 0;
  dtype type_ = dtype::f32;
  shape dims_;
  shape steps_;
};

// Not in the class: every function has tensors, and copies of these would be most of its code.
template <class B>
tensor<B>::tensor() noexcept = default;
template <class B>
tensor<B>::tensor(tensor const&) = default;
template <class B>
tensor<B>::tensor(tensor&&) noexcept = default;
template <class B>
tensor<B>& tensor<B>::operator=(tensor const&) = default;
template <class B>
tensor<B>& tensor<B>::operator=(tensor&&) noexcept = default;
template <class B>
tensor<B>::~tensor() = default;

template <class B>
tensor<B>::tensor(shape const& dims, dtype type) : type_(type), dims_(dims) {
  std::int64_t bytes = size_of(type);
  for (int i = 0; i < dims.rank(); ++i) {
    require(dims[i] >= 0, errc::shape, "tensor", "extents must not be negative, got ", dims);
    std::int64_t const counted = dims[i] == 0 ? 1 : dims[i];  // steps are counted even where there is nothing
    require(bytes <= std::numeric_limits<std::int64_t>::max() / counted, errc::shape, "tensor",
            "too many elements: ", dims);
    bytes *= counted;
  }
  steps_ = dims.strides();
  storage_ = make_owned<detail::storage<B>>(dims.size() * size_of(type));
}

template <class B>
tensor<B> tensor<B>::full(shape const& dims, dtype type, double value) {
  tensor t(dims, type);
  B::fill(t.write(), value);
  return t;
}

template <class B>
tensor<B> tensor<B>::repeated(shape const& dims, dtype type, double value) {
  auto t = full({1}, type, value);
  t.dims_ = t.steps_ = dims;
  for (int i = 0; i < dims.rank(); ++i) t.steps_[i] = 0;
  return t;
}

template <class B>
view tensor<B>::write() {
  if (storage_ && !storage_.unique()) *this = copy();
  if (node_ >= 0) *this = detach();  // what a tape had made is not there any more
  return view(storage_ ? storage_->memory : nullptr, type_, dims_, steps_).offset(start_);
}

template <class B>
tensor<B> tensor<B>::copy(dtype type) const {
  if (empty()) return {};
  tensor t(dims_, type);
  B::copy(t.write(), read(), false);
  return t;
}

template <class B>
tensor<B> tensor<B>::detach() const {
  tensor t = *this;
  t.node_ = unwatched;
  t.tape_ = nullptr;
  return t;
}

template <class B>
tensor<B> tensor<B>::alias(const_view const& v) const {
  tensor t = detach();
  t.start_ += (static_cast<char const*>(v.data) - static_cast<char const*>(read().data)) / size_of(type_);
  t.dims_ = v.dims;
  t.steps_ = v.steps;
  return t;
}

}  // namespace ouro
