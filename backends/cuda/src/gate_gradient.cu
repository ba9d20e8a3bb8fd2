// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The gradient of the hormone gate: one pass over the rows makes what belongs to a row and sums what is summed over rows.
#include "gate.hpp"
#include "row_sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// The sums over rows: the first four are as wide as the result, the others as wide as the query.
enum : int { of_bias, of_proj_weight, of_proj_bias, of_gate, of_query_weight, of_query_bias, of_scale, of_h };
inline constexpr int wide_sums = 4;
inline constexpr int narrow_sums = 4;
inline constexpr int gate_sums = wide_sums + narrow_sums;

/// What a thread adds up of the wide sums: in registers, or without E in the part that its block leaves.
template <class T, int E, class Own>
struct wide_totals {
  quad<T> total[wide_sums][E][Own::count] = {};
  __device__ wide_totals(Own const&, row_sums<T, gate_sums> const&, int) {}
  __device__ void add(int s, int j, int k, int v, T x) { total[s][j][k][v] += x; }
  __device__ void leave(row_sums<T, gate_sums> const& to, Own const& own, int width) const {
    OURO_UNROLL
    for (int s = 0; s < wide_sums; ++s) {
      OURO_UNROLL
      for (int j = 0; j < E; ++j) {
        OURO_UNROLL
        for (int k = 0; k < Own::count; ++k) to.leave(s, j * width, own, k, total[s][j][k]);
      }
    }
  }
};
template <class T, class Own>
struct wide_totals<T, 0, Own> {
  Own const& own;
  T* part;
  int width;
  int columns;
  __device__ wide_totals(Own const& o, row_sums<T, gate_sums> const& to, int d)
      : own(o),
        part(to.part + static_cast<index>(blockIdx.x) * to.stride),
        width(d),
        columns(static_cast<int>(to.sum[of_bias].columns)) {
    for (int row = 0; row < wide_sums * columns; row += width)
      for (int k = 0; k < own.chunks(); ++k) own.store(part, row, k, quad<T>{});
  }
  __device__ void add(int s, int j, int k, int v, T x) { part[s * columns + j * width + own.first(k) + v] += x; }
  __device__ void leave(row_sums<T, gate_sums> const& to, Own const&, int) const {
    if (to.blocks > 1) return;
    for (int s = 0; s < wide_sums; ++s)
      for (int row = 0; row < columns; row += width)
        for (int k = 0; k < own.chunks(); ++k) {
          quad<T> total{};
          for (int v = 0; v < own_width; ++v)
            if (own.has(k, v)) total[v] = part[s * columns + row + own.first(k) + v];
          to.leave(s, row, own, k, total);
        }
  }
};

/// The parameters of a thread's columns, which every row asks for again: where rows are on their way in shared memory, so are
/// these, at places that are known when the kernel is compiled.
template <class Form>
class gate_columns {
  using T = typename Form::number;
  using own_type = typename Form::own_type;
  static constexpr int chunks = Form::chunks;
  static constexpr int spread = Form::spread;
  static constexpr bool kept = Form::ahead;
  enum { at_h, at_query_weight, at_query_bias, at_scale };
  enum { at_gate, at_proj_weight, at_proj_bias, at_bias, wide_count };
  static constexpr int narrow_count = Form::kind == gate_kind::norm ? 4 : 3;
  static constexpr int quads = ((narrow_count + wide_count * spread) * chunks) | 1;  // an odd number, for the banks

 public:
  static constexpr int bytes = kept ? quads * static_cast<int>(sizeof(quad<T>)) : 0;  // of a thread

