// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The gradient of attention. The weights are computed again from the log-sum-exp of their row; a pass over tiles of
// queries makes dq, another over tiles of keys makes dk and dv, so that each sum has one owner.
#include "attention_products.hpp"
#include "f32_copies.hpp"
#include "fused_attention.hpp"
#include "rows.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// What the gradient knows besides: the result's gradient, and for each row log-sum-exp and y · dy.
template <class T>
struct attention_slopes {
  head_rows<T const> dy;
  T const* lse;
  T const* dots;
};

template <class T>
struct row_dots {
  index queries, heads, width;
  stored_rows<void const> y;
  stored_rows<void const> dy;
  T* dots;
  __device__ void operator()(index r, int lane) const {
    index const i = r % queries;
    index const head = r / queries % heads;
    index const n = r / queries / heads;
    with_stored<T>(y, [&](auto const& ys) {
      with_stored<T>(dy, [&](auto const& dys) {
        auto const* a = ys.data + n * ys.lane + i * ys.row + head * width;
        auto const* b = dys.data + n * dys.lane + i * dys.row + head * width;
        T const sum = row_sum<T>(width, lane, [&](index c) { return static_cast<T>(a[c]) * static_cast<T>(b[c]); });
        if (lane == 0) dots[r] = sum;
      });
    });
  }
};

/// For a tile of queries from `i` and keys from `j`: weights after the dropout, and the gradient of the scaled scores.
template <class T>
__device__ void weigh(attention_problem<T> const& p, attention_slopes<T> const& g, attention_place const& at, T* room,
                      index i, index j, micro_tile<T>& weight, micro_tile<T>& slope) {
  using tiles = attention_tiles<T>;
  constexpr int micro = tiles::micro;
  int const ty = at.ty;
  int const tx = at.tx;
  index const rows = p.queries - i < tiles::side ? p.queries - i : tiles::side;
  index const keys = p.keys - j < tiles::side ? p.keys - j : tiles::side;
  dot_rows<T>(weight, room, at.rows(p.q, p.width) + i * p.q.row, p.q.row, rows, at.rows(p.k, p.width) + j * p.k.row,
              p.k.row, keys, p.width);
  dot_rows<T>(slope, room, at.rows(g.dy, p.width) + i * g.dy.row, g.dy.row, rows, at.rows(p.v, p.width) + j * p.v.row,
              p.v.row, keys, p.width);
  OURO_UNROLL
  for (int m = 0; m < micro; ++m) {
    bool const live = ty + m < rows;
    index const row = at.flat * p.queries + i + ty + m;
    index const count = live ? p.sees.count(i + ty + m, p.keys) : 0;
    T const lse = live ? g.lse[row] : T(0);
    T const dot = live ? g.dots[row] : T(0);
    T keep[micro];
    keep_factors(p, at.flat, i + ty + m, j + tx, keep);
    OURO_UNROLL
    for (int n = 0; n < micro; ++n) {
      T const w = j + tx + n < count ? std::exp(weight[m][n] * p.scale - lse) : T(0);
      slope[m][n] = w * (slope[m][n] * keep[n] - dot) * p.scale;
      weight[m][n] = w * keep[n];
    }
  }
}

template <class T>
__device__ void clear(micro_tile<T>& sum) {
  OURO_UNROLL
  for (int m = 0; m < attention_tiles<T>::micro; ++m)
    for (int n = 0; n < attention_tiles<T>::micro; ++n) sum[m][n] = T(0);
}
/// The rows and columns of a result that are this block's.
template <class T>
__device__ void store(attention_problem<T> const& p, attention_place const& at, head_rows<T> const& to, bool accumulate,
                      index rows, micro_tile<T> const& sum) {
  constexpr int micro = attention_tiles<T>::micro;
  OURO_UNROLL
  for (int m = 0; m < micro; ++m)
    for (int n = 0; n < micro; ++n) {
      index const row = at.first + at.ty + m;
      index const column = at.column + at.tx + n;
      if (row < rows && column < p.width) put(at.rows(to, p.width)[row * to.row + column], sum[m][n], accumulate);
    }
}

template <class T>
__global__ void __launch_bounds__(256)
    attention_dq(attention_problem<T> p, attention_slopes<T> g, head_rows<T> dq, bool accumulate) {
  using tiles = attention_tiles<T>;
  constexpr int micro = tiles::micro;
  __shared__ T room[tiles::room];
  __shared__ T slopes[tiles::side * tiles::pitch];
  attention_place const at(p, p.queries);
  int const ty = at.ty;
  int const tx = at.tx;
  index const first = at.first;
  index const last = first + tiles::side < p.queries ? first + tiles::side : p.queries;
  index const column = at.column;
  index const visible = p.sees.count(last - 1, p.keys);
  micro_tile<T> sum;
  clear<T>(sum);
  for (index j = 0; j < visible; j += tiles::side) {
    index const keys = p.keys - j < tiles::side ? p.keys - j : tiles::side;
    micro_tile<T> weight;
    micro_tile<T> slope;
    weigh<T>(p, g, at, room, first, j, weight, slope);
    OURO_UNROLL
    for (int m = 0; m < micro; ++m)
      for (int n = 0; n < micro; ++n) slopes[(tx + n) * tiles::pitch + ty + m] = slope[m][n];
    __syncthreads();
    load_rows(room, at.rows(p.k, p.width) + j * p.k.row + column, p.k.row, keys, p.width - column);
    __syncthreads();
    multiply<T>(sum, slopes, room, static_cast<int>(keys));
  }
  store<T>(p, at, dq, accumulate, p.queries, sum);
}

