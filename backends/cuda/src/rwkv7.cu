// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The RWKV-7 recurrence and its gradient (contract: ouro/concepts/scans.hpp), row by row as it is defined.
#include "functions.hpp"
#include "scans.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
inline constexpr T decay_bound = T(0.60653065971263342);  // e^(−1/2)

template <class T>
struct rwkv7_problem {
  scan_shape s;
  scan_rows<T const> r, w, k, v, a, b;
  T const* state;

  explicit rwkv7_problem(rwkv7_operands const& in)
      : s{in.r.dims[0], in.r.dims[1], in.state.dims[1], in.state.dims[2], in.state.dims[3]},
        r(scan_rows_of<T>(in.r)),
        w(scan_rows_of<T>(in.w)),
        k(scan_rows_of<T>(in.k)),
        v(scan_rows_of<T>(in.v)),
        a(scan_rows_of<T>(in.a)),
        b(scan_rows_of<T>(in.b)),
        state(dense_or_none<T>(in.state)) {}

  /// Row i of a state moves on by row t of the sequence: from `before` to `after`, which may be the same. Returns u_i.
  __device__ T advance(index n, index h, index t, index i, int lane, T const* before, T* after) const {
    T const* const a_t = a.at(n, t, h * s.key);
    T const* const b_t = b.at(n, t, h * s.key);
    T const* const k_t = k.at(n, t, h * s.key);
    T const* const w_t = w.at(n, t, h * s.key);
    T const u = row_sum<T>(s.key, lane, [&](index j) { return before[j] * a_t[j]; });
    T const v_i = *v.at(n, t, h * s.value + i);
    for (index j = lane; j < s.key; j += warp_size)
      after[j] = before[j] * std::exp(-decay_bound<T> * sigmoid(w_t[j])) + u * b_t[j] + v_i * k_t[j];
    return u;
  }
  /// What row i of the state says at row t.
  __device__ T say(index n, index h, index t, index, int lane, T const* S) const {
    T const* const r_t = r.at(n, t, h * s.key);
    return row_sum<T>(s.key, lane, [&](index j) { return S[j] * r_t[j]; });
  }
};

template <class T>
struct rwkv7_slopes {
  scan_rows<T const> dy;
  T const* dlast;  // absent: zero
  scan_rows<T> r, w, k, v, a, b;
  T* state;
  bool state_adds;
};

enum : int { sum_r, sum_k, sum_b, sum_a, sum_d, rwkv7_sums };