  __device__ gate_columns(gate_operands<T> const& g, own_type const& own, char*& room)
      : g_(g), own_(own), mine_(reinterpret_cast<quad<T>*>(room + bytes * static_cast<int>(threadIdx.x))) {
    room += bytes * static_cast<int>(blockDim.x);
    if constexpr (kept) {
      OURO_UNROLL
      for (int k = 0; k < chunks; ++k) {
        narrow_place(at_query_weight, k) = own.load(g.query_weight, 0, k);
        narrow_place(at_query_bias, k) = own.load(g.query_bias, 0, k);
        if constexpr (narrow_count > at_scale) narrow_place(at_scale, k) = own.load(g.scale, 0, k);
        OURO_UNROLL
        for (int j = 0; j < spread; ++j) {
          wide_place(at_gate, j, k) = own.load(g.gate, j * g.width, k);
          wide_place(at_proj_weight, j, k) = own.load(g.proj_weight, j * g.width, k);
          wide_place(at_proj_bias, j, k) = own.load(g.proj_bias, j * g.width, k);
          wide_place(at_bias, j, k) = own.load(g.bias, j * g.width, k);
        }
      }
    }
  }
  /// From here on rows are of this lane.
  __device__ void hear(index lane) {
    heard_ = g_.h + lane * g_.width;
    if constexpr (kept) {
      OURO_UNROLL
      for (int k = 0; k < chunks; ++k) narrow_place(at_h, k) = own_.load(heard_, 0, k);
    }
  }
  [[nodiscard]] __device__ quad<T> h(int k) const { return narrow_of(at_h, heard_, k); }
  [[nodiscard]] __device__ quad<T> query_weight(int k) const { return narrow_of(at_query_weight, g_.query_weight, k); }
  [[nodiscard]] __device__ quad<T> query_bias(int k) const { return narrow_of(at_query_bias, g_.query_bias, k); }
  [[nodiscard]] __device__ quad<T> scale(int k) const { return narrow_of(at_scale, g_.scale, k); }
  [[nodiscard]] __device__ quad<T> gate(int j, int k) const { return wide_of(at_gate, g_.gate, j, k); }
  [[nodiscard]] __device__ quad<T> proj_weight(int j, int k) const {
    return wide_of(at_proj_weight, g_.proj_weight, j, k);
  }
  [[nodiscard]] __device__ quad<T> proj_bias(int j, int k) const { return wide_of(at_proj_bias, g_.proj_bias, j, k); }
  [[nodiscard]] __device__ quad<T> bias(int j, int k) const { return wide_of(at_bias, g_.bias, j, k); }

 private:
  [[nodiscard]] __device__ quad<T>& narrow_place(int parameter, int k) const { return mine_[parameter * chunks + k]; }
  [[nodiscard]] __device__ quad<T>& wide_place(int parameter, int j, int k) const {
    return mine_[(narrow_count + parameter * spread + j) * chunks + k];
  }
  [[nodiscard]] __device__ quad<T> narrow_of(int parameter, T const* from, int k) const {
    if constexpr (kept) return narrow_place(parameter, k);
    else return own_.load(from, 0, k);
  }
  [[nodiscard]] __device__ quad<T> wide_of(int parameter, T const* from, int j, int k) const {
    if constexpr (kept) return wide_place(parameter, j, k);
    else return own_.load(from, j * g_.width, k);
  }

  gate_operands<T> const& g_;
  own_type const& own_;
  quad<T>* mine_;
  T const* heard_ = nullptr;
};

template <class T>
struct gate_slopes {
  T const* statistics;
  reals<T> dy, dfolded, old;
  real_places<T> dx, df;
  T* dh;  // where a block has whole lanes
  bool dh_adds;
};