template <class T>
__global__ void __launch_bounds__(256) attention_dkv(attention_problem<T> p, attention_slopes<T> g, head_rows<T> dk,
                                                     bool dk_adds, head_rows<T> dv, bool dv_adds) {
  using tiles = attention_tiles<T>;
  constexpr int micro = tiles::micro;
  __shared__ T room[tiles::room];
  __shared__ T terms[tiles::side * tiles::pitch];
  attention_place const at(p, p.keys);
  int const ty = at.ty;
  int const tx = at.tx;
  index const first = at.first;
  index const column = at.column;
  micro_tile<T> sum_k;
  micro_tile<T> sum_v;
  clear<T>(sum_k);
  clear<T>(sum_v);
  for (index i = 0; i < p.queries; i += tiles::side) {
    index const rows = p.queries - i < tiles::side ? p.queries - i : tiles::side;
    if (p.sees.count(i + rows - 1, p.keys) <= first) continue;  // none of them sees this tile
    micro_tile<T> weight;
    micro_tile<T> slope;
    weigh<T>(p, g, at, room, i, first, weight, slope);
    // First Σ_i weight_ij dy_i, then Σ_i slope_ij q_i.
    for (int pass = 0; pass < 2; ++pass) {
      if (pass == 0 ? dv.data == nullptr : dk.data == nullptr) continue;
      __syncthreads();
      OURO_UNROLL
      for (int m = 0; m < micro; ++m)
        for (int n = 0; n < micro; ++n)
          terms[(ty + m) * tiles::pitch + tx + n] = pass == 0 ? weight[m][n] : slope[m][n];
      auto const& from = pass == 0 ? g.dy : p.q;
      load_rows(room, at.rows(from, p.width) + i * from.row + column, from.row, rows, p.width - column);
      __syncthreads();
      if (pass == 0) multiply<T>(sum_v, terms, room, static_cast<int>(rows));
      else multiply<T>(sum_k, terms, room, static_cast<int>(rows));
    }
  }
  if (dk.data != nullptr) store<T>(p, at, dk, dk_adds, p.keys, sum_k);
  if (dv.data != nullptr) store<T>(p, at, dv, dv_adds, p.keys, sum_v);
}

template <class... View>
bool any_in_bf16(View const&... v) {
  return ((!v.empty() && v.type == dtype::bf16) || ...);
}

}  // namespace

template <class T>
void attention_dots(T* dots, const_view const& y, const_view const& dy, index heads) {
  for_rows("attention_gradient", y.dims[0] * heads * y.dims[1],
           row_dots<T>{y.dims[1], heads, y.dims[2] / heads, stored_rows_of(y), stored_rows_of(dy), dots});
}
template void attention_dots(float*, const_view const&, const_view const&, index);
template void attention_dots(double*, const_view const&, const_view const&, index);

}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::attention_gradient(destination dq, destination dk, destination dv, const_view q, const_view k, const_view v,
                              const_view y, const_view lse, const_view dy, attention_rule const& rule) {
  if (k.size() == 0) return;  // no lanes
  bool const fused = attention_is_fused(q, rule);
  if (fused && fused_gradient_is_one_pass(dq, dk, dv, q, k, rule))
    return fused_attention_gradient_in_one_pass(dq, dk, dv, q, k, v, y, lse.as<float>(), dy, rule);
  if (!fused && any_in_bf16(dq.out, dk.out, dv.out, q, dy)) {
    f32_result const results[] = {f32_result(dq), f32_result(dk), f32_result(dv)};
    attention_gradient(results[0].get(), results[1].get(), results[2].get(), f32_values(q).get(), f32_values(k).get(),
                       f32_values(v).get(), f32_values(y).get(), lse, f32_values(dy).get(), rule);
    for (auto const& r : results) r.finish();
    return;
  }
  if (fused) return fused_attention_gradient(dq, dk, dv, q, k, v, y, lse.as<float>(), dy, rule);
  with_real(lse.type, "attention_gradient", [&]<class T>(std::type_identity<T>) {
    device_array<T> const dots(lse.size());
    attention_dots(dots.data(), y, dy, rule.heads);
    if (attention_is_long(q, k))
      return attention_gradient_by_products<T>(dq, dk, dv, q, k, v, lse.as<T>(), dots.data(), dy, rule);
    attention_problem<T> const p(q, k, v, rule);
    attention_slopes<T> const g{rows_of<T>(dy), lse.as<T>(), dots.data()};
    constexpr int threads = attention_tiles<T>::threads;
    if (dq.wanted())
      launch("attention_gradient of q", attention_dq<T>, p.blocks(p.queries), threads, 0, p, g, rows_of<T>(dq),
             dq.accumulate);
    if (dk.wanted() || dv.wanted())
      launch("attention_gradient of k and v", attention_dkv<T>, p.blocks(p.keys), threads, 0, p, g, rows_of<T>(dk),
             dk.accumulate, rows_of<T>(dv), dv.accumulate);
  });
}

}  // namespace ouro
