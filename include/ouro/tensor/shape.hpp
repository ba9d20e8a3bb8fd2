// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Shapes and strides: up to five extents, stored in place.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include <ouro/tensor/error.hpp>

namespace ouro {

inline constexpr int max_rank = 5;

/// A list of at most five extents, outermost first. Negative axes count from the end.
class shape {
 public:
  constexpr shape() = default;
  constexpr shape(std::initializer_list<std::int64_t> dims) {
    require(dims.size() <= static_cast<std::size_t>(max_rank), errc::shape, "shape", "rank is at most 5");
    for (auto d : dims) dims_[rank_++] = d;
  }

  [[nodiscard]] constexpr int rank() const { return rank_; }
  /// Not checked: an axis in −rank .. rank − 1. (tensor::dim() checks.)
  [[nodiscard]] constexpr std::int64_t operator[](int axis) const { return dims_[axis < 0 ? axis + rank_ : axis]; }
  [[nodiscard]] constexpr std::int64_t& operator[](int axis) { return dims_[axis < 0 ? axis + rank_ : axis]; }

  /// The number of elements; 1 for rank 0.
  [[nodiscard]] constexpr std::int64_t size() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  /// The number of rows when the last axis is the row.
  [[nodiscard]] constexpr std::int64_t rows() const {
    std::int64_t n = 1;
    for (int i = 0; i + 1 < rank_; ++i) n *= dims_[i];
    return n;
  }
  [[nodiscard]] constexpr std::int64_t back() const { return rank_ > 0 ? dims_[rank_ - 1] : 1; }
  constexpr void push_back(std::int64_t extent) {
    require(rank_ < max_rank, errc::shape, "shape", "rank is at most 5");
    dims_[rank_++] = extent;
  }
  /// This shape with the extent of one axis replaced.
  [[nodiscard]] constexpr shape with(int axis, std::int64_t extent) const {
    shape s = *this;
    s[axis] = extent;
    return s;
  }
  /// The element strides of a contiguous tensor of this shape.
  [[nodiscard]] constexpr shape strides() const {
    shape s = *this;
    std::int64_t step = 1;
    for (int i = rank_ - 1; i >= 0; --i) {
      s.dims_[i] = step;
      step *= dims_[i];
    }
    return s;
  }
  [[nodiscard]] std::string str() const {
    std::string s = "(";
    for (int i = 0; i < rank_; ++i) {
      if (i > 0) s += ',';
      s += std::to_string(dims_[i]);
    }
    s += ')';
    return s;
  }
  friend constexpr bool operator==(shape const& a, shape const& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.dims_[i] != b.dims_[i]) return false;
    return true;
  }

 private:
  std::int64_t dims_[max_rank] = {};
  int rank_ = 0;
};

/// An axis of a shape, counted from the first. Errors (shape): there is no such axis.
inline int axis_of(shape const& dims, int axis, char const* where) {
  require(axis < dims.rank() && axis >= -dims.rank(), errc::shape, where, "no axis ", axis, " in shape ", dims);
  return axis < 0 ? axis + dims.rank() : axis;
}

/// The shape two operands broadcast to (sizes agree or one of them is 1, aligned at the last axis).
inline shape broadcast(shape const& a, shape const& b, char const* where) {
  int const rank = a.rank() > b.rank() ? a.rank() : b.rank();
  shape out;
  for (int i = 0; i < rank; ++i) out.push_back(1);
  for (int i = 1; i <= rank; ++i) {
    std::int64_t const x = i <= a.rank() ? a[a.rank() - i] : 1;
    std::int64_t const y = i <= b.rank() ? b[b.rank() - i] : 1;
    require(x == y || x == 1 || y == 1, errc::shape, where, "shapes must broadcast, got ", a, " and ", b);
    out[rank - i] = x == 1 ? y : x;
  }
  return out;
}

}  // namespace ouro
