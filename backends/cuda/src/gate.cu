// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate, forward.
#include "gate.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// Where a thread has few columns, 128 registers are enough.
template <class T, int Chunks, int E, bool Whole, bool Rough>
__global__ void __launch_bounds__(Chunks == 3 ? most_row_threads : 512)
    gate_rows(gate_operands<T> g, real_places<T> y, T* statistics) {
  using own_type = own_columns<Chunks, Whole>;
  using functions = gate_functions<Rough, T>;
  int const d = g.width;
  int const n = g.wide();
  int const repetitions = E > 0 ? E : g.spread;
  bool const norm = E <= 1 && g.f.absent();
  own_type const own(d);
  T const columns = own.template columns_of_warp<T>();
  amount<T> const narrow(columns);
  amount<T> const wide(columns * static_cast<T>(repetitions));
  amount<T> const all_narrow(static_cast<T>(d));
  amount<T> const all_wide(static_cast<T>(n));
  lane_of_row at(blockIdx.x, gridDim.x, g.lane_rows);
  for (index r = blockIdx.x; r < g.rows; r += gridDim.x, at.go_ahead()) {
    // All that the row has to wait for is asked for at once.
    wide_numbers<T, E == 0 ? 0 : 1, own_type> x(own, g.x, g.parts(r), d);
    wide_numbers<T, E, own_type> f(own, g.f, r * n, d);
    wide_numbers<T, E, own_type> residual(own, g.residual, r * n, d);
    quad<T> gates[E > 0 ? E : 1][Chunks];
    if constexpr (E > 0) {
      OURO_UNROLL
      for (int j = 0; j < E; ++j) {
        OURO_UNROLL
        for (int k = 0; k < Chunks; ++k) gates[j][k] = own.load(g.gate, j * d, k);
      }
    }
    auto gate = [&](int j, int k) {
      if constexpr (E > 0) return gates[j][k];
      else return own.load(g.gate, j * d, k);
    };
    kept_columns<T, E, own_type> const kept(g, own, r * n);
    quad<T> q[Chunks];
    x.arrive();
    for (int k = 0; k < own.chunks(); ++k) q[k] = g.folded(x(0, k), r, at.lane(), own, k);

    scatter<T> const folded =
        warp_scatter(narrow, [&](auto const& take) { own.each([&](int k, int v) { take(q[k][v]); }); });
    moments<T> query;
    moments<T> front{};
    if (norm) {
      scatter<T> const parts[2] = {
          folded, warp_scatter(narrow, [&](auto const& take) { own.each([&](int k, int v) { take(x(0, k)[v]); }); })};
      moments<T> found[2];
      block_moments(found, parts, all_narrow, g.epsilon, 0);
      query = found[0];
      front = found[1];
    } else {
      scatter<T> const parts[1] = {folded};
      moments<T> found[1];
      block_moments(found, parts, all_narrow, g.epsilon, 0);
      query = found[0];
    }
    for (int k = 0; k < own.chunks(); ++k) {
      quad<T> const weight = own.load(g.query_weight, 0, k);
      quad<T> const bias = own.load(g.query_bias, 0, k);
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) q[k][v] = (q[k][v] - query.mean) * query.rstd * weight[v] + bias[v];
    }

    scatter<T> const projected[1] = {warp_scatter(wide, [&](auto const& take) {
      OURO_UNROLL
      for (int j = 0; j < repetitions; ++j) own.each([&](int k, int v) { take(gate(j, k)[v] * q[k][v]); });
    })};
    moments<T> projection[1];
    block_moments(projection, projected, all_wide, g.epsilon, 1);
    auto const [mean, rstd] = projection[0];
    if (threadIdx.x == 0) {
      T* const st = statistics + r * hormone_gate_statistics;
      st[query_mean] = query.mean;
      st[query_rstd] = query.rstd;
      st[proj_mean] = mean;
      st[proj_rstd] = rstd;
      st[norm_mean] = front.mean;
      st[norm_rstd] = front.rstd;
    }

    f.arrive();
    residual.arrive();
    OURO_UNROLL
    for (int j = 0; j < repetitions; ++j)
      for (int k = 0; k < own.chunks(); ++k) {
        auto const [weight, shift, bias] = g.parameters(own, j * d, k);
        quad<T> const factor = gate(j, k);
        quad<T> const remains = residual(j, k);
        quad<T> back = f(j, k);
        if (norm) {
          quad<T> const scale = own.load(g.scale, 0, k);
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] = (x(0, k)[v] - front.mean) * front.rstd * scale[v];
        }
        OURO_UNROLL
        for (int v = 0; v < own_width; ++v)
          back[v] = (back[v] + bias[v]) * functions::tanh((factor[v] * q[k][v] - mean) * rstd * weight[v] + shift[v]);
        if (g.gelu) {
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] = functions::gelu(back[v]);
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
  bool const whole = reads_whole(in) && aligned(y);
  with_gate_form<3>(name, in, whole, y.type, [&]<class T, int Chunks, int E, bool Whole, bool Rough>() {
    gate_operands<T> const g(in);
    int const threads = row_threads(g.width, Whole ? Chunks : 1, most_row_threads);
    constexpr auto kernel = gate_rows<T, Chunks, E, Whole, Rough>;
    launch(name, kernel, row_blocks(kernel, g.rows, threads), threads, 0, g, real_places<T>(y), statistics.as<T>());
  });
}

}  // namespace ouro
