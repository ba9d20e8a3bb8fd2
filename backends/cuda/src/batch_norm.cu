// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Normalisation of columns by the batch's own statistics.
#include "layout.hpp"
#include "packs.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// Rows as they are stored, and one number of them.
template <class T>
struct stored_columns {
  elements<stored_beside<T>, void const> x;
  index width;
  [[nodiscard]] __device__ T at(index r, index c) const {
    return x.template reals<1>(x.template load_raw<1>(r * width + c)).values[0];
  }
};

template <class T>
struct column_values {
  stored_columns<T> x;
  __device__ void operator()(index r, index c, T (&terms)[1]) const { terms[0] = x.at(r, c); }
};
template <class T>
struct column_deviations {
  stored_columns<T> x;
  T const* mean;
  __device__ void operator()(index r, index c, T (&terms)[1]) const {
    T const d = x.at(r, c) - mean[c];
    terms[0] = d * d;
  }
};
template <class T>
struct column_mean {
  T* to;
  T rows;
  __device__ void operator()(index c, T const (&sums)[1]) const { to[c] = sums[0] / rows; }
};

/// The columns of packs of W in row-major order.
template <int W>
struct pack_columns {
  index packs;  // of a row
  divider rows;

  explicit pack_columns(index width) : packs(width / W), rows(packs) {}
  /// The first column of pack i. One element at a time there may be more of them than a divider can take.
  __device__ index operator()(index i) const {
    if constexpr (W == 1) return i % packs;
    return (i - rows(static_cast<std::uint32_t>(i)) * packs) * W;
  }
};

/// Whether rows are made of whole packs that can be numbered.
template <class T>
bool in_packs(const_view const& x) {
  return x.dims.back() % pack_width<T> == 0 && x.size() / pack_width<T> <= most_located;
}

template <int W, class T>
struct batch_norm_values {
  elements<stored_beside<T>, void> y;
  elements<stored_beside<T>, void const> x;
  T const* mean;
  T const* variance;
  T const* w;
  T const* b;
  T eps;
  pack_columns<W> columns;
  __device__ void operator()(index i) const {
    index const c = columns(i);
    pack<T, W> p = x.template reals<W>(x.template load_raw<W>(i * W));
    auto const mu = load<W>(mean + c), var = load<W>(variance + c), weight = load<W>(w + c), bias = load<W>(b + c);
    OURO_UNROLL
    for (int e = 0; e < W; ++e)
      p.values[e] = (p.values[e] - mu.values[e]) * (weight.values[e] / std::sqrt(var.values[e] + eps)) + bias.values[e];
    y.template store_reals<W>(i * W, p);
  }
};

/// Of dy and of dy times the deviation, which is divided by the standard deviation when it is summed.
template <class T>
struct batch_norm_terms {
  stored_columns<T> x;
  T const* mean;
  stored_columns<T> dy;
  __device__ void operator()(index r, index c, T (&terms)[2]) const {
    T const up = dy.at(r, c);
    terms[0] = up * (x.at(r, c) - mean[c]);
    terms[1] = up;
  }
};

/// The two sums are wanted twice: by dx, and by the gradients of weight and bias.
template <class T>
struct batch_norm_sums {
  T* kept;  // (2, width)
  to_places<T, 2> to;
  T const* variance;
  T eps;
  index width;
  __device__ void operator()(index c, T const (&sums)[2]) const {
    T const both[2] = {sums[0] / std::sqrt(variance[c] + eps), sums[1]};
    kept[c] = both[0];
    kept[width + c] = both[1];
    to(c, both);
  }
};

