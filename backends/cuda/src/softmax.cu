// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Softmax and cross entropy by rows.
#include "rows.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct softmax_rows {
  T* y;
  T const* x;
  index width;
  __device__ void operator()(index r, int lane) const {
    T const* row = x + r * width;
    T const lse = row_log_sum_exp(row, width, lane);
    for (index i = lane; i < width; i += warp_size) y[r * width + i] = std::exp(row[i] - lse);
  }
};

template <class T>
struct softmax_slopes {
  T* dx;
  T const* y;
  T const* dy;
  index width;
  bool accumulate;
  __device__ void operator()(index r, int lane) const {
    T const* p = y + r * width;
    T const* up = dy + r * width;
    T const dot = row_sum<T>(width, lane, [&](index i) { return p[i] * up[i]; });
    for (index i = lane; i < width; i += warp_size) put(dx[r * width + i], p[i] * (up[i] - dot), accumulate);
  }
};

template <class T>
struct cross_entropy_rows {
  T* nll;
  T const* logits;
  std::int32_t const* targets;
  index width;
  __device__ void operator()(index r, int lane) const {
    T const* row = logits + r * width;
    std::int32_t const target = targets[r];
    T const lse = row_log_sum_exp(row, width, lane);
    if (lane == 0) nll[r] = target < 0 ? T(0) : target < width ? lse - row[target] : T(NAN);
  }
};

template <class T>
struct cross_entropy_slopes {
  T* dx;
  T const* logits;
  std::int32_t const* targets;
  T const* dnll;
  index width;
  bool accumulate;
  __device__ void operator()(index r, int lane) const {
    T const* row = logits + r * width;
    std::int32_t const target = targets[r];
    T const lse = row_log_sum_exp(row, width, lane);
    T const up = target < 0 ? T(0) : dnll[r];
    for (index i = lane; i < width; i += warp_size)
      put(dx[r * width + i], up * (std::exp(row[i] - lse) - (i == target ? T(1) : T(0))), accumulate);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::softmax(view y, const_view x) {
  with_real(x.type, "softmax", [&]<class T>(std::type_identity<T>) {
    for_rows("softmax", x.dims.rows(), softmax_rows<T>{y.as<T>(), x.as<T>(), x.dims.back()});
  });
}

void cuda::softmax_gradient(destination dx, const_view y, const_view dy) {
  with_real(y.type, "softmax_gradient", [&]<class T>(std::type_identity<T>) {
    for_rows("softmax_gradient", y.dims.rows(),
             softmax_slopes<T>{dx.out.as<T>(), y.as<T>(), dy.as<T>(), y.dims.back(), dx.accumulate});
  });
}

void cuda::cross_entropy(view nll, const_view logits, const_view targets) {
  with_real(logits.type, "cross_entropy", [&]<class T>(std::type_identity<T>) {
    for_rows("cross_entropy", logits.dims.rows(),
             cross_entropy_rows<T>{nll.as<T>(), logits.as<T>(), targets.as<std::int32_t>(), logits.dims.back()});
  });
}

void cuda::cross_entropy_gradient(destination dlogits, const_view logits, const_view targets, const_view dnll) {
  with_real(logits.type, "cross_entropy_gradient", [&]<class T>(std::type_identity<T>) {
    for_rows("cross_entropy_gradient", logits.dims.rows(),
             cross_entropy_slopes<T>{dlogits.out.as<T>(), logits.as<T>(), targets.as<std::int32_t>(), dnll.as<T>(),
                                     logits.dims.back(), dlogits.accumulate});
  });
}

}  // namespace ouro
