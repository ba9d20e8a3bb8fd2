// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Reference primitives that act on rows or columns of a matrix: norms, softmax, cross entropy, table look-up.
// Sums are accumulated in f64.
#pragma once

#include <cmath>
#include <cstdint>

#include <ouro/backend/reference/loops.hpp>
#include <ouro/concepts/backend.hpp>

namespace ouro::reference_kernels {

using reference_loops::put;

struct rows {
  static void layer_norm(view y, view mean, view rstd, const_view x, const_view w, const_view b, double eps) {
    with_real(x.type, "layer_norm", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = x.dims.back();
      for (std::int64_t r = 0; r < x.dims.rows(); ++r) {
        T const* row = x.as<T>() + r * width;
        double sum = 0;
        for (std::int64_t i = 0; i < width; ++i) sum += static_cast<double>(row[i]);
        double const mu = sum / static_cast<double>(width);
        double squares = 0;
        for (std::int64_t i = 0; i < width; ++i) {
          double const d = static_cast<double>(row[i]) - mu;
          squares += d * d;
        }
        double const s = 1.0 / std::sqrt(squares / static_cast<double>(width) + eps);
        mean.as<T>()[r] = static_cast<T>(mu);
        rstd.as<T>()[r] = static_cast<T>(s);
        for (std::int64_t i = 0; i < width; ++i)
          y.as<T>()[r * width + i] =
              static_cast<T>((static_cast<double>(row[i]) - mu) * s) * w.as<T>()[i] + b.as<T>()[i];
      }
    });
  }

