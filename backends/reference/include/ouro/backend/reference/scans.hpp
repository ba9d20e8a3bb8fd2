// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Reference recurrences, row by row as they are defined, with states and sums in f64. The gradients walk back over the
// states of all rows, which are kept. Elements are read and written through their dtype one by one: these loops are
// compiled once, not for every dtype.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include <ouro/concepts/scans.hpp>

namespace ouro::reference_kernels {

namespace recurrence {

inline constexpr double decay_bound = 0.60653065971263342;  // e^(−1/2)

inline std::size_t count(std::int64_t n) { return static_cast<std::size_t>(n); }
inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

inline double get(const_view const& v, std::int64_t i) {
  return v.type == dtype::f32 ? static_cast<double>(v.as<float>()[i]) : v.as<double>()[i];
}
inline void set(destination const& d, std::int64_t i, double value) {
  if (!d.wanted()) return;
  if (d.accumulate) value += get(d.out, i);
  if (d.out.type == dtype::f32) d.out.as<float>()[i] = static_cast<float>(value);
  else d.out.as<double>()[i] = value;
}
/// A contiguous destination that several contributions are added to, starting from zero unless it accumulates.
inline destination cleared(destination d) {
  std::int64_t const n = d.wanted() && !d.accumulate ? d.out.size() : 0;
  for (std::int64_t i = 0; i < n; ++i) set(d, i, 0.0);
  d.accumulate = true;
  return d;
}
inline void need_real(const_view const& v, char const* where) {
  require(is_floating(v.type), errc::shape, where, "needs f32 or f64, got ", name_of(v.type));
}

using state_matrix = std::vector<double>;

/// One lane and head: `index` is the head's run of columns, `flat` its place among all states.
struct head {
  std::int64_t lane, index, flat, value, key;

  [[nodiscard]] std::size_t at(std::int64_t i, std::int64_t j) const { return count(i * key + j); }
  /// Where element i of row t lies, in runs of `width` columns.
  [[nodiscard]] std::int64_t offset(shape const& steps, std::int64_t t, std::int64_t i, std::int64_t width) const {
    return lane * steps[0] + t * steps[1] + index * width + i;
  }
  [[nodiscard]] double element(const_view const& v, std::int64_t t, std::int64_t i, std::int64_t width) const {
    return get(v, offset(v.steps, t, i, width));
  }
  void put(destination const& d, std::int64_t t, std::int64_t i, std::int64_t width, double x) const {
    if (d.wanted()) set(d, offset(d.out.steps, t, i, width), x);
  }
  /// The state, or zeros where there is none.
  [[nodiscard]] state_matrix state(const_view const& v) const {
    state_matrix S(count(value * key), 0.0);
    for (std::int64_t i = 0; i < value * key && !v.empty(); ++i) S[count(i)] = get(v, flat * value * key + i);
    return S;
  }
  void put_state(destination const& d, state_matrix const& S) const {
    for (std::int64_t i = 0; i < value * key; ++i) set(d, flat * value * key + i, S[count(i)]);
  }
};

template <class F>
void for_each_head(shape const& state, F&& f) {
  for (std::int64_t n = 0; n < state[0]; ++n)
    for (std::int64_t h = 0; h < state[1]; ++h) f(head{n, h, n * state[1] + h, state[2], state[3]});
}

/// S ← S diag(d) + u bᵀ + v kᵀ with u = S a.
inline void rwkv7_row(rwkv7_operands const& in, head const& h, std::int64_t t, state_matrix& S,
                      std::vector<double>& u) {
  for (std::int64_t i = 0; i < h.value; ++i) {
    u[count(i)] = 0;
    for (std::int64_t j = 0; j < h.key; ++j) u[count(i)] += S[h.at(i, j)] * h.element(in.a, t, j, h.key);
  }
  for (std::int64_t j = 0; j < h.key; ++j) {
    double const d = std::exp(-decay_bound * sigmoid(h.element(in.w, t, j, h.key)));
    double const k = h.element(in.k, t, j, h.key);
    double const b = h.element(in.b, t, j, h.key);
    for (std::int64_t i = 0; i < h.value; ++i)
      S[h.at(i, j)] = S[h.at(i, j)] * d + u[count(i)] * b + h.element(in.v, t, i, h.value) * k;
  }
}

/// The columns of b and c that a head shares with its group.
inline head group_of(ssd_operands const& in, head h) {
  h.index = h.index * (in.b.dims[2] / h.key) / in.state.dims[1];
  return h;
}
/// S ← exp(step · rate) S + step x bᵀ.
inline void ssd_row(ssd_operands const& in, head const& h, head const& g, std::int64_t t, state_matrix& S) {
  double const step = h.element(in.step, t, 0, 1);
  double const decay = std::exp(step * get(in.rate, h.index));
  for (std::int64_t i = 0; i < h.value; ++i) {
    double const x = step * h.element(in.x, t, i, h.value);
    for (std::int64_t j = 0; j < h.key; ++j) S[h.at(i, j)] = decay * S[h.at(i, j)] + x * g.element(in.b, t, j, h.key);
  }
}

/// Calls f(lane, row, column, tap, true and the place in x, or false and the place in the window) for every product.
template <class F>
void for_each_tap(short_convolution_operands const& in, shape const& x, shape const& window, F&& f) {
  std::int64_t const taps = in.weight.dims[1];
  for (std::int64_t n = 0; n < in.x.dims[0]; ++n)
    for (std::int64_t t = 0; t < in.x.dims[1]; ++t)
      for (std::int64_t c = 0; c < in.x.dims[2]; ++c)
        for (std::int64_t j = 0; j < taps; ++j) {
          std::int64_t const row = t + j - (taps - 1);
          if (row >= 0) f(n, t, c, j, true, n * x[0] + row * x[1] + c);
          else f(n, t, c, j, false, n * window[0] + (t + j) * window[1] + c);
        }
}

}  // namespace recurrence

struct scans {
  static void rwkv7_scan(view y, view last, rwkv7_operands const& in) {
    using namespace recurrence;
    need_real(in.r, "rwkv7_scan");
    for_each_head(in.state.dims, [&](recurrence::head const& h) {
      auto S = h.state(in.state);
      std::vector<double> u(count(h.value));
      for (std::int64_t t = 0; t < in.r.dims[1]; ++t) {
        rwkv7_row(in, h, t, S, u);
        for (std::int64_t i = 0; i < h.value; ++i) {
          double sum = 0;
          for (std::int64_t j = 0; j < h.key; ++j) sum += S[h.at(i, j)] * h.element(in.r, t, j, h.key);
          h.put(y, t, i, h.value, sum);
        }
      }
      h.put_state(last, S);
    });
  }

