// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Random numbers and dropout.
#include <ouro/tensor/normal.hpp>

#include "layout.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// Eight elements from the sixteen bits each of one Philox block (random_draw::half).
template <class T>
struct drop_values {
  T* y;
  T const* x;
  index size;
  random_draw draw;
  std::uint32_t threshold;
  T factor;
  bool accumulate;
  __device__ void operator()(index group) const {
    auto const words = philox::words(draw.key, draw.site, static_cast<std::uint64_t>(group));
    OURO_UNROLL
    for (int e = 0; e < 8; ++e) {
      index const i = 8 * group + e;
      bool const kept = philox::half(words, static_cast<std::uint64_t>(e)) >= threshold;
      if (i < size) put(y[i], kept ? x[i] * factor : T(0), accumulate);
    }
  }
};

template <class T>
struct normal_values {
  T* y;
  random_draw draw;
  __device__ void operator()(index i) const {
    y[i] = static_cast<T>(standard_normal(draw, static_cast<std::uint64_t>(i)));
  }
};

template <class T>
struct uniform_values {
  T* y;
  random_draw draw;
  double low;
  double range;
  __device__ void operator()(index i) const {
    y[i] = static_cast<T>(low + range * draw.uniform(static_cast<std::uint64_t>(i)));
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::dropout(destination y, const_view x, double rate, random_draw draw) {
  dropout_mask const mask(rate);
  with_real(x.type, "dropout", [&]<class T>(std::type_identity<T>) {
    for_count("dropout", divide_up(x.size(), 8),
              drop_values<T>{y.out.as<T>(), x.as<T>(), x.size(), draw, mask.threshold, static_cast<T>(mask.factor),
                             y.accumulate});
  });
}

void cuda::normal(view y, random_draw draw) {
  with_real(y.type, "normal", [&]<class T>(std::type_identity<T>) {
    for_count("normal", y.size(), normal_values<T>{y.as<T>(), draw});
  });
}

void cuda::uniform(view y, random_draw draw, double low, double high) {
  with_real(y.type, "uniform", [&]<class T>(std::type_identity<T>) {
    for_count("uniform", y.size(), uniform_values<T>{y.as<T>(), draw, low, high - low});
  });
}

}  // namespace ouro
