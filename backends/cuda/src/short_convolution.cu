// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The short causal convolution by columns (contract: ouro/concepts/scans.hpp).
#include "layout.hpp"
#include "scans.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// The rows that are convolved: those of the window, then those of x.
template <class T>
struct convolved {
  scan_rows<T> x, window;
  index taps;

  /// Row e of them; e − (taps − 1) is the row of x.
  __device__ T* at(index n, index e, index c) const {
    return e < taps - 1 ? window.at(n, e, c) : x.at(n, e - (taps - 1), c);
  }
};

template <class T>
struct convolve {
  scan_rows<T> y;
  convolved<T const> in;
  T const* weight;
  T const* bias;
  index rows, columns;
  __device__ void operator()(index i) const {
    index const c = i % columns;
    index const t = i / columns % rows;
    index const n = i / columns / rows;
    T sum = bias[c];
    for (index j = 0; j < in.taps; ++j) sum += weight[c * in.taps + j] * *in.at(n, t + j, c);
    y.put_at(n, t, c, sum);
  }
};

/// The gradient of row e, of the window or of x: it was read by rows e − j.
template <class T>
struct convolve_back {
  convolved<T> to;
  scan_rows<T const> dy;
  T const* weight;
  index rows, columns;
  __device__ void operator()(index i) const {
    index const all = rows + to.taps - 1;
    index const c = i % columns;
    index const e = i / columns % all;
    index const n = i / columns / all;
    bool const early = e < to.taps - 1;
    if ((early ? to.window.data : to.x.data) == nullptr) return;
    T sum = 0;
    for (index j = 0; j < to.taps; ++j)
      if (e - j >= 0 && e - j < rows) sum += weight[c * to.taps + j] * *dy.at(n, e - j, c);
    put(*to.at(n, e, c), sum, early ? to.window.accumulate : to.x.accumulate);
  }
};

/// Terms of dweight for tap j, and of dbias.
template <class T>
struct convolution_terms {
  convolved<T const> in;
  scan_rows<T const> dy;
  index rows, j;
  __device__ void operator()(index r, index c, T (&terms)[2]) const {
    index const n = r / rows;
    index const t = r % rows;
    T const up = *dy.at(n, t, c);
    terms[0] = up * *in.at(n, t + j, c);
    terms[1] = up;
  }
};
template <class T>
struct convolution_sums {
  T* weight;  // (C,K)
  T* bias;
  index taps, j;
  bool weight_adds, bias_adds;
  __device__ void operator()(index c, T const (&sums)[2]) const {
    if (weight != nullptr) put(weight[c * taps + j], sums[0], weight_adds);
    if (bias != nullptr && j == 0) put(bias[c], sums[1], bias_adds);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::short_convolution(view y, short_convolution_operands const& in) {
  with_real(in.x.type, "short_convolution", [&]<class T>(std::type_identity<T>) {
    for_count("short_convolution", in.x.size(),
              convolve<T>{scan_rows_of<T>(destination(y)),
                          {scan_rows_of<T>(in.x), scan_rows_of<T>(in.window), in.weight.dims[1]},
                          in.weight.as<T>(),
                          in.bias.as<T>(),
                          in.x.dims[1],
                          in.x.dims[2]});
  });
}

void cuda::short_convolution_gradient(short_convolution_gradients const& to, short_convolution_operands const& in,
                                      const_view dy) {
  constexpr auto name = "short_convolution_gradient";
  index const taps = in.weight.dims[1];
  index const lanes = in.x.dims[0];
  index const rows = in.x.dims[1];
  index const columns = in.x.dims[2];
  with_real(in.x.type, name, [&]<class T>(std::type_identity<T>) {
    if (to.weight.wanted() || to.bias.wanted())
      for (index j = 0; j < taps; ++j)
        column_sums<T, 2>(name, 1, lanes * rows, columns,
                          convolution_terms<T>{
                              {scan_rows_of<T>(in.x), scan_rows_of<T>(in.window), taps}, scan_rows_of<T>(dy), rows, j},
                          convolution_sums<T>{place_of<T>(to.weight), place_of<T>(to.bias), taps, j,
                                              to.weight.accumulate, to.bias.accumulate});
    if (to.x.wanted() || to.window.wanted())
      for_count(name, lanes * (rows + taps - 1) * columns,
                convolve_back<T>{{scan_rows_of<T>(to.x), scan_rows_of<T>(to.window), taps},
                                 scan_rows_of<T>(dy),
                                 in.weight.as<T>(),
                                 rows,
                                 columns});
  });
}

}  // namespace ouro
