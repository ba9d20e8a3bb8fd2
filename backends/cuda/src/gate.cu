// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate, forward.
#include "gate.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct gate_rows {
  gate_operands<T> g;
  T* y;
  T* statistics;

  __device__ void operator()(index r, int lane, T* q) const {
    index const d = g.width;
    index const n = g.wide();
    T* const st = statistics + r * hormone_gate_statistics;
    for (index i = lane; i < d; i += warp_size) q[i] = g.folded(r, i);
    auto const query = row_moments<T>(d, lane, g.epsilon, [&](index i) { return q[i]; });
    for (index i = lane; i < d; i += warp_size)
      q[i] = (q[i] - query.mean) * query.rstd * g.query_weight[i] + g.query_bias[i];

    T const inverse = T(1) / static_cast<T>(n);
    T const mean = row_sum<T>(d, lane,
                              [&](index i) {
                                T sum = 0;
                                for (index j = 0; j < g.spread; ++j) sum += g.gate[j * d + i] * q[i];
                                return sum;
                              }) *
                   inverse;
    T const variance = row_sum<T>(d, lane,
                                  [&](index i) {
                                    T sum = 0;
                                    for (index j = 0; j < g.spread; ++j) {
                                      T const v = g.gate[j * d + i] * q[i] - mean;
                                      sum += v * v;
                                    }
                                    return sum;
                                  }) *
                       inverse;
    T const rstd = T(1) / std::sqrt(variance + g.epsilon);
    T const* const x = g.x + r * d * g.folds;
    moments<T> norm{};
    if (g.f == nullptr) norm = row_moments<T>(d, lane, g.epsilon, [&](index i) { return x[i]; });
    if (lane == 0) {
      st[query_mean] = query.mean;
      st[query_rstd] = query.rstd;
      st[proj_mean] = mean;
      st[proj_rstd] = rstd;
      st[norm_mean] = norm.mean;
      st[norm_rstd] = norm.rstd;
    }
    for (index j = 0; j < g.spread; ++j)
      for_columns(g, r * n + j * d, lane, [&](index i, T keep) {
        index const c = j * d + i;
        index const at = r * n + c;
        T const a = std::tanh((g.gate[c] * q[i] - mean) * rstd * g.proj_weight[c] + g.proj_bias[c]);
        T const f = g.f == nullptr ? (x[i] - norm.mean) * norm.rstd * g.scale[i] : g.f[at];
        T out = (f + g.bias[c]) * a;
        if (g.gelu) out = gelu(out);
        out *= keep;
        y[at] = g.residual == nullptr ? out : out + g.residual[at];
      });
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::hormone_gate(view y, view statistics, hormone_gate_operands const& in) {
  with_real(in.x.type, "hormone_gate", [&]<class T>(std::type_identity<T>) {
    gate_operands<T> const g(in);
    for_roomy_rows<T>("hormone_gate", g.rows, g.width, gate_rows<T>{g, y.as<T>(), statistics.as<T>()});
  });
}

}  // namespace ouro