template <int W, class T>
struct batch_norm_slopes {
  elements<stored_beside<T>, void> dx;
  elements<stored_beside<T>, void const> x;
  T const* mean;
  T const* variance;
  T const* w;
  elements<stored_beside<T>, void const> dy;
  T const* sums;
  T eps;
  T rows;
  index width;
  pack_columns<W> columns;
  bool accumulate;
  __device__ void operator()(index i) const {
    index const c = columns(i);
    auto const p = x.template reals<W>(x.template load_raw<W>(i * W));
    auto const up = dy.template reals<W>(dy.template load_raw<W>(i * W));
    auto const mu = load<W>(mean + c), var = load<W>(variance + c), weight = load<W>(w + c);
    auto const along = load<W>(sums + c), all = load<W>(sums + width + c);
    pack<T, W> d;
    if (accumulate) d = dx.template reals<W>(dx.template load_raw<W>(i * W));
    OURO_UNROLL
    for (int e = 0; e < W; ++e) {
      T const s = T(1) / std::sqrt(var.values[e] + eps);
      T const xhat = (p.values[e] - mu.values[e]) * s;
      put(d.values[e], weight.values[e] * s * (up.values[e] - (all.values[e] + xhat * along.values[e]) / rows),
          accumulate);
    }
    dx.template store_reals<W>(i * W, d);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::column_moments(view mean, view variance, const_view x) {
  index const rows = x.dims.rows();
  index const width = x.dims.back();
  with_real(mean.type, "column_moments", [&]<class T>(std::type_identity<T>) {
    auto const count = static_cast<T>(rows);
    stored_columns<T> const from{elements<stored_beside<T>, void const>(x), width};
    column_sums<T, 1>("column_moments", 1, rows, width, column_values<T>{from}, column_mean<T>{mean.as<T>(), count});
    column_sums<T, 1>("column_moments", 1, rows, width, column_deviations<T>{from, mean.as<T>()},
                      column_mean<T>{variance.as<T>(), count});
  });
}

void cuda::batch_norm(view y, view mean, view variance, const_view x, const_view w, const_view b, double eps) {
  column_moments(mean, variance, x);
  index const width = x.dims.back();
  with_real(w.type, "batch_norm", [&]<class T>(std::type_identity<T>) {
    elements<stored_beside<T>, void> const to(y);
    elements<stored_beside<T>, void const> const from(x);
    bool const packed = in_packs<T>(x) && to.aligned(pack_width<T>) && from.aligned(pack_width<T>) &&
                        packs_fit(mean.as<T>(), variance.as<T>(), w.as<T>(), b.as<T>());
    with_width<T>(packed, [&]<int W>(width_of<W>) {
      for_count("batch_norm", x.size() / W,
                batch_norm_values<W, T>{to, from, mean.as<T>(), variance.as<T>(), w.as<T>(), b.as<T>(),
                                        static_cast<T>(eps), pack_columns<W>(width)});
    });
  });
}

void cuda::batch_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                               const_view variance, const_view w, const_view dy, double eps) {
  index const rows = x.dims.rows();
  index const width = x.dims.back();
  with_real(w.type, "batch_norm_gradient", [&]<class T>(std::type_identity<T>) {
    auto const e = static_cast<T>(eps);
    elements<stored_beside<T>, void const> const from(x);
    elements<stored_beside<T>, void const> const up(dy);
    device_array<T> const sums(2 * width);
    column_sums<T, 2>("batch_norm_gradient", 1, rows, width,
                      batch_norm_terms<T>{{from, width}, mean.as<T>(), {up, width}},
                      batch_norm_sums<T>{sums.data(),
                                         {{place_of<T>(dw), place_of<T>(db)}, {dw.accumulate, db.accumulate}},
                                         variance.as<T>(),
                                         e,
                                         width});
    if (!dx.wanted()) return;
    elements<stored_beside<T>, void> const to(dx.out);
    bool const packed = in_packs<T>(x) && to.aligned(pack_width<T>) && from.aligned(pack_width<T>) &&
                        up.aligned(pack_width<T>) && packs_fit(mean.as<T>(), variance.as<T>(), w.as<T>());
    with_width<T>(packed, [&]<int W>(width_of<W>) {
      for_count("batch_norm_gradient", x.size() / W,
                batch_norm_slopes<W, T>{to, from, mean.as<T>(), variance.as<T>(), w.as<T>(), up, sums.data(), e,
                                        static_cast<T>(rows), width, pack_columns<W>(width), dx.accumulate});
    });
  });
}

}  // namespace ouro