  static void rwkv7_scan_gradient(rwkv7_gradients const& to, rwkv7_operands const& in, const_view dy,
                                  const_view dlast) {
    using namespace recurrence;
    need_real(in.r, "rwkv7_scan_gradient");
    for_each_head(in.state.dims, [&](recurrence::head const& h) {
      std::vector<state_matrix> S{h.state(in.state)};
      std::vector<std::vector<double>> u;
      for (std::int64_t t = 0; t < in.r.dims[1]; ++t) {
        S.push_back(S.back());
        u.emplace_back(count(h.value));
        rwkv7_row(in, h, t, S.back(), u.back());
      }
      auto G = h.state(dlast);
      std::vector<double> du(count(h.value));
      for (std::int64_t t = in.r.dims[1] - 1; t >= 0; --t) {
        auto const& before = S[count(t)];
        auto const& after = S[count(t) + 1];
        for (std::int64_t i = 0; i < h.value; ++i) {
          double dv = 0;
          du[count(i)] = 0;
          for (std::int64_t j = 0; j < h.key; ++j) {
            double& g = G[h.at(i, j)];
            g += h.element(dy, t, i, h.value) * h.element(in.r, t, j, h.key);
            dv += g * h.element(in.k, t, j, h.key);
            du[count(i)] += g * h.element(in.b, t, j, h.key);
          }
          h.put(to.v, t, i, h.value, dv);
        }
        for (std::int64_t j = 0; j < h.key; ++j) {
          double const s = recurrence::sigmoid(h.element(in.w, t, j, h.key));
          double const d = std::exp(-decay_bound * s);
          double dr = 0, dk = 0, da = 0, db = 0, dd = 0;
          for (std::int64_t i = 0; i < h.value; ++i) {
            double& g = G[h.at(i, j)];
            dr += after[h.at(i, j)] * h.element(dy, t, i, h.value);
            dk += g * h.element(in.v, t, i, h.value);
            db += g * u[count(t)][count(i)];
            da += before[h.at(i, j)] * du[count(i)];
            dd += g * before[h.at(i, j)];
            g = g * d + du[count(i)] * h.element(in.a, t, j, h.key);
          }
          h.put(to.r, t, j, h.key, dr);
          h.put(to.w, t, j, h.key, -dd * d * decay_bound * s * (1 - s));
          h.put(to.k, t, j, h.key, dk);
          h.put(to.a, t, j, h.key, da);
          h.put(to.b, t, j, h.key, db);
        }
      }
      h.put_state(to.state, G);
    });
  }

  static void ssd_scan(view y, view last, ssd_operands const& in) {
    using namespace recurrence;
    need_real(in.x, "ssd_scan");
    for_each_head(in.state.dims, [&](recurrence::head const& h) {
      auto const g = group_of(in, h);
      auto S = h.state(in.state);
      for (std::int64_t t = 0; t < in.x.dims[1]; ++t) {
        ssd_row(in, h, g, t, S);
        for (std::int64_t i = 0; i < h.value; ++i) {
          double sum = get(in.skip, h.index) * h.element(in.x, t, i, h.value);
          for (std::int64_t j = 0; j < h.key; ++j) sum += S[h.at(i, j)] * g.element(in.c, t, j, h.key);
          h.put(y, t, i, h.value, sum);
        }
      }
      h.put_state(last, S);
    });
  }

