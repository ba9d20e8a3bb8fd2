// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Reference matrix products and attention: plain loops with sums in f64.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include <ouro/backend/reference/elementwise.hpp>
#include <ouro/backend/reference/loops.hpp>
#include <ouro/concepts/backend.hpp>

namespace ouro::reference_kernels {

using reference_loops::put;

struct products {
  static void matmul(destination c, const_view a, const_view b, double alpha) {
    if (b.type == dtype::bf16) {
      std::vector<float> wide(static_cast<std::size_t>(b.size()));
      view const same(wide.data(), dtype::f32, b.dims);
      elementwise::copy(same, b, false);
      return matmul(c, a, same, alpha);
    }
    with_real(a.type, "matmul", [&]<class T>(std::type_identity<T>) {
      bool const batched = a.dims.rank() == 3;
      std::int64_t const batches = batched ? a.dims[0] : 1;
      std::int64_t const inner = a.dims[-1];
      for (std::int64_t n = 0; n < batches; ++n) {
        T* pc = c.out.as<T>() + (batched ? n * c.out.steps[0] : 0);
        T const* pa = a.as<T>() + (batched ? n * a.steps[0] : 0);
        T const* pb = b.as<T>() + (batched ? n * b.steps[0] : 0);
        for (std::int64_t i = 0; i < a.dims[-2]; ++i)
          for (std::int64_t j = 0; j < b.dims[-1]; ++j) {
            double sum = 0;
            for (std::int64_t k = 0; k < inner; ++k)
              sum += static_cast<double>(pa[i * a.steps[-2] + k * a.steps[-1]]) *
                     static_cast<double>(pb[k * b.steps[-2] + j * b.steps[-1]]);
            put(pc[i * c.out.steps[-2] + j * c.out.steps[-1]], static_cast<T>(alpha * sum), c.accumulate);
          }
      }
    });
  }

  static void attention(view y, view lse, const_view q, const_view k, const_view v, attention_rule const& rule) {
    with_real(q.type, "attention", [&]<class T>(std::type_identity<T>) {
      for_each_query<T>(q, k, rule, [&](head_row const& at, std::vector<double>& score) {
        double top = score[0];
        for (double s : score) top = s > top ? s : top;
        double sum = 0;
        for (double& s : score) sum += s = std::exp(s - top);
        lse.as<T>()[at.flat] = static_cast<T>(top + std::log(sum));
        for (std::int64_t c = 0; c < at.width; ++c) {
          double out = 0;
          for (std::size_t j = 0; j < score.size(); ++j)
            out += score[j] / sum * kept(rule, at, k.dims[1], j) * element<T>(v, at, j, c);
          y.as<T>()[at.n * y.steps[0] + at.row * y.steps[1] + at.head * at.width + c] = static_cast<T>(out);
        }
      });
    });
  }

  static void attention_gradient(destination dq, destination dk, destination dv, const_view q, const_view k,
                                 const_view v, const_view y, const_view lse, const_view dy,
                                 attention_rule const& rule) {
    with_real(q.type, "attention_gradient", [&]<class T>(std::type_identity<T>) {
      for (auto const& d : {dq, dk, dv})
        if (d.wanted() && !d.accumulate)
          reference_loops::for_each(d.out.dims, d.out.steps, d.out.steps, d.out.steps,
                                    [p = d.out.template as<T>()](auto i, auto, auto) { p[i] = T(0); });
      for_each_query<T>(q, k, rule, [&](head_row const& at, std::vector<double>& score) {
        double dot = 0;  // Σ_j p_j dp_j = y · dy, dropout included
        for (std::int64_t c = 0; c < at.width; ++c) dot += element<T>(y, at, at.row, c) * element<T>(dy, at, at.row, c);
        for (std::size_t j = 0; j < score.size(); ++j) {
          double const p = std::exp(score[j] - static_cast<double>(lse.as<T>()[at.flat]));
          double const keep = kept(rule, at, k.dims[1], j);
          double dp = 0;
          for (std::int64_t c = 0; c < at.width; ++c) {
            dp += element<T>(dy, at, at.row, c) * element<T>(v, at, j, c);
            add<T>(dv, at, j, c, p * keep * element<T>(dy, at, at.row, c));
          }
          double const ds = p * (dp * keep - dot) * rule.scale;
          for (std::int64_t c = 0; c < at.width; ++c) {
            add<T>(dq, at, at.row, c, ds * element<T>(k, at, j, c));
            add<T>(dk, at, j, c, ds * element<T>(q, at, at.row, c));
          }
        }
      });
    });
  }

 private:
  struct head_row {
    std::int64_t n, head, row, width, flat;
  };

  /// Calls f(position, scaled scores of the visible keys) for every lane, head and query row.
  template <class T, class F>
  static void for_each_query(const_view q, const_view k, attention_rule const& rule, F&& f) {
    std::int64_t const width = q.dims[2] / rule.heads;
    std::vector<double> score;
    std::int64_t flat = 0;
    for (std::int64_t n = 0; n < q.dims[0]; ++n)
      for (std::int64_t h = 0; h < rule.heads; ++h)
        for (std::int64_t i = 0; i < q.dims[1]; ++i, ++flat) {
          head_row const at{n, h, i, width, flat};
          score.assign(static_cast<std::size_t>(rule.sees.count(i, k.dims[1])), 0.0);
          for (std::size_t j = 0; j < score.size(); ++j) {
            for (std::int64_t c = 0; c < width; ++c) score[j] += element<T>(q, at, i, c) * element<T>(k, at, j, c);
            score[j] *= rule.scale;
          }
          f(at, score);
        }
  }
  static double kept(attention_rule const& rule, head_row const& at, std::int64_t keys, std::size_t j) {
    if (rule.dropout == 0) return 1.0;
    auto const place = static_cast<std::uint64_t>(at.flat * dropout_mask::groups(keys) * dropout_mask::together) + j;
    dropout_mask const mask(rule.dropout);
    return mask.keeps(rule.draw, place) ? mask.factor : 0.0;
  }
  template <class T, class Row>
  static double element(const_view v, head_row const& at, Row row, std::int64_t c) {
    return static_cast<double>(
        v.as<T>()[at.n * v.steps[0] + static_cast<std::int64_t>(row) * v.steps[1] + at.head * at.width + c]);
  }
  template <class T, class Row>
  static void add(destination const& d, head_row const& at, Row row, std::int64_t c, double value) {
    if (!d.wanted()) return;
    d.out.as<T>()[at.n * d.out.steps[0] + static_cast<std::int64_t>(row) * d.out.steps[1] + at.head * at.width + c] +=
        static_cast<T>(value);
  }
};

}  // namespace ouro::reference_kernels