template <class T>
__global__ void rwkv7_gradient_kernel(rwkv7_problem<T> p, rwkv7_slopes<T> to, scan_segments segments, T* memory) {
  scan_backwards<T> const back(p.s, segments, memory);
  scan_shape const& s = p.s;
  index const h = back.h;
  index const n = back.n;
  int const lane = back.lane;
  int const warp = back.warp;
  T* const G = back.G;
  T* const u = back.kept;                       // (length,V)
  T* const du = u + segments.length * s.value;  // (V)

  back.begin(p.state, to.dlast,
             [&](index t, index i, T const* before, T* after) { p.advance(n, h, t, i, lane, before, after); });
  int turn = 0;
  for (index segment = segments.count - 1; segment >= 0; --segment) {
    index const first = back.first(segment);
    back.recall(segment, [&](index t, index i, T const* before, T* after) {
      T const u_i = p.advance(n, h, t, i, lane, before, after);
      if (lane == 0) u[(t - first) * s.value + i] = u_i;
    });
    for (index t = back.end(segment) - 1; t >= first; --t, turn = 1 - turn) {
      T const* const before = back.states + (t - first) * s.state();
      T const* const after = before + s.state();
      T const* const r_t = p.r.at(n, t, h * s.key);
      T const* const w_t = p.w.at(n, t, h * s.key);
      T const* const k_t = p.k.at(n, t, h * s.key);
      T const* const v_t = p.v.at(n, t, h * s.value);
      T const* const a_t = p.a.at(n, t, h * s.key);
      T const* const b_t = p.b.at(n, t, h * s.key);
      T const* const up = to.dy.at(n, t, h * s.value);
      T const* const u_t = u + (t - first) * s.value;
      for (index i = warp; i < s.value; i += scan_warps) {
        T* const g = G + i * s.key;
        for (index j = lane; j < s.key; j += warp_size) g[j] += up[i] * r_t[j];
        T const dv = row_sum<T>(s.key, lane, [&](index j) { return g[j] * k_t[j]; });
        T const du_i = row_sum<T>(s.key, lane, [&](index j) { return g[j] * b_t[j]; });
        if (lane == 0) {
          to.v.put_at(n, t, h * s.value + i, dv);
          du[i] = du_i;
        }
      }
      __syncwarp();  // every lane sees du and u
      T* const mine = back.sums + turn * segments.sums;
      for (index j = lane; j < s.key; j += warp_size) {
        T const d = std::exp(-decay_bound<T> * sigmoid(w_t[j]));
        T sum[rwkv7_sums] = {};
        for (index i = warp; i < s.value; i += scan_warps) {
          index const at = i * s.key + j;
          T const g = G[at];
          sum[sum_r] += after[at] * up[i];
          sum[sum_k] += g * v_t[i];
          sum[sum_b] += g * u_t[i];
          sum[sum_a] += before[at] * du[i];
          sum[sum_d] += g * before[at];
          G[at] = g * d + du[i] * a_t[j];
        }
        for (int q = 0; q < rwkv7_sums; ++q) mine[(warp * rwkv7_sums + q) * s.key + j] = sum[q];
      }
      __syncthreads();
      for (index j = threadIdx.x; j < s.key; j += scan_threads) {
        T sum[rwkv7_sums] = {};
        for (int from = 0; from < scan_warps; ++from)
          for (int q = 0; q < rwkv7_sums; ++q) sum[q] += mine[(from * rwkv7_sums + q) * s.key + j];
        T const gate = sigmoid(w_t[j]);
        T const d = std::exp(-decay_bound<T> * gate);
        index const c = h * s.key + j;
        to.r.put_at(n, t, c, sum[sum_r]);
        to.w.put_at(n, t, c, -sum[sum_d] * d * decay_bound<T> * gate * (T(1) - gate));
        to.k.put_at(n, t, c, sum[sum_k]);
        to.a.put_at(n, t, c, sum[sum_a]);
        to.b.put_at(n, t, c, sum[sum_b]);
      }
    }
  }
  back.finish(to.state, to.state_adds);
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::rwkv7_scan(view y, view last, rwkv7_operands const& in) {
  with_real(in.r.type, "rwkv7_scan", [&]<class T>(std::type_identity<T>) {
    rwkv7_problem<T> const p(in);
    for_roomy_rows<T>("rwkv7_scan", p.s.lanes * p.s.heads * p.s.value, p.s.key,
                      scan_forwards<T, rwkv7_problem<T>>{p, scan_rows_of<T>(destination(y)), last.as<T>()});
  });
}

void cuda::rwkv7_scan_gradient(rwkv7_gradients const& to, rwkv7_operands const& in, const_view dy, const_view dlast) {
  with_real(in.r.type, "rwkv7_scan_gradient", [&]<class T>(std::type_identity<T>) {
    rwkv7_problem<T> const p(in);
    scan_segments const segments(p.s, rwkv7_sums, 0, 1);
    index const blocks = p.s.lanes * p.s.heads;
    device_array<T> const memory(blocks * segments.memory());
    launch("rwkv7_scan_gradient", rwkv7_gradient_kernel<T>, blocks, scan_threads, 0, p,
           rwkv7_slopes<T>{scan_rows_of<T>(dy), dense_or_none<T>(dlast), scan_rows_of<T>(to.r), scan_rows_of<T>(to.w),
                           scan_rows_of<T>(to.k), scan_rows_of<T>(to.v), scan_rows_of<T>(to.a), scan_rows_of<T>(to.b),
                           dense_or_none<T>(to.state.out), to.state.accumulate},
           segments, memory.data());
  });
}

}  // namespace ouro
