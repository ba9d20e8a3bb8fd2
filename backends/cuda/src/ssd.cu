// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The recurrence of Mamba-2 and its gradient (contract: ouro/concepts/scans.hpp), row by row as it is defined.
#include "layout.hpp"
#include "scans.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct ssd_problem {
  scan_shape s;
  index groups;
  scan_rows<T const> x, step, b, c;
  T const* rate;
  T const* skip;
  T const* state;

  explicit ssd_problem(ssd_operands const& in)
      : s{in.x.dims[0], in.x.dims[1], in.state.dims[1], in.state.dims[2], in.state.dims[3]},
        groups(in.b.dims[2] / in.state.dims[3]),
        x(scan_rows_of<T>(in.x)),
        step(scan_rows_of<T>(in.step)),
        b(scan_rows_of<T>(in.b)),
        c(scan_rows_of<T>(in.c)),
        rate(in.rate.as<T>()),
        skip(in.skip.as<T>()),
        state(dense_or_none<T>(in.state)) {}

  /// The first column of b and c that head h sees.
  [[nodiscard]] __device__ index shared(index h) const { return h * groups / s.heads * s.key; }
  /// Row i of a state moves on by row t of the sequence.
  __device__ void advance(index n, index h, index t, index i, int lane, T const* before, T* after) const {
    T const* const b_t = b.at(n, t, shared(h));
    T const width = *step.at(n, t, h);
    T const decay = std::exp(width * rate[h]);
    T const value = width * *x.at(n, t, h * s.value + i);
    for (index j = lane; j < s.key; j += warp_size) after[j] = decay * before[j] + value * b_t[j];
  }
  /// What row i of the state says at row t.
  __device__ T say(index n, index h, index t, index i, int lane, T const* S) const {
    T const* const c_t = c.at(n, t, shared(h));
    T const out = row_sum<T>(s.key, lane, [&](index j) { return S[j] * c_t[j]; });
    return out + skip[h] * *x.at(n, t, h * s.value + i);
  }
};

template <class T>
struct ssd_slopes {
  scan_rows<T const> dy;
  T const* dlast;  // absent: zero
  scan_rows<T> x, step;
  T* b;     // (B,T,H,N): each head's part
  T* c;     // (B,T,H,N)
  T* rate;  // (B,H): each lane's part
  T* skip;  // (B,H)
  T* state;
  bool state_adds;
};

enum : int { sum_of_b, sum_of_c, ssd_sums };
enum : int { scalar_step, scalar_dot, scalar_skip, ssd_scalars };

template <class T>
__global__ void ssd_gradient_kernel(ssd_problem<T> p, ssd_slopes<T> to, scan_segments segments, T* memory) {
  scan_backwards<T> const back(p.s, segments, memory);
  scan_shape const& s = p.s;
  index const h = back.h;
  index const n = back.n;
  int const lane = back.lane;
  int const warp = back.warp;
  T* const G = back.G;
  T const rate = p.rate[h];
  T const skip = p.skip[h];
  auto const move = [&](index t, index i, T const* before, T* after) { p.advance(n, h, t, i, lane, before, after); };

  back.begin(p.state, to.dlast, move);
  T of_rate = 0;
  T of_skip = 0;
  int turn = 0;
  for (index segment = segments.count - 1; segment >= 0; --segment) {
    index const first = back.first(segment);
    back.recall(segment, move);
    for (index t = back.end(segment) - 1; t >= first; --t, turn = 1 - turn) {
      T const* const before = back.states + (t - first) * s.state();
      T const* const after = before + s.state();
      T const* const x_t = p.x.at(n, t, h * s.value);
      T const* const b_t = p.b.at(n, t, p.shared(h));
      T const* const c_t = p.c.at(n, t, p.shared(h));
      T const* const up = to.dy.at(n, t, h * s.value);
      T const step = *p.step.at(n, t, h);
      T const decay = std::exp(step * rate);
      T scalar[ssd_scalars] = {};
      for (index i = warp; i < s.value; i += scan_warps) {
        T* const g = G + i * s.key;
        for (index j = lane; j < s.key; j += warp_size) g[j] += up[i] * c_t[j];
        T const Gb = row_sum<T>(s.key, lane, [&](index j) { return g[j] * b_t[j]; });
        scalar[scalar_step] += x_t[i] * Gb;
        scalar[scalar_dot] += row_sum<T>(s.key, lane, [&](index j) { return g[j] * before[i * s.key + j]; });
        scalar[scalar_skip] += up[i] * x_t[i];
        if (lane == 0) to.x.put_at(n, t, h * s.value + i, step * Gb + skip * up[i]);
      }
      T* const mine = back.sums + turn * segments.sums;  // (warps,2,N), then (warps,3)
      T* const scalars = mine + scan_warps * ssd_sums * s.key;
      for (index j = lane; j < s.key; j += warp_size) {
        T sum[ssd_sums] = {};
        for (index i = warp; i < s.value; i += scan_warps) {
          index const at = i * s.key + j;
          sum[sum_of_b] += G[at] * (step * x_t[i]);
          sum[sum_of_c] += after[at] * up[i];
          G[at] *= decay;
        }
        for (int q = 0; q < ssd_sums; ++q) mine[(warp * ssd_sums + q) * s.key + j] = sum[q];
      }
      if (lane == 0)
        for (int q = 0; q < ssd_scalars; ++q) scalars[warp * ssd_scalars + q] = scalar[q];
      __syncthreads();
      for (index j = threadIdx.x; j < s.key; j += scan_threads) {
        T sum[ssd_sums] = {};
        for (int from = 0; from < scan_warps; ++from)
          for (int q = 0; q < ssd_sums; ++q) sum[q] += mine[(from * ssd_sums + q) * s.key + j];
        index const at = ((n * s.rows + t) * s.heads + h) * s.key + j;
        to.b[at] = sum[sum_of_b];
        to.c[at] = sum[sum_of_c];
      }
      if (threadIdx.x == 0) {
        T sum[ssd_scalars] = {};
        for (int from = 0; from < scan_warps; ++from)
          for (int q = 0; q < ssd_scalars; ++q) sum[q] += scalars[from * ssd_scalars + q];
        to.step.put_at(n, t, h, sum[scalar_step] + rate * decay * sum[scalar_dot]);
        of_rate += step * decay * sum[scalar_dot];
        of_skip += sum[scalar_skip];
      }
    }
  }
  if (threadIdx.x == 0) {
    to.rate[back.flat] = of_rate;
    to.skip[back.flat] = of_skip;
  }
  back.finish(to.state, to.state_adds);
}

