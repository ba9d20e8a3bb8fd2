// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Normalisation of rows: layer norm and unit vectors.
#include "row_sums.hpp"
#include "rows.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

inline constexpr int most_norm_threads = 1024;

template <class T, int Chunks, row_cover Cover>
__global__ void __launch_bounds__(most_norm_threads)
    layer_norm_rows(real_places<T> y, T* mean, T* rstd, reals<T> x, T const* w, T const* b, T eps, index rows,
                    int width) {
  own_columns<Chunks, Cover> const own(width);
  amount<T> const columns(own.template columns_of_warp<T>());
  amount<T> const all(static_cast<T>(width));
  quad<T> next[Chunks];  // the row that comes next is on its way while one is worked on
  auto ask = [&](index r) {
    if (r < rows)
      for (int k = 0; k < own.chunks(); ++k) next[k] = own.fetch(x, r * width, k);
  };
  ask(blockIdx.x);
  quad<T> weight[Chunks];
  quad<T> bias[Chunks];
  for (int k = 0; k < own.chunks(); ++k) {
    weight[k] = own.load(w, 0, k);
    bias[k] = own.load(b, 0, k);
  }
  int slot = 0;
  for (index r = blockIdx.x; r < rows; r += gridDim.x, slot = 1 - slot) {
    quad<T> row[Chunks];
    for (int k = 0; k < own.chunks(); ++k) {
      row[k] = next[k];
      own.widen(x, row[k]);
    }
    ask(r + gridDim.x);
    scatter<T> const part[1] = {
        warp_scatter(columns, [&](auto const& take) { own.each([&](int k, int v) { take(row[k][v]); }); })};
    moments<T> m[1];
    block_moments(m, part, all, eps, slot);
    if (threadIdx.x == 0) {
      mean[r] = m[0].mean;
      rstd[r] = m[0].rstd;
    }
    for (int k = 0; k < own.chunks(); ++k) {
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) row[k][v] = (row[k][v] - m[0].mean) * m[0].rstd * weight[k][v] + bias[k][v];
      own.store(y, r * width, k, row[k]);
    }
  }
}

/// The sums over rows.
enum : int { of_weight, of_bias };

/// Without dx only the sums over rows are taken.
template <class T, int Chunks, row_cover Cover>
__global__ void __launch_bounds__(most_norm_threads)
    layer_norm_slopes(real_places<T> dx, reals<T> x, T const* mean, T const* rstd, T const* w, reals<T> dy, int width,
                      row_shares shares, row_sums<T, 2> sums) {
  own_columns<Chunks, Cover> const own(width);
  quad<T> total[2][Chunks] = {};
  T const inverse = T(1) / static_cast<T>(width);
  index const end = shares.to();
  int slot = 0;
  for (index r = shares.from(); r < end; ++r, slot = 1 - slot) {
    T const mu = mean[r];
    T const s = rstd[r];
    quad<T> standard[Chunks];
    quad<T> slope[Chunks];
    T means[2] = {};
    for (int k = 0; k < own.chunks(); ++k) {
      standard[k] = own.fetch(x, r * width, k);
      slope[k] = own.fetch(dy, r * width, k);
      quad<T> const weight = own.load(w, 0, k);
      own.widen(x, standard[k]);
      own.widen(dy, slope[k]);
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) {
        standard[k][v] = (standard[k][v] - mu) * s;
        total[of_weight][k][v] += slope[k][v] * standard[k][v];
        total[of_bias][k][v] += slope[k][v];
        slope[k][v] *= weight[v];
        means[0] += slope[k][v];
        means[1] += slope[k][v] * standard[k][v];
      }
    }
    if (dx.absent()) continue;
    block_sums(means, slot);
    for (int k = 0; k < own.chunks(); ++k) {
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v)
        slope[k][v] = s * (slope[k][v] - means[0] * inverse - standard[k][v] * (means[1] * inverse));
      own.store(dx, r * width, k, slope[k]);
    }
  }
  OURO_UNROLL
  for (int i = 0; i < 2; ++i)
    for (int k = 0; k < own.chunks(); ++k) sums.leave(i, 0, own, k, total[i][k]);
}

/// f.operator()<Chunks, Cover>() for the kernel that rows of this width need.
template <class F>
void with_norm_form(char const* name, index width, bool whole, F const& f) {
  require(width <= most_chunks * own_width * most_norm_threads, errc::shape, name, "rows of ", width,
          " columns are too wide");
  using enum row_cover;
  if (width > own_width * most_norm_threads) f.template operator()<most_chunks, any>();
  else if (whole && width % (own_width * warp_size) == 0) f.template operator()<1, full>();
  else if (whole && width % own_width == 0) f.template operator()<1, fours>();
  else f.template operator()<1, any>();
}

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
  constexpr auto name = "layer_norm";
  index const rows = x.dims.rows();
  index const width = x.dims.back();
  bool const whole = aligned(y) && aligned(x) && aligned(w) && aligned(b);
  with_real(w.type, name, [&]<class T>(std::type_identity<T>) {
    with_norm_form(name, width, whole, [&]<int Chunks, row_cover Cover>() {
      int const threads = row_threads(width, 1, most_norm_threads);
      constexpr auto kernel = layer_norm_rows<T, Chunks, Cover>;
      launch(name, kernel, row_blocks(kernel, rows, threads), threads, 0, real_places<T>(y), mean.as<T>(), rstd.as<T>(),
             reals<T>(x), w.as<T>(), b.as<T>(), static_cast<T>(eps), rows, width);
    });
  });
}

void cuda::layer_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                               const_view rstd, const_view w, const_view dy) {
  constexpr auto name = "layer_norm_gradient";
  index const rows = x.dims.rows();
  index const width = x.dims.back();
  bool const whole = aligned(dx.out) && aligned(dw.out) && aligned(db.out) && aligned(x) && aligned(w) && aligned(dy);
  with_real(w.type, name, [&]<class T>(std::type_identity<T>) {
    with_norm_form(name, width, whole, [&]<int Chunks, row_cover Cover>() {
      int const threads = row_threads(width, 1, most_norm_threads);
      constexpr auto kernel = layer_norm_slopes<T, Chunks, Cover>;
      auto const shares = share_rows(kernel, threads, rows, rows);
      device_array<T> const parts(shares.blocks() * 2 * width);
      row_sums<T, 2> const sums{
          {{place_of<T>(dw), dw.accumulate, width, 1, 0}, {place_of<T>(db), db.accumulate, width, 1, width}},
          parts.data(),
          2 * width,
          shares.blocks()};
      if (shares.blocks() == 1) join_branch();  // it takes the sums itself
      launch(name, kernel, shares.blocks(), threads, 0, real_places<T>(dx), reals<T>(x), mean.as<T>(), rstd.as<T>(),
             w.as<T>(), reals<T>(dy), width, shares, sums);
      finish(name, sums, all_beside({dw, db}));
    });
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
