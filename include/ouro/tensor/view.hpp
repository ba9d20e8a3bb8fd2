// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Raw strided views: what a backend's primitive operations see. A view owns nothing and may alias another.
#pragma once

#include <cstdint>
#include <type_traits>

#include <ouro/tensor/dtype.hpp>
#include <ouro/tensor/shape.hpp>

namespace ouro {

/// Memory with a dtype, a shape and element strides. `Void` is `void` or `void const`.
template <class Void>
struct basic_view {
  using byte = std::conditional_t<std::is_const_v<Void>, char const, char>;

  Void* data = nullptr;
  dtype type = dtype::f32;
  shape dims;
  shape steps;

  basic_view() = default;
  basic_view(Void* memory, dtype t, shape const& d, shape const& s) : data(memory), type(t), dims(d), steps(s) {}
  basic_view(Void* memory, dtype t, shape const& d) : basic_view(memory, t, d, d.strides()) {}
  /// A mutable view is also a constant one.
  operator basic_view<void const>() const  // NOLINT: implicit on purpose
      requires(!std::is_const_v<Void>) {
    return {data, type, dims, steps};
  }

  /// The first element. Errors (shape): elements of another type.
  template <class T>
  [[nodiscard]] auto* as() const {
    require(type == dtype_of<T>, errc::shape, "view", "elements are ", name_of(type), ", needs ", name_of(dtype_of<T>));
    return static_cast<std::conditional_t<std::is_const_v<Void>, T const, T>*>(data);
  }
  [[nodiscard]] bool empty() const { return data == nullptr; }
  [[nodiscard]] std::int64_t size() const { return dims.size(); }
  [[nodiscard]] bool contiguous() const {
    std::int64_t step = 1;
    for (int i = dims.rank() - 1; i >= 0; --i) {
      if (dims[i] != 1 && steps[i] != step) return false;
      step *= dims[i];
    }
    return true;
  }
  [[nodiscard]] basic_view offset(std::int64_t elements) const {
    basic_view v = *this;
    v.data = static_cast<byte*>(data) + elements * size_of(type);
    return v;
  }
  /// The sub-view [start, start + length) along an axis.
  [[nodiscard]] basic_view slice(int axis, std::int64_t start, std::int64_t length) const {
    basic_view v = offset(start * steps[axis]);
    v.dims[axis] = length;
    return v;
  }
  /// The same elements under another shape; the view must be contiguous.
  [[nodiscard]] basic_view reshape(shape const& d) const { return {data, type, d}; }
  /// Two axes exchanged.
  [[nodiscard]] basic_view transpose(int a, int b) const {
    basic_view v = *this;
    v.dims[a] = dims[b];
    v.dims[b] = dims[a];
    v.steps[a] = steps[b];
    v.steps[b] = steps[a];
    return v;
  }
  /// The elements of an axis in the opposite order: a negative stride.
  [[nodiscard]] basic_view reverse(int axis) const {
    basic_view v = offset((dims[axis] - 1) * steps[axis]);
    v.steps[axis] = -steps[axis];
    return v;
  }
  /// Repeats axes of extent 1 (and adds leading ones) by stride 0, up to `target`.
  [[nodiscard]] basic_view expand(shape const& target) const {
    basic_view v = *this;
    v.dims = target;
    v.steps = target;
    for (int i = 1; i <= target.rank(); ++i) {
      bool const own = i <= dims.rank() && dims[dims.rank() - i] == target[target.rank() - i];
      v.steps[target.rank() - i] = own ? steps[steps.rank() - i] : 0;
    }
    return v;
  }
};

using view = basic_view<void>;
using const_view = basic_view<void const>;

/// Where a primitive writes its result, and whether it adds to what is there. Every gradient goes to one.
struct destination {
  view out;
  bool accumulate = false;
  bool on_branch = false;  ///< whether it may be written by a call on the branch (BranchBackend), and has been before

  destination() = default;
  destination(view v, bool add = false, bool branch = false)  // NOLINT: a plain view is overwritten
      : out(v), accumulate(add), on_branch(branch) {}
  [[nodiscard]] bool wanted() const { return !out.empty(); }
};

}  // namespace ouro