/// The gradient of b or c: the sum over the heads of a group.
template <class T>
struct sum_heads {
  scan_rows<T> to;
  T const* parts;
  scan_shape s;
  index groups;
  __device__ void operator()(index at) const {
    index const j = at % s.key;
    index const group = at / s.key % groups;
    index const row = at / s.key / groups;
    index const heads = s.heads / groups;
    T sum = 0;
    for (index h = group * heads; h < (group + 1) * heads; ++h) sum += parts[(row * s.heads + h) * s.key + j];
    to.put_at(row / s.rows, row % s.rows, group * s.key + j, sum);
  }
};
/// The gradient of rate or skip: the sum over the lanes.
template <class T>
struct sum_lanes {
  T* to;
  bool accumulate;
  T const* parts;
  scan_shape s;
  __device__ void operator()(index h) const {
    T sum = 0;
    for (index n = 0; n < s.lanes; ++n) sum += parts[n * s.heads + h];
    put(to[h], sum, accumulate);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::ssd_scan(view y, view last, ssd_operands const& in) {
  with_real(in.x.type, "ssd_scan", [&]<class T>(std::type_identity<T>) {
    ssd_problem<T> const p(in);
    for_roomy_rows<T>("ssd_scan", p.s.lanes * p.s.heads * p.s.value, p.s.key,
                      scan_forwards<T, ssd_problem<T>>{p, scan_rows_of<T>(destination(y)), last.as<T>()});
  });
}

void cuda::ssd_scan_gradient(ssd_gradients const& to, ssd_operands const& in, const_view dy, const_view dlast) {
  constexpr auto name = "ssd_scan_gradient";
  with_real(in.x.type, name, [&]<class T>(std::type_identity<T>) {
    ssd_problem<T> const p(in);
    scan_segments const segments(p.s, ssd_sums, ssd_scalars, 0);
    index const blocks = p.s.lanes * p.s.heads;
    index const columns = blocks * p.s.rows * p.s.key;
    device_array<T> const memory(blocks * segments.memory());
    device_array<T> const parts(2 * columns + 2 * blocks);
    T* const scalars = parts.data() + 2 * columns;
    launch(name, ssd_gradient_kernel<T>, blocks, scan_threads, 0, p,
           ssd_slopes<T>{scan_rows_of<T>(dy), dense_or_none<T>(dlast), scan_rows_of<T>(to.x), scan_rows_of<T>(to.step),
                         parts.data(), parts.data() + columns, scalars, scalars + blocks,
                         dense_or_none<T>(to.state.out), to.state.accumulate},
           segments, memory.data());
    index const shared = p.s.lanes * p.s.rows * p.groups * p.s.key;
    if (to.b.wanted()) for_count(name, shared, sum_heads<T>{scan_rows_of<T>(to.b), parts.data(), p.s, p.groups});
    if (to.c.wanted())
      for_count(name, shared, sum_heads<T>{scan_rows_of<T>(to.c), parts.data() + columns, p.s, p.groups});
    if (to.rate.wanted())
      for_count(name, p.s.heads, sum_lanes<T>{to.rate.out.as<T>(), to.rate.accumulate, scalars, p.s});
    if (to.skip.wanted())
      for_count(name, p.s.heads, sum_lanes<T>{to.skip.out.as<T>(), to.skip.accumulate, scalars + blocks, p.s});
  });
}

}  // namespace ouro