  static void ssd_scan_gradient(ssd_gradients const& to, ssd_operands const& in, const_view dy, const_view dlast) {
    using namespace recurrence;
    need_real(in.x, "ssd_scan_gradient");
    // What the heads of a group, or the lanes of a head, add up in.
    auto const db = cleared(to.b);
    auto const dc = cleared(to.c);
    auto const drate = cleared(to.rate);
    auto const dskip = cleared(to.skip);
    for_each_head(in.state.dims, [&](recurrence::head const& h) {
      auto const g = group_of(in, h);
      std::vector<state_matrix> S{h.state(in.state)};
      for (std::int64_t t = 0; t < in.x.dims[1]; ++t) {
        S.push_back(S.back());
        ssd_row(in, h, g, t, S.back());
      }
      auto G = h.state(dlast);
      double const rate = get(in.rate, h.index);
      double const skip = get(in.skip, h.index);
      double of_rate = 0;
      double of_skip = 0;
      for (std::int64_t t = in.x.dims[1] - 1; t >= 0; --t) {
        double const step = h.element(in.step, t, 0, 1);
        double const decay = std::exp(step * rate);
        double dot = 0;  // Σ G ⊙ S_{t−1}
        double dstep = 0;
        for (std::int64_t i = 0; i < h.value; ++i) {
          double const x = h.element(in.x, t, i, h.value);
          double const up = h.element(dy, t, i, h.value);
          double Gb = 0;
          for (std::int64_t j = 0; j < h.key; ++j) {
            double& at = G[h.at(i, j)];
            at += up * g.element(in.c, t, j, h.key);
            Gb += at * g.element(in.b, t, j, h.key);
            dot += at * S[count(t)][h.at(i, j)];
          }
          dstep += x * Gb;
          of_skip += up * x;
          h.put(to.x, t, i, h.value, step * Gb + skip * up);
        }
        for (std::int64_t j = 0; j < h.key; ++j) {
          double of_b = 0, of_c = 0;
          for (std::int64_t i = 0; i < h.value; ++i) {
            of_b += G[h.at(i, j)] * step * h.element(in.x, t, i, h.value);
            of_c += S[count(t) + 1][h.at(i, j)] * h.element(dy, t, i, h.value);
          }
          g.put(db, t, j, h.key, of_b);
          g.put(dc, t, j, h.key, of_c);
        }
        h.put(to.step, t, 0, 1, dstep + rate * decay * dot);
        of_rate += step * decay * dot;
        for (double& at : G) at *= decay;
      }
      set(drate, h.index, of_rate);
      set(dskip, h.index, of_skip);
      h.put_state(to.state, G);
    });
  }

  static void short_convolution(view y, short_convolution_operands const& in) {
    using namespace recurrence;
    need_real(in.x, "short_convolution");
    double sum = 0;
    std::int64_t const taps = in.weight.dims[1];
    for_each_tap(in, in.x.steps, in.window.steps, [&](auto n, auto t, auto c, auto j, bool inside, std::int64_t at) {
      if (j == 0) sum = get(in.bias, c);
      sum += get(in.weight, c * taps + j) * get(inside ? in.x : in.window, at);
      if (j == taps - 1) set(y, n * y.steps[0] + t * y.steps[1] + c, sum);
    });
  }

  static void short_convolution_gradient(short_convolution_gradients const& to, short_convolution_operands const& in,
                                         const_view dy) {
    using namespace recurrence;
    need_real(in.x, "short_convolution_gradient");
    std::int64_t const taps = in.weight.dims[1];
    std::vector<double> dweight(count(in.weight.size()), 0.0);
    std::vector<double> dbias(count(in.bias.size()), 0.0);
    for_each_tap(in, in.x.steps, in.window.steps, [&](auto n, auto t, auto c, auto j, bool inside, std::int64_t at) {
      double const up = get(dy, n * dy.steps[0] + t * dy.steps[1] + c);
      if (j == 0) dbias[count(c)] += up;
      dweight[count(c * taps + j)] += up * get(inside ? in.x : in.window, at);
    });
    for (std::size_t i = 0; i < dweight.size(); ++i) set(to.weight, static_cast<std::int64_t>(i), dweight[i]);
    for (std::size_t i = 0; i < dbias.size(); ++i) set(to.bias, static_cast<std::int64_t>(i), dbias[i]);
    auto const dx = cleared(to.x);
    auto const dwindow = cleared(to.window);
    auto steps = [](destination const& d) { return d.wanted() ? d.out.steps : shape{0, 0, 0}; };
    for_each_tap(in, steps(dx), steps(dwindow), [&](auto n, auto t, auto c, auto j, bool inside, std::int64_t at) {
      double const up = get(dy, n * dy.steps[0] + t * dy.steps[1] + c);
      set(inside ? dx : dwindow, at, up * get(in.weight, c * taps + j));
    });
  }
};

}  // namespace ouro::reference_kernels