  static void layer_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view rstd, const_view w, const_view dy) {
    with_real(x.type, "layer_norm_gradient", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = x.dims.back();
      if (dw.wanted() && !dw.accumulate) clear<T>(dw.out);
      if (db.wanted() && !db.accumulate) clear<T>(db.out);
      for (std::int64_t r = 0; r < x.dims.rows(); ++r) {
        T const* row = x.as<T>() + r * width;
        T const* up = dy.as<T>() + r * width;
        auto const mu = static_cast<double>(mean.as<T>()[r]);
        auto const s = static_cast<double>(rstd.as<T>()[r]);
        double sum = 0;
        double dot = 0;
        for (std::int64_t i = 0; i < width; ++i) {
          double const xhat = (static_cast<double>(row[i]) - mu) * s;
          double const g = static_cast<double>(up[i]) * static_cast<double>(w.as<T>()[i]);
          sum += g;
          dot += g * xhat;
          if (dw.wanted()) dw.out.as<T>()[i] += static_cast<T>(static_cast<double>(up[i]) * xhat);
          if (db.wanted()) db.out.as<T>()[i] += up[i];
        }
        if (!dx.wanted()) continue;
        for (std::int64_t i = 0; i < width; ++i) {
          double const xhat = (static_cast<double>(row[i]) - mu) * s;
          double const g = static_cast<double>(up[i]) * static_cast<double>(w.as<T>()[i]);
          put(dx.out.as<T>()[r * width + i], static_cast<T>(s * (g - (sum + xhat * dot) / static_cast<double>(width))),
              dx.accumulate);
        }
      }
    });
  }

  static void unit(view y, view norm, const_view x, double eps) {
    with_real(x.type, "unit", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = x.dims.back();
      for (std::int64_t r = 0; r < x.dims.rows(); ++r) {
        double sum = 0;
        for (std::int64_t i = 0; i < width; ++i) {
          auto const v = static_cast<double>(x.as<T>()[r * width + i]);
          sum += v * v;
        }
        double const n = std::sqrt(sum);
        norm.as<T>()[r] = static_cast<T>(n);
        for (std::int64_t i = 0; i < width; ++i)
          y.as<T>()[r * width + i] =
              static_cast<T>(static_cast<double>(x.as<T>()[r * width + i]) / (n > eps ? n : eps));
      }
    });
  }

  static void unit_gradient(destination dx, const_view y, const_view norm, const_view dy, double eps) {
    with_real(y.type, "unit_gradient", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = y.dims.back();
      for (std::int64_t r = 0; r < y.dims.rows(); ++r) {
        auto const n = static_cast<double>(norm.as<T>()[r]);
        double dot = 0;
        if (n > eps)
          for (std::int64_t i = 0; i < width; ++i)
            dot += static_cast<double>(y.as<T>()[r * width + i]) * static_cast<double>(dy.as<T>()[r * width + i]);
        for (std::int64_t i = 0; i < width; ++i) {
          std::int64_t const at = r * width + i;
          double const g = static_cast<double>(dy.as<T>()[at]) - static_cast<double>(y.as<T>()[at]) * dot;
          put(dx.out.as<T>()[at], static_cast<T>(g / (n > eps ? n : eps)), dx.accumulate);
        }
      }
    });
  }

  static void softmax(view y, const_view x) {
    with_real(x.type, "softmax", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = x.dims.back();
      for (std::int64_t r = 0; r < x.dims.rows(); ++r) {
        T const* row = x.as<T>() + r * width;
        double const lse = log_sum_exp(row, width);
        for (std::int64_t i = 0; i < width; ++i)
          y.as<T>()[r * width + i] = static_cast<T>(std::exp(static_cast<double>(row[i]) - lse));
      }
    });
  }

  static void softmax_gradient(destination dx, const_view y, const_view dy) {
    with_real(y.type, "softmax_gradient", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = y.dims.back();
      for (std::int64_t r = 0; r < y.dims.rows(); ++r) {
        double dot = 0;
        for (std::int64_t i = r * width; i < (r + 1) * width; ++i)
          dot += static_cast<double>(y.as<T>()[i]) * static_cast<double>(dy.as<T>()[i]);
        for (std::int64_t i = r * width; i < (r + 1) * width; ++i)
          put(dx.out.as<T>()[i],
              static_cast<T>(static_cast<double>(y.as<T>()[i]) * (static_cast<double>(dy.as<T>()[i]) - dot)),
              dx.accumulate);
      }
    });
  }

  static void cross_entropy(view nll, const_view logits, const_view targets) {
    with_real(logits.type, "cross_entropy", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = logits.dims.back();
      for (std::int64_t r = 0; r < logits.dims.rows(); ++r) {
        std::int32_t const target = targets.as<std::int32_t>()[r];
        T const* row = logits.as<T>() + r * width;
        nll.as<T>()[r] = target < 0 ? T(0) : static_cast<T>(log_sum_exp(row, width) - static_cast<double>(row[target]));
      }
    });
  }

  static void cross_entropy_gradient(destination dlogits, const_view logits, const_view targets, const_view dnll) {
    with_real(logits.type, "cross_entropy_gradient", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = logits.dims.back();
      for (std::int64_t r = 0; r < logits.dims.rows(); ++r) {
        std::int32_t const target = targets.as<std::int32_t>()[r];
        T const* row = logits.as<T>() + r * width;
        double const lse = log_sum_exp(row, width);
        for (std::int64_t i = 0; i < width; ++i) {
          double const p = target < 0 ? 0.0 : std::exp(static_cast<double>(row[i]) - lse) - (i == target ? 1.0 : 0.0);
          put(dlogits.out.as<T>()[r * width + i], static_cast<T>(p * static_cast<double>(dnll.as<T>()[r])),
              dlogits.accumulate);
        }
      }
    });
  }

  static void sample(view chosen, const_view logits, sampling_rule const& rule) {
    with_real(logits.type, "sample", [&]<class T>(std::type_identity<T>) {
      auto const width = static_cast<std::int32_t>(logits.dims.back());
      for (std::int64_t r = 0; r < logits.dims.rows(); ++r) {
        T const* const row = logits.as<T>() + r * width;
        auto at = [&](std::int32_t i) { return row[i] != row[i] ? -HUGE_VAL : static_cast<double>(row[i]); };
        auto before = [&](std::int32_t a, std::int32_t b) { return at(a) != at(b) ? at(a) > at(b) : a < b; };
        std::int32_t best = 0;
        for (std::int32_t i = 1; i < width; ++i)
          if (before(i, best)) best = i;
        std::int32_t& choice = chosen.as<std::int32_t>()[r];
        choice = std::isfinite(at(best)) ? best : -1;
        if (choice < 0 || !(rule.temperature > 0)) continue;
        std::int32_t last = best;  // of those that may be chosen, where not all may
        for (std::int64_t n = 1; n < rule.top_k && n < width; ++n) {
          std::int32_t next = -1;
          for (std::int32_t i = 0; i < width; ++i)
            if (before(last, i) && (next < 0 || before(i, next))) next = i;
          last = next;
        }
        auto weight = [&](std::int32_t i) {
          bool const may = rule.top_k <= 0 || !before(last, i);
          return may ? std::exp((at(i) - at(best)) / rule.temperature) : 0.0;
        };
        double sum = 0;
        for (std::int32_t i = 0; i < width; ++i) sum += weight(i);
        double rest = rule.draw.uniform(rule.first + static_cast<std::uint64_t>(r)) * sum;
        for (std::int32_t i = 0; i < width && rest >= 0; ++i) {
          double const w = weight(i);
          if (w > 0) choice = i;  // the last of them if rounding leaves a rest
          rest -= w;
        }
      }
    });
  }

  static void gather_sum(view y, const_view table, const_view index, const_view addend) {
    with_real(y.type, "gather_sum", [&]<class T>(std::type_identity<T>) {
      std::int64_t const columns = table.dims[2];
      std::int64_t const tables = table.dims[0];
      for (std::int64_t r = 0; r < index.dims[0]; ++r)
        for (std::int64_t c = 0; c < columns; ++c) {
          T sum = 0;
          for (std::int64_t k = 0; k < tables; ++k) {
            std::int32_t const i = index.as<std::int32_t>()[r * tables + k];
            if (i >= 0) sum += table.as<T>()[(k * table.dims[1] + i) * columns + c];
          }
          y.as<T>()[r * columns + c] = addend.empty() ? sum : sum + addend.as<T>()[c];
        }
    });
  }

  static void scatter_sum(destination dtable, const_view index, const_view dy) {
    with_real(dy.type, "scatter_sum", [&]<class T>(std::type_identity<T>) {
      std::int64_t const columns = dtable.out.dims[2];
      std::int64_t const tables = dtable.out.dims[0];
      if (!dtable.accumulate) clear<T>(dtable.out);
      for (std::int64_t r = 0; r < index.dims[0]; ++r)
        for (std::int64_t k = 0; k < tables; ++k) {
          std::int32_t const i = index.as<std::int32_t>()[r * tables + k];
          if (i < 0) continue;
          T* row = dtable.out.as<T>() + (k * dtable.out.dims[1] + i) * columns;
          for (std::int64_t c = 0; c < columns; ++c) row[c] += dy.as<T>()[r * columns + c];
        }
    });
  }

  static void column_moments(view mean, view variance, const_view x) {
    with_real(x.type, "column_moments", [&]<class T>(std::type_identity<T>) {
      for (std::int64_t c = 0; c < x.dims.back(); ++c) {
        auto const m = statistics_of<T>(x, c);
        mean.as<T>()[c] = static_cast<T>(m.mean);
        variance.as<T>()[c] = static_cast<T>(m.variance);
      }
    });
  }

  static void batch_norm(view y, view mean, view variance, const_view x, const_view w, const_view b, double eps) {
    with_real(x.type, "batch_norm", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = x.dims.back();
      for (std::int64_t c = 0; c < width; ++c) {
        auto const m = statistics_of<T>(x, c);
        mean.as<T>()[c] = static_cast<T>(m.mean);
        variance.as<T>()[c] = static_cast<T>(m.variance);
        double const gain = static_cast<double>(w.as<T>()[c]) / std::sqrt(m.variance + eps);
        for (std::int64_t r = 0; r < x.dims.rows(); ++r)
          y.as<T>()[r * width + c] = static_cast<T>((static_cast<double>(x.as<T>()[r * width + c]) - m.mean) * gain +
                                                    static_cast<double>(b.as<T>()[c]));
      }
    });
  }

  static void batch_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view variance, const_view w, const_view dy, double eps) {
    with_real(x.type, "batch_norm_gradient", [&]<class T>(std::type_identity<T>) {
      std::int64_t const width = x.dims.back();
      std::int64_t const count = x.dims.rows();
      for (std::int64_t c = 0; c < width; ++c) {
        auto const mu = static_cast<double>(mean.as<T>()[c]);
        double const s = 1.0 / std::sqrt(static_cast<double>(variance.as<T>()[c]) + eps);
        double sum = 0;
        double dot = 0;
        for (std::int64_t r = 0; r < count; ++r) {
          auto const g = static_cast<double>(dy.as<T>()[r * width + c]);
          sum += g;
          dot += g * (static_cast<double>(x.as<T>()[r * width + c]) - mu) * s;
        }
        if (dw.wanted()) put(dw.out.as<T>()[c], static_cast<T>(dot), dw.accumulate);
        if (db.wanted()) put(db.out.as<T>()[c], static_cast<T>(sum), db.accumulate);
        if (!dx.wanted()) continue;
        double const gain = static_cast<double>(w.as<T>()[c]) * s;
        for (std::int64_t r = 0; r < count; ++r) {
          double const xhat = (static_cast<double>(x.as<T>()[r * width + c]) - mu) * s;
          double const g = static_cast<double>(dy.as<T>()[r * width + c]);
          put(dx.out.as<T>()[r * width + c],
              static_cast<T>(gain * (g - (sum + xhat * dot) / static_cast<double>(count))), dx.accumulate);
        }
      }
    });
  }

 private:
  struct column_statistics {
    double mean;
    double variance;  // biased
  };
  template <class T>
  static column_statistics statistics_of(const_view x, std::int64_t column) {
    auto const count = static_cast<double>(x.dims.rows());
    auto at = [&](std::int64_t r) { return static_cast<double>(x.as<T>()[r * x.dims.back() + column]); };
    double sum = 0;
    for (std::int64_t r = 0; r < x.dims.rows(); ++r) sum += at(r);
    double const mean = sum / count;
    double squares = 0;
    for (std::int64_t r = 0; r < x.dims.rows(); ++r) squares += (at(r) - mean) * (at(r) - mean);
    return {mean, squares / count};
  }
  template <class T>
  static void clear(view v) {
    for (std::int64_t i = 0; i < v.size(); ++i) v.as<T>()[i] = T(0);
  }
  template <class T>
  static double log_sum_exp(T const* row, std::int64_t width) {
    auto top = static_cast<double>(row[0]);
    for (std::int64_t i = 1; i < width; ++i)
      if (static_cast<double>(row[i]) > top) top = static_cast<double>(row[i]);
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += std::exp(static_cast<double>(row[i]) - top);
    return top + std::log(sum);
  }
};

}  // namespace ouro::reference_kernels
