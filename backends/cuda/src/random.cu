// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Random numbers, dropout, and the optimiser's update.
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

template <class T>
struct adamw_values {
  T* p;
  T* m;
  T* v;
  T const* g;
  T gradient_scale, beta1, rest1, beta2, rest2, correction1, correction2, epsilon, rate, decay;
  __device__ void operator()(index i) const {
    T const d = g[i] * gradient_scale;
    T const first = beta1 * m[i] + rest1 * d;
    T const second = beta2 * v[i] + rest2 * d * d;
    m[i] = first;
    v[i] = second;
    T const value = p[i] - decay * p[i];
    p[i] = value - rate * (first / correction1) / (std::sqrt(second / correction2) + epsilon);
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

void cuda::adamw(view p, view m, view v, const_view g, adamw_step const& s) {
  with_real(p.type, "adamw", [&]<class T>(std::type_identity<T>) {
    auto t = [](double x) { return static_cast<T>(x); };
    for_count("adamw", p.size(),
              adamw_values<T>{p.as<T>(), m.as<T>(), v.as<T>(), g.as<T>(), t(s.gradient_scale), t(s.beta1),
                              t(1 - s.beta1), t(s.beta2), t(1 - s.beta2), t(s.correction1), t(s.correction2),
                              t(s.epsilon), t(s.learning_rate), t(s.learning_rate * s.weight_decay)});
  });
}

}  // namespace ouro
