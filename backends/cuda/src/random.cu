// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Random numbers and dropout.
#include <ouro/tensor/normal.hpp>

#include "layout.hpp"
#include "packs.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// A pack of elements, which lie in one Philox block of sixteen bits for each of eight (random_draw::half).
template <int W, class T>
struct drop_values {
  T* y;
  T const* x;
  index size;
  random_draw draw;
  std::uint32_t threshold;
  T factor;
  bool accumulate;
  __device__ void operator()(index number) const {
    index const first = number * W;
    int const count = size - first < W ? static_cast<int>(size - first) : W;
    pack<T, W> const given = load<W>(x + first, count);
    pack<T, W> result;
    if (accumulate) result = load<W>(y + first, count);
    auto const at = static_cast<std::uint64_t>(first);
    auto const words = philox::words(draw.key, draw.site, at / 8);
    std::uint32_t kept = 0;  // a bit for each element of the block: the words stay in registers
    OURO_UNROLL
    for (std::uint32_t e = 0; e < 8; ++e) kept |= (philox::half(words, e) >= threshold ? 1U : 0U) << e;
    kept >>= at % 8;
    OURO_UNROLL
    for (int e = 0; e < W; ++e) {
      put(result.values[e], (kept & 1U) != 0 ? given.values[e] * factor : T(0), accumulate);
      kept >>= 1U;
    }
    store<W>(y + first, result, count);
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
    T* const to = y.out.as<T>();
    T const* const from = x.as<T>();
    with_width<T>(aligned_for(to, pack_width<T>) && aligned_for(from, pack_width<T>), [&]<int W>(width_of<W>) {
      for_count("dropout", divide_up(x.size(), W),
                drop_values<W, T>{to, from, x.size(), draw, mask.threshold, static_cast<T>(mask.factor), y.accumulate});
    });
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
