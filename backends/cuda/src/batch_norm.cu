// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Normalisation of columns by the batch's own statistics.
#include "layout.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct column_values {
  T const* x;
  index width;
  __device__ void operator()(index r, index c, T (&terms)[1]) const { terms[0] = x[r * width + c]; }
};
template <class T>
struct column_deviations {
  T const* x;
  T const* mean;
  index width;
  __device__ void operator()(index r, index c, T (&terms)[1]) const {
    T const d = x[r * width + c] - mean[c];
    terms[0] = d * d;
  }
};
template <class T>
struct column_mean {
  T* to;
  T rows;
  __device__ void operator()(index c, T const (&sums)[1]) const { to[c] = sums[0] / rows; }
};

template <class T>
struct batch_norm_values {
  T* y;
  T const* mean;
  T const* variance;
  T const* x;
  T const* w;
  T const* b;
  T eps;
  index width;
  __device__ void operator()(index i) const {
    index const c = i % width;
    y[i] = (x[i] - mean[c]) * (w[c] / std::sqrt(variance[c] + eps)) + b[c];
  }
};

template <class T>
struct batch_norm_terms {
  T const* x;
  T const* mean;
  T const* variance;
  T const* dy;
  T eps;
  index width;
  __device__ void operator()(index r, index c, T (&terms)[2]) const {
    T const up = dy[r * width + c];
    terms[0] = up * ((x[r * width + c] - mean[c]) / std::sqrt(variance[c] + eps));
    terms[1] = up;
  }
};

/// The two sums are wanted twice: by dx, and by the gradients of weight and bias.
template <class T>
struct batch_norm_sums {
  T* kept;  // (2, width)
  to_places<T, 2> to;
  index width;
  __device__ void operator()(index c, T const (&sums)[2]) const {
    kept[c] = sums[0];
    kept[width + c] = sums[1];
    to(c, sums);
  }
};

template <class T>
struct batch_norm_slopes {
  T* dx;
  T const* x;
  T const* mean;
  T const* variance;
  T const* w;
  T const* dy;
  T const* sums;
  T eps;
  T rows;
  index width;
  bool accumulate;
  __device__ void operator()(index i) const {
    index const c = i % width;
    T const s = T(1) / std::sqrt(variance[c] + eps);
    T const xhat = (x[i] - mean[c]) * s;
    put(dx[i], w[c] * s * (dy[i] - (sums[width + c] + xhat * sums[c]) / rows), accumulate);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::column_moments(view mean, view variance, const_view x) {
  index const rows = x.dims.rows();
  index const width = x.dims.back();
  with_real(x.type, "column_moments", [&]<class T>(std::type_identity<T>) {
    auto const count = static_cast<T>(rows);
    column_sums<T, 1>("column_moments", 1, rows, width, column_values<T>{x.as<T>(), width},
                      column_mean<T>{mean.as<T>(), count});
    column_sums<T, 1>("column_moments", 1, rows, width, column_deviations<T>{x.as<T>(), mean.as<T>(), width},
                      column_mean<T>{variance.as<T>(), count});
  });
}

void cuda::batch_norm(view y, view mean, view variance, const_view x, const_view w, const_view b, double eps) {
  column_moments(mean, variance, x);
  index const width = x.dims.back();
  with_real(x.type, "batch_norm", [&]<class T>(std::type_identity<T>) {
    for_count("batch_norm", x.size(),
              batch_norm_values<T>{y.as<T>(), mean.as<T>(), variance.as<T>(), x.as<T>(), w.as<T>(), b.as<T>(),
                                   static_cast<T>(eps), width});
  });
}

void cuda::batch_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                               const_view variance, const_view w, const_view dy, double eps) {
  index const rows = x.dims.rows();
  index const width = x.dims.back();
  with_real(x.type, "batch_norm_gradient", [&]<class T>(std::type_identity<T>) {
    auto const e = static_cast<T>(eps);
    device_array<T> const sums(2 * width);
    column_sums<T, 2>(
        "batch_norm_gradient", 1, rows, width,
        batch_norm_terms<T>{x.as<T>(), mean.as<T>(), variance.as<T>(), dy.as<T>(), e, width},
        batch_norm_sums<T>{sums.data(), {{place_of<T>(dw), place_of<T>(db)}, {dw.accumulate, db.accumulate}}, width});
    if (dx.wanted())
      for_count("batch_norm_gradient", x.size(),
                batch_norm_slopes<T>{dx.out.as<T>(), x.as<T>(), mean.as<T>(), variance.as<T>(), w.as<T>(), dy.as<T>(),
                                     sums.data(), e, static_cast<T>(rows), width, dx.accumulate});
  });
}

}  // namespace ouro
