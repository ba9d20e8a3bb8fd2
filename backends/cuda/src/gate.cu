// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate, forward.
#include "gate.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// How many registers a thread may have: where it has few columns 128 are enough; where rows are on their way, and not too much
/// of them is a thread's, as few as leave room for two or three blocks of the largest.
template <class Form>
struct gate_bounds {
  static constexpr bool widest = Form::spread == 4 && Form::ahead;
  static constexpr int threads = widest || Form::chunks >= 3 ? most_row_threads : 512;
  static constexpr bool longest = Form::chunks > 3 && Form::remains;
  static constexpr int blocks = !Form::ahead || longest ? 1 : Form::chunks == 1 ? 3 : 2;
};

template <class Form, class T = typename Form::number>
__global__ void __launch_bounds__(gate_bounds<Form>::threads, gate_bounds<Form>::blocks)
    gate_rows(gate_operands<T> g, real_places<T> y, real_places<T> sums, T* statistics) {
  using own_type = typename Form::own_type;
  using functions = typename Form::functions;
  constexpr int Chunks = Form::chunks;
  constexpr int E = Form::spread;
  real_places<T, typename Form::storage::y> const y_rows(y);
  real_places<T, typename Form::storage::folded> const sum_rows(sums);
  int const d = g.width;
  int const n = g.wide();
  int const repetitions = E > 0 ? E : g.spread;
  bool const norm = E <= 1 && Form::has_norm(g);
  own_type const own(d);
  T const columns = own.template columns_of_warp<T>();
  amount<T> const narrow(columns);
  amount<T> const wide(columns * static_cast<T>(repetitions));
  amount<T> const all_narrow(static_cast<T>(d));
  amount<T> const all_wide(static_cast<T>(n));
  // Where results are rounded to bf16 and repetitions are many, the moments of a projection are taken for all of them at once.
  constexpr bool brief = Form::ahead && E > 1;
  quad<T> gate_sum[brief ? Chunks : 1] = {};  // over the repetitions
  quad<T> gate_squares[brief ? Chunks : 1] = {};
  if constexpr (brief) {
    for (int j = 0; j < E; ++j)
      for (int k = 0; k < Chunks; ++k) {
        quad<T> const gate = own.load(g.gate, j * d, k);
        for (int v = 0; v < own_width; ++v) {
          gate_sum[k][v] += gate[v];
          gate_squares[k][v] += gate[v] * gate[v];
        }
      }
  }
  char* room = shared_memory<char>();
  typename Form::x_queue const x_queue(own, g.x, room);
  typename Form::f_queue const f_queue(own, g.f, room);
  typename Form::residual_queue const residual_queue(own, g.residual, room);
  auto ask = [&](index r, int stage) {
    if constexpr (!Form::ahead) return;
    if (r < g.rows) {
      x_queue.ask(r * d, d, stage);
      f_queue.ask(r * n, d, stage);
      residual_queue.ask(r * n, d, stage);
    }
    close_loads();
  };
  typename Form::kept_type kept(g, own);
  ask(blockIdx.x, 0);
  int stage = 0;
  lane_of_row at(blockIdx.x, gridDim.x, g.lane_rows);
  for (index r = blockIdx.x; r < g.rows; r += gridDim.x, at.go_ahead(), stage = 1 - stage) {
    ask(r + gridDim.x, 1 - stage);
    if constexpr (Form::ahead) finish_loads_but_last();
    // Without a queue, all that the row has to wait for is asked for at once.
    auto x = x_queue.take(r * d, d, stage);
    auto f = f_queue.take(r * n, d, stage);
    auto residual = residual_queue.take(r * n, d, stage);
    constexpr int held = brief ? 0 : E;
    quad<T> gates[held > 0 ? held : 1][Chunks];
    OURO_UNROLL
    for (int j = 0; j < held; ++j) {
      OURO_UNROLL
      for (int k = 0; k < Chunks; ++k) gates[j][k] = own.load(g.gate, j * d, k);
    }
    auto gate = [&](int j, int k) {
      if constexpr (held > 0) return gates[j][k];
      else return own.load(g.gate, j * d, k);
    };
    kept.take(r * n, (r + gridDim.x) * n, stage);
    quad<T> q[Chunks];
    x.arrive();
    for (int k = 0; k < own.chunks(); ++k) {
      q[k] = own.load(g.h + at.lane() * d, 0, k);
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) q[k][v] += x(0, k)[v];
    }

    scatter<T> const asked =
        warp_scatter(narrow, [&](auto const& take) { own.each([&](int k, int v) { take(q[k][v]); }); });
    moments<T> query;
    moments<T> front{};
    if (norm) {
      scatter<T> const parts[2] = {
          asked, warp_scatter(narrow, [&](auto const& take) { own.each([&](int k, int v) { take(x(0, k)[v]); }); })};
      moments<T> found[2];
      block_moments(found, parts, all_narrow, g.epsilon, 0);
      query = found[0];
      front = found[1];
    } else {
      scatter<T> const parts[1] = {asked};
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

    scatter<T> projected[1];
    if constexpr (brief) {
      T sum = 0;
      T squares = 0;
      own.each([&](int k, int v) {
        sum += gate_sum[k][v] * q[k][v];
        squares += gate_squares[k][v] * q[k][v] * q[k][v];
      });
      projected[0] = warp_scatter(wide, sum, squares);
    } else {
      projected[0] = warp_scatter(wide, [&](auto const& take) {
        OURO_UNROLL
        for (int j = 0; j < repetitions; ++j) own.each([&](int k, int v) { take(gate(j, k)[v] * q[k][v]); });
      });
    }
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

    T const level = mean * rstd;  // below, q is over the deviation: the projection is gate · q - level
    for (int k = 0; k < own.chunks(); ++k) {
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) q[k][v] *= rstd;
    }
    f.arrive();
    residual.arrive();
    quad<T> sum[Form::folds ? Chunks : 1] = {};  // over the repetitions
    OURO_UNROLL
    for (int j = 0; j < repetitions; ++j)
      for (int k = 0; k < own.chunks(); ++k) {
        quad<T> const weight = own.load(g.proj_weight, j * d, k);
        quad<T> const shift = own.load(g.proj_bias, j * d, k);
        quad<T> const bias = own.load(g.bias, j * d, k);
        quad<T> const factor = gate(j, k);
        quad<T> back = f(j, k);
        if (norm) {
          quad<T> const scale = own.load(g.scale, 0, k);
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] = (x(0, k)[v] - front.mean) * front.rstd * scale[v];
        }
        OURO_UNROLL
        for (int v = 0; v < own_width; ++v)
          back[v] = (back[v] + bias[v]) * functions::tanh((factor[v] * q[k][v] - level) * weight[v] + shift[v]);
        if (Form::has_gelu(g)) {
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] = functions::gelu(back[v]);
        }
        if constexpr (Form::drops) {
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] *= kept(j, k, v) ? g.factor : T(0);
        }
        if constexpr (Form::remains) {
          quad<T> const remains = residual(j, k);
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] += remains[v];
        }
        own.store(y_rows, r * n + j * d, k, back);
        if constexpr (Form::folds) {
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) sum[k][v] += back[v];
        }
      }
    if constexpr (Form::folds)
      if (!sum_rows.absent())
        for (int k = 0; k < own.chunks(); ++k) own.store(sum_rows, r * d, k, sum[k]);
  }
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::hormone_gate(hormone_gate_results const& to, hormone_gate_operands const& in) {
  constexpr auto name = "hormone_gate";
  bool const whole = reads_whole(in) && aligned(to.y) && aligned(to.folded);
  gate_kind kind = kind_of(in, to.y.type, to.folded);
  bool const remains = !in.residual.empty();
  if (remains != (kind == gate_kind::outer) || (remains && in.residual.type != dtype::f32)) kind = gate_kind::any;
  with_gate_form<4>(name, in, whole, kind, [&]<class Form>() {
    using T = typename Form::number;
    gate_operands<T> const g(in);
    constexpr auto kernel = gate_rows<Form>;
    int const threads = Form::threads(g.width);
    auto const room =
        queue_room<typename Form::x_queue, typename Form::f_queue, typename Form::residual_queue>(threads);
    launch(name, kernel, row_blocks(kernel, g.rows, threads, room), threads, room, g, real_places<T>(to.y),
           real_places<T>(to.folded), to.statistics.as<T>());
  });
}

}  // namespace ouro
