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
template <int W, class S>
struct drop_values {
  using real = real_of<S>;
  elements<S, void> y;
  elements<S, void const> before;  // what is added to
  elements<S, void const> x;
  index size;
  random_draw draw;
  std::uint32_t threshold;
  real factor;
  bool accumulate;
  __device__ void operator()(index number) const {
    index const first = number * W;
    int const count = size - first < W ? static_cast<int>(size - first) : W;
    auto const loaded = x.template load_raw<W>(first, count);
    typename elements<S, void const>::template raw<W> old;
    if (accumulate) old = before.template load_raw<W>(first, count);
    auto const at = static_cast<std::uint64_t>(first);
    auto const words = philox::mask_words(draw.key, draw.site, at / 8);
    std::uint32_t kept = 0;  // a bit for each element of the block: the words stay in registers
    OURO_UNROLL
    for (std::uint32_t e = 0; e < 8; ++e) kept |= (philox::half(words, e) >= threshold ? 1U : 0U) << e;
    kept >>= at % 8;
    auto const given = x.template reals<W>(loaded);
    auto result = before.template reals<W>(old);
    OURO_UNROLL
    for (int e = 0; e < W; ++e) {
      put(result.values[e], (kept & 1U) != 0 ? given.values[e] * factor : real(0), accumulate);
      kept >>= 1U;
    }
    y.template store_reals<W>(first, result, count);
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

namespace {
void drop(view const& y, const_view const& before, bool adds, const_view const& x, double rate, random_draw draw) {
  dropout_mask const mask(rate);
  with_inner(x.type, "dropout", [&]<class S>(std::type_identity<S>) {
    elements<S, void> const to(y);
    elements<S, void const> const old(before);
    elements<S, void const> const from(x);
    // A Philox block is the most of the work: where packs are loaded, all of it is used.
    constexpr int width = std::is_same_v<S, inner> ? 8 : pack_width<S>;
    auto launch_packs = [&]<int W>(width_of<W>) {
      for_count(
          "dropout", divide_up(x.size(), W),
          drop_values<W, S>{to, old, from, x.size(), draw, mask.threshold, static_cast<real_of<S>>(mask.factor), adds});
    };
    if (to.aligned(width) && old.aligned(width) && from.aligned(width)) launch_packs(width_of<width>{});
    else launch_packs(width_of<1>{});
  });
}
}  // namespace

void cuda::dropout(destination y, const_view x, double rate, random_draw draw) {
  drop(y.out, y.out, y.accumulate, x, rate, draw);
}
void cuda::add_dropped(view y, const_view x, const_view f, double rate, random_draw draw) {
  drop(y, x, true, f, rate, draw);
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