/// Where a thread adds up little, 128 registers are enough.
template <class Form, class T = typename Form::number>
__global__ void __launch_bounds__(Form::chunks == 1 && Form::spread <= 2 ? 512 : most_row_threads)
    gate_row_slopes(gate_operands<T> g, gate_slopes<T> to, row_shares shares, row_sums<T, gate_sums> sums) {
  using own_type = typename Form::own_type;
  using functions = typename Form::functions;
  constexpr int Chunks = Form::chunks;
  constexpr int E = Form::spread;
  real_places<T, typename Form::storage::x> dx_rows(to.dx);
  real_places<T, typename Form::storage::f> df_rows(to.df);
  if constexpr (Form::ahead) dx_rows.adds = df_rows.adds = false;  // what dx is added to comes with the operands
  int const d = g.width;
  int const n = g.wide();
  int const repetitions = E > 0 ? E : g.spread;
  bool const norm = E <= 1 && Form::has_norm(g);
  constexpr int first_sums = E <= 1 ? 4 : 2;
  T const wide_inverse = T(1) / static_cast<T>(n);
  T const narrow_inverse = T(1) / static_cast<T>(d);
  own_type const own(d);
  wide_totals<T, E, own_type> wide(own, sums, d);
  quad<T> narrow[narrow_sums][Chunks] = {};
  constexpr int w = of_query_weight - wide_sums, b = of_query_bias - wide_sums, c = of_scale - wide_sums,
                h = of_h - wide_sums;
  index const end = shares.to();
  index lane = shares.from() / g.lane_rows;
  index lane_end = (lane + 1) * g.lane_rows;

  char* room = shared_memory<char>();
  gate_columns<Form> columns(g, own, room);
  columns.hear(lane);
  typename Form::x_queue const x_queue(own, g.x, room);
  typename Form::f_queue const f_queue(own, g.f, room);
  typename Form::dy_queue const dy_queue(own, to.dy, room);
  typename Form::dfolded_queue const dfolded_queue(own, to.dfolded, room);
  typename Form::old_queue const old_queue(own, to.old, room);
  typename Form::numbers_queue const statistics(to.statistics, room);
  auto ask = [&](index r, int stage) {
    if constexpr (!Form::ahead) return;
    if (r < end) {
      x_queue.ask(r * d, d, stage);
      f_queue.ask(r * n, d, stage);
      dy_queue.ask(r * n, d, stage);
      dfolded_queue.ask(r * d, d, stage);
      if (to.dx.adds) old_queue.ask(r * n, d, stage);
      statistics.ask(r, stage);
    }
    close_loads();
  };
  typename Form::kept_type kept(g, own);
  ask(shares.from(), 0);
  int stage = 0;
  for (index r = shares.from(); r < end; ++r, stage = 1 - stage) {
    ask(r + 1, 1 - stage);
    if constexpr (Form::ahead) finish_loads_but_last();
    auto x = x_queue.take(r * d, d, stage);
    auto f = f_queue.take(r * n, d, stage);
    auto dy = dy_queue.take(r * n, d, stage);
    auto dfolded = dfolded_queue.take(r * d, d, stage);
    kept.take(r * n, (r + 1) * n, stage);
    T const* const st = statistics.take(r, stage);
    moments<T> const query{st[query_mean], st[query_rstd]};
    moments<T> const projection{st[proj_mean], st[proj_rstd]};
    moments<T> const front{st[norm_mean], st[norm_rstd]};
    quad<T> qhat[Chunks];
    quad<T> q[Chunks];  // over the deviation of the projection, whose standard form is then gate · q - level
    T const level = projection.mean * projection.rstd;
    x.arrive();
    for (int k = 0; k < own.chunks(); ++k) {
      quad<T> const heard = columns.h(k);
      quad<T> const weight = columns.query_weight(k);
      quad<T> const bias = columns.query_bias(k);
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) {
        qhat[k][v] = (x(0, k)[v] + heard[v] - query.mean) * query.rstd;
        q[k][v] = (qhat[k][v] * weight[v] + bias[v]) * projection.rstd;
      }
    }

    // Back to f + bias, and to the projection before its weight. Its norm has two terms more, which the row's means make:
    // they are taken off when these are known.
    T means[first_sums] = {};  // of the projection's gradient, and of that times the projection; of the norm's likewise
    quad<T> dq[Chunks] = {};   // Σ_j of the projection's gradient times the gate
    quad<T> slope[Chunks] = {};  // towards f + bias; kept for the norm, which has j = 0 only
    f.arrive();
    dy.arrive();
    dfolded.arrive();
    OURO_UNROLL
    for (int j = 0; j < repetitions; ++j)
      for (int k = 0; k < own.chunks(); ++k) {
        quad<T> const gate = columns.gate(j, k);
        quad<T> const weight = columns.proj_weight(j, k);
        quad<T> const shift = columns.proj_bias(j, k);
        quad<T> const bias = columns.bias(j, k);
        quad<T> const scale = norm ? columns.scale(k) : quad<T>{};
        quad<T> value = f(j, k);
        quad<T> standard{};
        if (norm) {
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) {
            standard[v] = (x(0, k)[v] - front.mean) * front.rstd;
            value[v] = standard[v] * scale[v];
          }
        }
        quad<T> p;
        quad<T> a;
        quad<T> result;  // before the GELU
        OURO_UNROLL
        for (int v = 0; v < own_width; ++v) {
          value[v] += bias[v];
          p[v] = gate[v] * q[k][v] - level;
          a[v] = functions::tanh(p[v] * weight[v] + shift[v]);
          result[v] = value[v] * a[v];
        }
        quad<T> back = dy(j, k);
        if constexpr (Form::folds) {
          quad<T> const of_all = dfolded(0, k);
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] += of_all[v];
        }
        if (Form::has_gelu(g)) {
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v) back[v] *= functions::gelu_slope(result[v]);
        }
        OURO_UNROLL
        for (int v = 0; v < own_width; ++v) {
          if (Form::ragged && !own.has(k, v)) continue;
          if constexpr (Form::drops) back[v] *= kept(j, k, v) ? g.factor : T(0);
          slope[k][v] = back[v] * a[v];
          T const turn = back[v] * value[v] - slope[k][v] * result[v];  // back · value · (1 - a²)
          T const weighed = turn * weight[v];
          dq[k][v] += weighed * gate[v];
          means[0] += weighed;
          wide.add(of_bias, j, k, v, slope[k][v]);
          wide.add(of_proj_weight, j, k, v, turn * p[v]);
          wide.add(of_proj_bias, j, k, v, turn);
          wide.add(of_gate, j, k, v, weighed * q[k][v]);
        }
        if constexpr (E <= 1)
          if (norm) {
            OURO_UNROLL
            for (int v = 0; v < own_width; ++v) {
              if (Form::ragged && !own.has(k, v)) continue;
              means[2] += slope[k][v] * scale[v];
              means[3] += slope[k][v] * scale[v] * standard[v];
              narrow[c][k][v] += slope[k][v] * standard[v];
            }
          }
        if (!df_rows.absent()) own.store(df_rows, r * n + j * d, k, slope[k]);
      }
    means[1] = -level * means[0];
    for (int k = 0; k < own.chunks(); ++k) {
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) means[1] += dq[k][v] * q[k][v];
    }
    block_sums(means, 0);
    OURO_UNROLL
    for (int m = 0; m < first_sums; ++m) means[m] *= wide_inverse;

    // Back through the norm of the projection to the query.
    T pulls[2] = {};
    T const flat = means[0] - level * means[1];
    OURO_UNROLL
    for (int j = 0; j < repetitions; ++j)
      for (int k = 0; k < own.chunks(); ++k) {
        quad<T> const gate = columns.gate(j, k);
        OURO_UNROLL
        for (int v = 0; v < own_width; ++v) {
          if (Form::ragged && !own.has(k, v)) continue;
          T const common = flat + means[1] * q[k][v] * gate[v];
          dq[k][v] -= common * gate[v];
          wide.add(of_gate, j, k, v, -common * q[k][v]);
        }
      }
    for (int k = 0; k < own.chunks(); ++k) {
      quad<T> const weight = columns.query_weight(k);
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) {
        T const pull = dq[k][v] * projection.rstd;
        narrow[w][k][v] += pull * qhat[k][v];
        narrow[b][k][v] += pull;
        dq[k][v] = pull * weight[v];
        pulls[0] += dq[k][v];
        pulls[1] += dq[k][v] * qhat[k][v];
      }
    }
    block_sums(pulls, 1);
    OURO_UNROLL
    for (int m = 0; m < 2; ++m) pulls[m] *= narrow_inverse;

    // Back through the norm of the query to x and h; without f, x has a norm of its own.
    bool const lane_ends = r + 1 == lane_end;
    for (int k = 0; k < own.chunks(); ++k) {
      quad<T> back;
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v) {
        back[v] = query.rstd * (dq[k][v] - pulls[0] - qhat[k][v] * pulls[1]);
        narrow[h][k][v] += back[v];
      }
      if (to.dh != nullptr && lane_ends) {
        own.store(to.dh + lane * d, 0, k, narrow[h][k], to.dh_adds);
        narrow[h][k] = {};
      }
      if (dx_rows.absent()) continue;
      if constexpr (E <= 1)
        if (norm) {
          quad<T> const scale = columns.scale(k);
          OURO_UNROLL
          for (int v = 0; v < own_width; ++v)
            back[v] +=
                front.rstd * (slope[k][v] * scale[v] - means[2] - (x(0, k)[v] - front.mean) * front.rstd * means[3]);
        }
      if (Form::ahead && to.dx.adds) {
        auto const old = old_queue.take(r * n, d, stage);
        OURO_UNROLL
        for (int v = 0; v < own_width; ++v) back[v] += old(0, k)[v];
      }
      own.store(dx_rows, r * d, k, back);
    }
    if (lane_ends && r + 1 < end) {
      columns.hear(++lane);
      lane_end += g.lane_rows;
    }
  }

  wide.leave(sums, own, d);
  OURO_UNROLL
  for (int s = 0; s < narrow_sums; ++s)
    for (int k = 0; k < own.chunks(); ++k) sums.leave(wide_sums + s, 0, own, k, narrow[s][k]);
}

