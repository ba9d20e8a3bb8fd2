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
};

template <class T>
struct rwkv7_rows {
  rwkv7_problem<T> p;
  scan_rows<T> y;
  T* last;

  __device__ void operator()(index place, int lane, T* S) const {
    index const i = place % p.s.value;
    index const flat = place / p.s.value;
    index const h = flat % p.s.heads;
    index const n = flat / p.s.heads;
    for (index j = lane; j < p.s.key; j += warp_size) S[j] = p.state[place * p.s.key + j];
    for (index t = 0; t < p.s.rows; ++t) {
      p.advance(n, h, t, i, lane, S, S);
      T const* const r_t = p.r.at(n, t, h * p.s.key);
      T const out = row_sum<T>(p.s.key, lane, [&](index j) { return S[j] * r_t[j]; });
      if (lane == 0) y.put_at(n, t, h * p.s.value + i, out);
    }
    for (index j = lane; j < p.s.key; j += warp_size) last[place * p.s.key + j] = S[j];
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
  scan_shape const s = p.s;
  index const flat = blockIdx.x;
  index const h = flat % s.heads;
  index const n = flat / s.heads;
  int const lane = lane_number();
  int const warp = static_cast<int>(threadIdx.x) / warp_size;
  T* const starts = memory + flat * segments.memory();      // (count,V,K)
  T* const states = starts + segments.count * s.state();    // (length + 1,V,K)
  T* const G = states + (segments.length + 1) * s.state();  // (V,K)
  T* const sums = starts + segments.states;                 // (2,warps,5,K)
  T* const u = sums + 2 * segments.sums;                    // (length,V)
  T* const du = u + segments.length * s.value;              // (V)

  for (index i = warp; i < s.value; i += scan_warps) {
    T* const S = states + i * s.key;
    for (index j = lane; j < s.key; j += warp_size) {
      S[j] = p.state[flat * s.state() + i * s.key + j];
      G[i * s.key + j] = to.dlast == nullptr ? T(0) : to.dlast[flat * s.state() + i * s.key + j];
    }
    for (index t = 0; t < s.rows; ++t) {
      if (t % segments.length == 0)
        for (index j = lane; j < s.key; j += warp_size) starts[t / segments.length * s.state() + i * s.key + j] = S[j];
      p.advance(n, h, t, i, lane, S, S);
    }
  }
  int turn = 0;
  for (index segment = segments.count - 1; segment >= 0; --segment) {
    index const first = segment * segments.length;
    index const end = first + segments.length < s.rows ? first + segments.length : s.rows;
    for (index i = warp; i < s.value; i += scan_warps) {
      T* S = states + i * s.key;
      for (index j = lane; j < s.key; j += warp_size) S[j] = starts[segment * s.state() + i * s.key + j];
      for (index t = first; t < end; ++t, S += s.state()) {
        T const u_i = p.advance(n, h, t, i, lane, S, S + s.state());
        if (lane == 0) u[(t - first) * s.value + i] = u_i;
      }
    }
    for (index t = end - 1; t >= first; --t, turn = 1 - turn) {
      T const* const before = states + (t - first) * s.state();
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
      T* const mine = sums + turn * segments.sums;
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
  if (to.state != nullptr)
    for (index i = warp; i < s.value; i += scan_warps)
      for (index j = lane; j < s.key; j += warp_size)
        put(to.state[flat * s.state() + i * s.key + j], G[i * s.key + j], to.state_adds);
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::rwkv7_scan(view y, view last, rwkv7_operands const& in) {
  with_real(in.r.type, "rwkv7_scan", [&]<class T>(std::type_identity<T>) {
    rwkv7_problem<T> const p(in);
    for_roomy_rows<T>("rwkv7_scan", p.s.lanes * p.s.heads * p.s.value, p.s.key,
                      rwkv7_rows<T>{p, scan_rows_of<T>(destination(y)), last.as<T>()});
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
