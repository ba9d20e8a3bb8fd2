// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Values stored in bf16 for what computes in f32 only: copies of operands before, and of results after.
#pragma once

#include <optional>

#include "device.hpp"

namespace ouro::cuda_kernels {

/// A view in f32 of values that may be stored in bf16: then of a copy.
class f32_values {
 public:
  explicit f32_values(const_view const& v) : values_(v) {
    if (v.type != dtype::bf16) return;
    memory_.emplace(v.size());
    view const copy(memory_->data(), dtype::f32, v.dims);
    cuda::copy(copy, v, false);
    values_ = copy;
  }
  [[nodiscard]] const_view const& get() const { return values_; }

 private:
  std::optional<device_array<float>> memory_;
  const_view values_;
};
/// Where a result goes in f32: to its destination or, where that is stored in bf16, to memory from which `finish` takes it.
class f32_result {
 public:
  explicit f32_result(destination const& d) : to_(d), last_(d) {
    if (!d.wanted() || d.out.type != dtype::bf16) return;
    memory_.emplace(d.out.size());
    to_ = view(memory_->data(), dtype::f32, d.out.dims);
  }
  [[nodiscard]] destination const& get() const { return to_; }
  void finish() const {
    if (memory_) cuda::copy(last_.out, to_.out, last_.accumulate);
  }

 private:
  std::optional<device_array<float>> memory_;
  destination to_;
  destination last_;
};

}  // namespace ouro::cuda_kernels
