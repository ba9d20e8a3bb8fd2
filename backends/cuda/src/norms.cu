// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Normalisation of rows: layer norm and unit vectors.
#include "rows.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct layer_norm_rows {
  T* y;
  T* mean;
  T* rstd;
  T const* x;
  T const* w;
  T const* b;
  T eps;
  index width;
  __device__ void operator()(index r, int lane) const {
    T const* row = x + r * width;
    auto const m = row_moments<T>(width, lane, eps, [&](index i) { return row[i]; });
    if (lane == 0) {
      mean[r] = m.mean;
      rstd[r] = m.rstd;
    }
    for (index i = lane; i < width; i += warp_size) y[r * width + i] = (row[i] - m.mean) * m.rstd * w[i] + b[i];
  }
};

template <class T>
struct layer_norm_slopes {
  T* dx;
  T const* x;
  T const* mean;
  T const* rstd;
  T const* w;
  T const* dy;
  index width;
  bool accumulate;
  __device__ void operator()(index r, int lane) const {
    T const* row = x + r * width;
    T const* up = dy + r * width;
    T const mu = mean[r];
    T const s = rstd[r];
    T const inverse = T(1) / static_cast<T>(width);
    T const sum = row_sum<T>(width, lane, [&](index i) { return up[i] * w[i]; }) * inverse;
    T const dot = row_sum<T>(width, lane, [&](index i) { return up[i] * w[i] * ((row[i] - mu) * s); }) * inverse;
    for (index i = lane; i < width; i += warp_size)
      put(dx[r * width + i], s * (up[i] * w[i] - sum - (row[i] - mu) * s * dot), accumulate);
  }
};

/// Terms of dweight and dbias.
template <class T>
struct layer_norm_terms {
  T const* x;
  T const* mean;
  T const* rstd;
  T const* dy;
  index width;
  __device__ void operator()(index r, index c, T (&terms)[2]) const {
    T const up = dy[r * width + c];
    terms[0] = up * ((x[r * width + c] - mean[r]) * rstd[r]);
    terms[1] = up;
  }
};

template <class T>
struct unit_rows {
  T* y;
  T* norm;
  T const* x;
  T eps;
  index width;
  __device__ void operator()(index r, int lane) const {
    T const* row = x + r * width;
    T const n = std::sqrt(row_sum<T>(width, lane, [&](index i) { return row[i] * row[i]; }));
    if (lane == 0) norm[r] = n;
    for (index i = lane; i < width; i += warp_size) y[r * width + i] = row[i] / (n > eps ? n : eps);
  }
};

template <class T>
struct unit_slopes {
  T* dx;
  T const* y;
  T const* norm;
  T const* dy;
  T eps;
  index width;
  bool accumulate;
  __device__ void operator()(index r, int lane) const {
    T const* row = y + r * width;
    T const* up = dy + r * width;
    T const n = norm[r];
    T dot = row_sum<T>(width, lane, [&](index i) { return row[i] * up[i]; });
    if (!(n > eps)) dot = 0;  // there y is x / eps
    for (index i = lane; i < width; i += warp_size)
      put(dx[r * width + i], (up[i] - row[i] * dot) / (n > eps ? n : eps), accumulate);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::layer_norm(view y, view mean, view rstd, const_view x, const_view w, const_view b, double eps) {
  with_real(x.type, "layer_norm", [&]<class T>(std::type_identity<T>) {
    for_rows("layer_norm", x.dims.rows(),
             layer_norm_rows<T>{y.as<T>(), mean.as<T>(), rstd.as<T>(), x.as<T>(), w.as<T>(), b.as<T>(),
                                static_cast<T>(eps), x.dims.back()});
  });
}

void cuda::layer_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                               const_view rstd, const_view w, const_view dy) {
  index const rows = x.dims.rows();
  index const width = x.dims.back();
  with_real(x.type, "layer_norm_gradient", [&]<class T>(std::type_identity<T>) {
    if (dx.wanted())
      for_rows("layer_norm_gradient", rows,
               layer_norm_slopes<T>{dx.out.as<T>(), x.as<T>(), mean.as<T>(), rstd.as<T>(), w.as<T>(), dy.as<T>(), width,
                                    dx.accumulate});
    if (dw.wanted() || db.wanted())
      column_sums<T, 2>("layer_norm_gradient", 1, rows, width,
                        layer_norm_terms<T>{x.as<T>(), mean.as<T>(), rstd.as<T>(), dy.as<T>(), width},
                        to_places<T, 2>{{place_of<T>(dw), place_of<T>(db)}, {dw.accumulate, db.accumulate}});
  });
}

void cuda::unit(view y, view norm, const_view x, double eps) {
  with_real(x.type, "unit", [&]<class T>(std::type_identity<T>) {
    for_rows("unit", x.dims.rows(),
             unit_rows<T>{y.as<T>(), norm.as<T>(), x.as<T>(), static_cast<T>(eps), x.dims.back()});
  });
}

void cuda::unit_gradient(destination dx, const_view y, const_view norm, const_view dy, double eps) {
  with_real(y.type, "unit_gradient", [&]<class T>(std::type_identity<T>) {
    for_rows("unit_gradient", y.dims.rows(),
             unit_slopes<T>{dx.out.as<T>(), y.as<T>(), norm.as<T>(), dy.as<T>(), static_cast<T>(eps), y.dims.back(),
                            dx.accumulate});
  });
}

}  // namespace ouro
