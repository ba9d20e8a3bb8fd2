// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate, forward.
#include "gate.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// 128 registers are enough here.
template <class T, int Chunks, int E, bool Whole>
__global__ void __launch_bounds__(512) gate_rows(gate_operands<T> g, T* y, T* statistics) {
  using own_type = own_columns<Chunks, Whole>;
  index const d = g.width;
  index const n = g.wide();
  int const repetitions = E > 0 ? E : static_cast<int>(g.spread);
  bool const norm = E <= 1 && g.f == nullptr;
  own_type const own(d);
  T const columns = own.template columns_of_warp<T>();
  for (index r = blockIdx.x; r < g.rows; r += gridDim.x) {
    // All that the row has to wait for is asked for at once.
    wide_numbers<T, E, own_type> const f(own, norm ? g.x : g.f, r * n, d);
    wide_numbers<T, E, own_type> const residual(own, g.residual, r * n, d);
    wide_numbers<T, E, own_type> const gate(own, g.gate, 0, d);
    kept_columns<T, E, own_type> const kept(g, own, r * n);
    quad<T> q[Chunks];
    index const lane = g.lane_of(r);
    for (int k = 0; k < own.chunks(); ++k) q[k] = g.folded(r, lane, own, k);

    scatter<T> parts[E <= 1 ? 2 : 1] = {};
    moments<T> found[E <= 1 ? 2 : 1];
    parts[0] = warp_scatter(columns, [&](auto const& take) { own.each([&](int k, int v) { take(q[k][v]); }); });
    if (norm)
      parts[E <= 1 ? 1 : 0] =
          warp_scatter(columns, [&](auto const& take) { own.each([&](int k, int v) { take(f(0, k)[v]); }); });
    block_moments(found, parts, columns, static_cast<T>(d), g.epsilon, 0);
    moments<T> const query = found[0];
    moments<T> const x = norm ? found[E <= 1 ? 1 : 0] : moments<T>{};
    for (int k = 0; k < own.chunks(); ++k) {
      quad<T> const weight = own.load(g.query_weight, 0, k);
      quad<T> const bias = own.load(g.query_bias, 0, k);
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) q[k][v] = (q[k][v] - query.mean) * query.rstd * weight[v] + bias[v];
    }

    scatter<T> const projected[1] = {warp_scatter(columns * static_cast<T>(repetitions), [&](auto const& take) {
      OURO_UNROLL
      for (int j = 0; j < repetitions; ++j) own.each([&](int k, int v) { take(gate(j, k)[v] * q[k][v]); });
    })};
    moments<T> projection[1];
    block_moments(projection, projected, columns * static_cast<T>(repetitions), static_cast<T>(n), g.epsilon, 1);
    auto const [mean, rstd] = projection[0];
    if (threadIdx.x == 0) {
      T* const st = statistics + r * hormone_gate_statistics;
      st[query_mean] = query.mean;
      st[query_rstd] = query.rstd;
      st[proj_mean] = mean;
      st[proj_rstd] = rstd;
      st[norm_mean] = x.mean;
      st[norm_rstd] = x.rstd;
    }

    OURO_UNROLL
    for (int j = 0; j < repetitions; ++j)
      for (int k = 0; k < own.chunks(); ++k) {
        quad<T> const weight = own.load(g.proj_weight, j * d, k);
        quad<T> const shift = own.load(g.proj_bias, j * d, k);
        quad<T> const bias = own.load(g.bias, j * d, k);
        quad<T> const factor = gate(j, k);
        quad<T> const remains = residual(j, k);
        quad<T> back = f(j, k);
        if (norm) {
          quad<T> const scale = own.load(g.scale, 0, k);
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] = (back[v] - x.mean) * x.rstd * scale[v];
        }
        OURO_UNROLL
        for (int v = 0; v < own_width; ++v)
          back[v] = (back[v] + bias[v]) * std::tanh((factor[v] * q[k][v] - mean) * rstd * weight[v] + shift[v]);
        if (g.gelu) {
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] = gelu(back[v]);
        }
        OURO_UNROLL
        for (int v = 0; v < own_width; ++v) back[v] = back[v] * (kept(j, k, v) ? g.factor : T(0)) + remains[v];
        own.store(y, r * n + j * d, k, back);
      }
  }
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::hormone_gate(view y, view statistics, hormone_gate_operands const& in) {
  constexpr auto name = "hormone_gate";
  bool const whole = reads_whole(in) && aligned(y.data);
  with_gate_form(name, in, whole, [&]<class T, int Chunks, int E, bool Whole>() {
    gate_operands<T> const g(in);
    int const threads = row_threads(g.width, Whole ? Chunks : 1, most_row_threads);
    constexpr auto kernel = gate_rows<T, Chunks, E, Whole>;
    launch(name, kernel, row_blocks(kernel, g.rows, threads), threads, 0, g, y.as<T>(), statistics.as<T>());
  });
}

}  // namespace ouro