/// Whether four numbers at a time can be written to all that is wanted.
bool writes_whole(hormone_gate_gradients const& to) {
  for (auto const* d : {&to.x, &to.h, &to.f, &to.scale, &to.bias, &to.query_weight, &to.query_bias, &to.gate,
                        &to.proj_weight, &to.proj_bias})
    if (!aligned(d->out)) return false;
  return true;
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::hormone_gate_gradient(hormone_gate_gradients const& to, hormone_gate_operands const& in,
                                 const_view statistics, const_view dy, const_view dfolded) {
  constexpr auto name = "hormone_gate_gradient";
  bool const whole = reads_whole(in) && writes_whole(to) && aligned(dy) && aligned(dfolded);
  gate_kind kind = kind_of(in, dy.type, dfolded);
  auto like = [](destination const& d, const_view const& v) { return d.wanted() && d.out.type == v.type; };
  bool const known = like(to.x, in.x) && (in.f.empty() || (like(to.f, in.f) && !to.f.accumulate && !to.x.accumulate));
  if (!known) kind = gate_kind::any;
  bool too_large = false;  // for a block's shared memory, beside what a kernel has of it in any case
  auto make = [&]<class Form>() {
    using T = typename Form::number;
    gate_operands<T> const g(in);
    index const d = g.width;
    index const n = g.wide();
    constexpr auto kernel = gate_row_slopes<Form>;
    int const threads = Form::threads(d);
    auto const room =
        queue_room<gate_columns<Form>, typename Form::x_queue, typename Form::f_queue, typename Form::dy_queue,
                   typename Form::dfolded_queue, typename Form::old_queue, typename Form::numbers_queue>(threads);
    too_large = room + 4096 > shared_memory_limit();
    if (too_large) return;
    auto const shares = share_rows(kernel, threads, g.rows, g.lane_rows, room);
    bool const whole_lanes = shares.pieces == 1;
    index const stride = wide_sums * n + narrow_sums * d;
    device_array<T> const parts(shares.blocks() * stride);
    auto sum = [](destination const& s, index columns, index at) {
      return row_sum_place<T>{place_of<T>(s), s.accumulate, columns, 1, at};
    };
    row_sums<T, gate_sums> sums{
        {sum(to.bias, n, 0), sum(to.proj_weight, n, n), sum(to.proj_bias, n, 2 * n), sum(to.gate, n, 3 * n),
         sum(to.query_weight, d, 4 * n), sum(to.query_bias, d, 4 * n + d), sum(to.scale, d, 4 * n + 2 * d),
         row_sum_place<T>{whole_lanes ? nullptr : place_of<T>(to.h), to.h.accumulate, d, g.rows / g.lane_rows,
                          4 * n + 3 * d}},
        parts.data(),
        stride,
        shares.blocks()};
    gate_slopes<T> const slopes{statistics.as<T>(),
                                reals<T>(dy),
                                reals<T>(dfolded),
                                reals<T>(const_view(to.x.out)),
                                real_places<T>(to.x),
                                real_places<T>(to.f),
                                whole_lanes ? place_of<T>(to.h) : nullptr,
                                to.h.accumulate};
    if (shares.blocks() == 1 || whole_lanes) join_branch();  // it takes sums itself
    launch(name, kernel, shares.blocks(), threads, room, g, slopes, shares, sums);
    finish(
        name, sums,
        all_beside({to.h, to.scale, to.bias, to.query_weight, to.query_bias, to.gate, to.proj_weight, to.proj_bias}));
  };
  with_gate_form<2>(name, in, whole, kind, make);
  if (too_large) with_gate_form<2>(name, in, whole, gate_kind::any, make);
}

}  // namespace ouro
