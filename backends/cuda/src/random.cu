// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Random numbers and dropout.
#include <ouro/tensor/normal.hpp>

#include "kept_bits.hpp"
#include "layout.hpp"
#include "packs.hpp"
#include "rows.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// A lane has eight neighbours, in packs of W: the mask of 32 is drawn by the four lanes that have them.
template <int W, class S>
struct dropped_eights {
  static constexpr int packs = 8 / W;
  static constexpr index together = warp_size * 8;  // elements of a warp
  using real = real_of<S>;
  using operand = elements<S, void const>;
  elements<S, void> y;
  operand before;  // what is added to
  operand x;
  index size;
  kept_bits kept;
  real factor;
  bool accumulate;

  __device__ void operator()(index run, int lane) const {
    index const first = run * together + lane * 8;
    auto count = [&](int p) { return size - (first + p * W) < W ? static_cast<int>(size - (first + p * W)) : W; };
    typename operand::template raw<W> loaded[packs];
    typename operand::template raw<W> old[packs];
    OURO_UNROLL
    for (int p = 0; p < packs; ++p) {
      if (first + p * W >= size) continue;
      loaded[p] = x.template load_raw<W>(first + p * W, count(p));
      if (accumulate) old[p] = before.template load_raw<W>(first + p * W, count(p));
    }
    std::uint32_t bits = kept.of_four(static_cast<std::uint64_t>(first) / 32) >> lane % 4 * 8;
    OURO_UNROLL
    for (int p = 0; p < packs; ++p) {
      if (first + p * W >= size) continue;
      auto const given = x.template reals<W>(loaded[p]);
      auto result = before.template reals<W>(old[p]);
      OURO_UNROLL
      for (int e = 0; e < W; ++e) {
        put(result.values[e], (bits & 1U) != 0 ? given.values[e] * factor : real(0), accumulate);
        bits >>= 1U;
      }
      y.template store_reals<W>(first + p * W, result, count(p));
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

namespace {
void drop(view const& y, const_view const& before, bool adds, const_view const& x, double rate, random_draw draw) {
  dropout_mask const mask(rate);
  with_inner(x.type, "dropout", [&]<class S>(std::type_identity<S>) {
    elements<S, void> const to(y);
    elements<S, void const> const old(before);
    elements<S, void const> const from(x);
    constexpr int width = std::is_same_v<S, inner> ? 8 : pack_width<S>;
    auto launch_packs = [&]<int W>(width_of<W>) {
      using eights = dropped_eights<W, S>;
      for_rows("dropout", divide_up(x.size(), eights::together),
               eights{to, old, from, x.size(), kept_bits(mask, draw), static_cast<real_of<S>>(mask.factor), adds});
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
