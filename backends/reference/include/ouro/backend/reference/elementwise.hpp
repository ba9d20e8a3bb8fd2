// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Reference primitives that act element by element, and reductions over axes.
#pragma once

#include <cmath>
#include <cstdint>

#include <ouro/backend/reference/loops.hpp>
#include <ouro/concepts/backend.hpp>
#include <ouro/tensor/normal.hpp>

namespace ouro::reference_kernels {

using reference_loops::for_each;
using reference_loops::put;

template <class T>
T evaluate(unary f, T x) {
  switch (f) {
    case unary::gelu: return T(0.5) * x * (T(1) + std::erf(x * T(0.70710678118654752440)));
    case unary::tanh: return std::tanh(x);
    case unary::sigmoid: return T(1) / (T(1) + std::exp(-x));
    case unary::silu: return x / (T(1) + std::exp(-x));
    case unary::exp: return std::exp(x);
    case unary::square: return x * x;
    case unary::square_root: return std::sqrt(x);
    case unary::softplus: return x > T(20) ? x : (x > T(0) ? x : T(0)) + std::log1p(std::exp(-std::abs(x)));
    case unary::log: return std::log(x);
    case unary::relu: return x > T(0) ? x : x * T(0);  // what is no number stays none
  }
  return x;
}

/// The derivative, from x or (see gradient_from_result) from y.
template <class T>
T derivative(unary f, T s) {
  switch (f) {
    case unary::gelu: {
      T const cdf = T(0.5) * (T(1) + std::erf(s * T(0.70710678118654752440)));
      return cdf + s * T(0.39894228040143267794) * std::exp(T(-0.5) * s * s);
    }
    case unary::tanh: return T(1) - s * s;
    case unary::sigmoid: return s * (T(1) - s);
    case unary::silu: {
      T const g = T(1) / (T(1) + std::exp(-s));
      return g * (T(1) + s * (T(1) - g));
    }
    case unary::exp: return s;
    case unary::square: return T(2) * s;
    case unary::square_root: return T(0.5) / s;
    case unary::softplus: return s > T(20) ? T(1) : T(1) / (T(1) + std::exp(-s));
    case unary::log: return T(1) / s;
    case unary::relu: return s > T(0) ? T(1) : T(0);
  }
  return T(1);
}

struct elementwise {
  static void fill(view v, double value) {
    with_any(v.type, [&]<class T>(std::type_identity<T>) {
      for_each(v.dims, v.steps, v.steps, v.steps,
               [p = v.as<T>(), value](auto i, auto, auto) { p[i] = static_cast<T>(value); });
    });
  }

  static void copy(view to, const_view from, bool accumulate) {
    with_any(to.type, [&]<class T>(std::type_identity<T>) {
      with_any(from.type, [&]<class S>(std::type_identity<S>) {
        for_each(to.dims, to.steps, from.steps, from.steps, [&](auto i, auto j, auto) {
          if (accumulate) {
            to.as<T>()[i] = static_cast<T>(static_cast<double>(to.as<T>()[i]) + static_cast<double>(from.as<S>()[j]));
          } else {
            to.as<T>()[i] = static_cast<T>(from.as<S>()[j]);
          }
        });
      });
    });
  }
  static void upload(view to, const_view host) { copy(to, host, false); }
  static void download(view host, const_view from) { copy(host, from, false); }

  static void scale(destination y, const_view x, double factor) {
    with_real(x.type, "scale", [&]<class T>(std::type_identity<T>) {
      for_each(y.out.dims, y.out.steps, x.steps, x.steps, [&](auto i, auto j, auto) {
        put(y.out.as<T>()[i], static_cast<T>(factor) * x.as<T>()[j], y.accumulate);
      });
    });
  }

  static void map(unary f, view y, const_view x) {
    with_real(x.type, "map", [&]<class T>(std::type_identity<T>) {
      for_each(y.dims, y.steps, x.steps, x.steps,
               [&](auto i, auto j, auto) { y.as<T>()[i] = evaluate<T>(f, x.as<T>()[j]); });
    });
  }

  static void map_gradient(unary f, destination dx, const_view saved, const_view dy) {
    with_real(dy.type, "map_gradient", [&]<class T>(std::type_identity<T>) {
      for_each(dy.dims, dx.out.steps, saved.steps, dy.steps, [&](auto i, auto j, auto k) {
        put(dx.out.as<T>()[i], derivative<T>(f, saved.as<T>()[j]) * dy.as<T>()[k], dx.accumulate);
      });
    });
  }

