// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The gradient of the hormone gate: a pass over the rows makes what belongs to a row and leaves what the sums over rows
// are made of; these are taken in two stages, in a fixed order.
#include "gate.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// Left by the pass over the rows.
template <class T>
struct gate_traces {
  T* slope;  // (R,eD) the gradient towards f + bias; df itself where that is only written
  T* turn;   // (R,eD) the gradient towards what tanh is taken of
  T* qhat;   // (R,D) the standardised query
  T* dq;     // (R,D) the gradient towards the query
  T* back;   // (R,D) the gradient towards the folded sum
  T* means;  // (R,2) of the gradient towards the standardised projection, and of that times the projection
};

/// The gradient towards q ⊙ gate, from that towards the standardised projection, its means, the projection and 1/σ.
template <class T>
__device__ T pull_of(T slope, T const* means, T projection, T rstd) {
  return rstd * (slope - means[0] - projection * means[1]);
}

template <class T>
struct gate_slopes {
  gate_operands<T> g;
  gate_traces<T> to;
  T const* statistics;
  T const* dy;
  T* dx;
  T* df;
  bool dx_adds;
  bool df_adds;

  __device__ void operator()(index r, int lane, T* qhat) const {
    index const d = g.width;
    index const n = g.wide();
    T const* const st = statistics + r * hormone_gate_statistics;
    T const* const x = g.x + r * d * g.folds;
    bool const norm = g.f == nullptr;
    for (index i = lane; i < d; i += warp_size) {
      qhat[i] = (g.folded(r, i) - st[query_mean]) * st[query_rstd];
      to.qhat[r * d + i] = qhat[i];
    }
    auto standard = [&](index i) { return (x[i] - st[norm_mean]) * st[norm_rstd]; };
    auto projected = [&](index c, index i) {
      T const q = qhat[i] * g.query_weight[i] + g.query_bias[i];
      return (g.gate[c] * q - st[proj_mean]) * st[proj_rstd];
    };

    // Back to f + bias, and to the projection before its weight.
    T sums[4] = {};  // of the projection's gradient, and of that times the projection; of the norm's likewise
    for (index j = 0; j < g.spread; ++j)
      for_columns(g, r * n + j * d, lane, [&](index i, T keep) {
        index const c = j * d + i;
        index const at = r * n + c;
        T const p = projected(c, i);
        T const a = std::tanh(p * g.proj_weight[c] + g.proj_bias[c]);
        T const f = (norm ? standard(i) * g.scale[i] : g.f[at]) + g.bias[c];
        T up = dy[at] * keep;
        if (g.gelu) up *= gelu_slope(f * a);
        T const slope = up * a;
        T const turn = up * f * (T(1) - a * a);
        to.slope[at] = slope;
        to.turn[at] = turn;
        if (df != nullptr) put(df[at], slope, df_adds);
        sums[0] += turn * g.proj_weight[c];
        sums[1] += turn * g.proj_weight[c] * p;
        if (norm) {
          sums[2] += slope * g.scale[i];
          sums[3] += slope * g.scale[i] * standard(i);
        }
      });
    for (int k = 0; k < 4; ++k) sums[k] = warp_sum(sums[k]) / static_cast<T>(n);
    if (lane < 2) to.means[2 * r + lane] = sums[lane];

    // Back through the norm of the projection to the query.
    T query[2] = {};
    for (index i = lane; i < d; i += warp_size) {
      T dq = 0;
      for (index j = 0; j < g.spread; ++j) {
        index const c = j * d + i;
        dq += pull_of(to.turn[r * n + c] * g.proj_weight[c], sums, projected(c, i), st[proj_rstd]) * g.gate[c];
      }
      to.dq[r * d + i] = dq;
      query[0] += dq * g.query_weight[i];
      query[1] += dq * g.query_weight[i] * qhat[i];
    }
    for (int k = 0; k < 2; ++k) query[k] = warp_sum(query[k]) / static_cast<T>(d);

    // Back through the norm of the query to x and h; without f, x has a norm of its own.
    for (index i = lane; i < d; i += warp_size) {
      T const back = st[query_rstd] * (to.dq[r * d + i] * g.query_weight[i] - query[0] - qhat[i] * query[1]);
      to.back[r * d + i] = back;
      if (dx == nullptr) continue;
      T own = 0;
      if (norm) own = st[norm_rstd] * (to.slope[r * n + i] * g.scale[i] - sums[2] - standard(i) * sums[3]);
      for (index j = 0; j < g.folds; ++j) put(dx[(r * g.folds + j) * d + i], back + own, dx_adds);
    }
  }
};