  static void combine(binary f, destination c, const_view a, const_view b) {
    with_real(a.type, "combine", [&]<class T>(std::type_identity<T>) {
      for_each(c.out.dims, c.out.steps, a.steps, b.steps, [&](auto i, auto j, auto k) {
        T const x = a.as<T>()[j];
        T const y = b.as<T>()[k];
        T const r = f == binary::add ? x + y : f == binary::subtract ? x - y : f == binary::multiply ? x * y : x / y;
        put(c.out.as<T>()[i], r, c.accumulate);
      });
    });
  }

  /// Accumulates in f64.
  static void reduce_sum(destination y, const_view x, double factor) {
    with_real(x.type, "reduce_sum", [&]<class T>(std::type_identity<T>) {
      shape kept = y.out.dims;
      shape summed = x.dims;
      shape none = x.steps;
      for (int i = 0; i < x.dims.rank(); ++i) {
        if (y.out.dims[i] != 1 || x.dims[i] == 1) summed[i] = 1;
        none[i] = 0;
      }
      for_each(kept, y.out.steps, x.steps, x.steps, [&](auto i, auto j, auto) {
        double sum = 0;
        for_each(summed, x.steps, none, none,
                 [&](auto k, auto, auto) { sum += static_cast<double>(x.as<T>()[j + k]); });
        put(y.out.as<T>()[i], static_cast<T>(factor * sum), y.accumulate);
      });
    });
  }

  static void scale_by(destination const* places, const_view const* list, std::size_t count, const_view factor) {
    with_real(factor.type, "scale_by", [&]<class T>(std::type_identity<T>) {
      for (std::size_t k = 0; k < count; ++k)
        for (std::int64_t i = 0; places[k].wanted() && i < list[k].size(); ++i)
          put(places[k].out.as<T>()[i], *factor.as<T>() * list[k].as<T>()[i], places[k].accumulate);
    });
  }
  static void sum_of_squares(view y, const_view const* list, std::size_t count) {
    double sum = 0;
    for (std::size_t k = 0; k < count; ++k)
      with_real(list[k].type, "sum_of_squares", [&]<class T>(std::type_identity<T>) {
        for (std::int64_t i = 0; i < list[k].size(); ++i) {
          auto const v = static_cast<double>(list[k].as<T>()[i]);
          sum += v * v;
        }
      });
    *y.as<double>() = sum;
  }

  static void dropout(destination y, const_view x, double rate, random_draw draw) {
    dropout_mask const mask(rate);
    with_real(x.type, "dropout", [&]<class T>(std::type_identity<T>) {
      T const keep = static_cast<T>(mask.factor);
      std::uint32_t kept = 0;
      for (std::int64_t i = 0; i < x.size(); ++i, kept >>= 1U) {
        if (i % mask.together == 0) kept = mask.kept(draw, static_cast<std::uint64_t>(i / mask.together));
        put(y.out.as<T>()[i], (kept & 1U) != 0 ? x.as<T>()[i] * keep : T(0), y.accumulate);
      }
    });
  }

  static void normal(view y, random_draw draw) {
    with_real(y.type, "normal", [&]<class T>(std::type_identity<T>) {
      for (std::int64_t i = 0; i < y.size(); ++i)
        y.as<T>()[i] = static_cast<T>(standard_normal(draw, static_cast<std::uint64_t>(i)));
    });
  }

  static void uniform(view y, random_draw draw, double low, double high) {
    with_real(y.type, "uniform", [&]<class T>(std::type_identity<T>) {
      for (std::int64_t i = 0; i < y.size(); ++i)
        y.as<T>()[i] = static_cast<T>(low + (high - low) * draw.uniform(static_cast<std::uint64_t>(i)));
    });
  }

  static void adamw(adamw_update const* updates, std::size_t count) {
    for (auto const* u = updates; u != updates + count; ++u)
      with_real(u->parameter.type, "adamw", [&]<class T>(std::type_identity<T>) {
        auto const& s = u->step;
        for (std::int64_t i = 0; i < u->parameter.size(); ++i) {
          T const d = u->gradient.as<T>()[i] * static_cast<T>(s.gradient_scale);
          T& first = u->first.as<T>()[i];
          T& second = u->second.as<T>()[i];
          first = static_cast<T>(s.beta1) * first + static_cast<T>(1 - s.beta1) * d;
          second = static_cast<T>(s.beta2) * second + static_cast<T>(1 - s.beta2) * d * d;
          T const denominator = std::sqrt(second / static_cast<T>(s.correction2)) + static_cast<T>(s.epsilon);
          T& value = u->parameter.as<T>()[i];
          value -= static_cast<T>(s.learning_rate * s.weight_decay) * value;
          value -= static_cast<T>(s.learning_rate) * (first / static_cast<T>(s.correction1)) / denominator;
        }
      });
  }
};

}  // namespace ouro::reference_kernels