/// Terms of dbias, dproj_weight, dproj_bias and dgate.
template <class T>
struct gate_wide_terms {
  gate_operands<T> g;
  gate_traces<T> from;
  T const* statistics;
  __device__ void operator()(index r, index c, T (&terms)[4]) const {
    T const* const st = statistics + r * hormone_gate_statistics;
    index const i = c % g.width;
    index const at = r * g.wide() + c;
    T const q = from.qhat[r * g.width + i] * g.query_weight[i] + g.query_bias[i];
    T const p = (g.gate[c] * q - st[proj_mean]) * st[proj_rstd];
    T const turn = from.turn[at];
    terms[0] = from.slope[at];
    terms[1] = turn * p;
    terms[2] = turn;
    terms[3] = pull_of(turn * g.proj_weight[c], from.means + 2 * r, p, st[proj_rstd]) * q;
  }
};

/// Terms of dquery_weight, dquery_bias and, without f, dscale.
template <class T>
struct gate_narrow_terms {
  gate_operands<T> g;
  gate_traces<T> from;
  T const* statistics;
  __device__ void operator()(index r, index i, T (&terms)[3]) const {
    T const* const st = statistics + r * hormone_gate_statistics;
    index const at = r * g.width + i;
    terms[0] = from.dq[at] * from.qhat[at];
    terms[1] = from.dq[at];
    terms[2] = g.f == nullptr ? from.slope[at] * ((g.x[at] - st[norm_mean]) * st[norm_rstd]) : T(0);
  }
};

/// Terms of dh.
template <class T>
struct gate_lane_terms {
  T const* back;
  index width;
  __device__ void operator()(index r, index i, T (&terms)[1]) const { terms[0] = back[r * width + i]; }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::hormone_gate_gradient(hormone_gate_gradients const& to, hormone_gate_operands const& in,
                                 const_view statistics, const_view dy) {
  constexpr auto name = "hormone_gate_gradient";
  with_real(in.x.type, name, [&]<class T>(std::type_identity<T>) {
    gate_operands<T> const g(in);
    index const d = g.width;
    index const n = g.wide();
    bool const in_place = to.f.wanted() && !to.f.accumulate;
    device_array<T> const memory(g.rows * ((in_place ? 1 : 2) * n + 3 * d + 2));
    T* const turn = memory.data();
    T* const narrow = turn + g.rows * n;
    T* const means = narrow + 3 * g.rows * d;
    gate_traces<T> const traces{in_place ? place_of<T>(to.f) : means + 2 * g.rows,
                                turn,
                                narrow,
                                narrow + g.rows * d,
                                narrow + 2 * g.rows * d,
                                means};
    auto const* st = statistics.as<T>();
    for_roomy_rows<T>(name, g.rows, d,
                      gate_slopes<T>{g, traces, st, dy.as<T>(), place_of<T>(to.x),
                                     in_place ? nullptr : place_of<T>(to.f), to.x.accumulate, to.f.accumulate});
    if (to.bias.wanted() || to.proj_weight.wanted() || to.proj_bias.wanted() || to.gate.wanted())
      column_sums<T, 4>(
          name, 1, g.rows, n, gate_wide_terms<T>{g, traces, st},
          to_places<T, 4>{
              {place_of<T>(to.bias), place_of<T>(to.proj_weight), place_of<T>(to.proj_bias), place_of<T>(to.gate)},
              {to.bias.accumulate, to.proj_weight.accumulate, to.proj_bias.accumulate, to.gate.accumulate}});
    if (to.query_weight.wanted() || to.query_bias.wanted() || to.scale.wanted())
      column_sums<T, 3>(
          name, 1, g.rows, d, gate_narrow_terms<T>{g, traces, st},
          to_places<T, 3>{{place_of<T>(to.query_weight), place_of<T>(to.query_bias), place_of<T>(to.scale)},
                          {to.query_weight.accumulate, to.query_bias.accumulate, to.scale.accumulate}});
    if (to.h.wanted())
      column_sums<T, 1>(name, g.rows / g.lane_rows, g.lane_rows, d, gate_lane_terms<T>{traces.back, d},
                        to_places<T, 1>{{to.h.out.as<T>()}, {to.h.accumulate}});
  });
}

}  // namespace ouro
