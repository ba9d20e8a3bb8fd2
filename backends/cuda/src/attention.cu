// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention with a running softmax (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
// "FlashAttention", 2022): a block for each tile of queries goes over the tiles of keys that any of them sees. For
// sequences that are too short for attention_products.cu, where fused_attention.cu is not asked for.
#include "attention_products.hpp"
#include "fused_attention.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
__global__ void __launch_bounds__(256) attention_kernel(attention_problem<T> p, head_rows<T> y, T* lse) {
  using tiles = attention_tiles<T>;
  constexpr int micro = tiles::micro;
  __shared__ T room[tiles::room];
  __shared__ T weights[tiles::side * tiles::pitch];
  attention_place const at(p, p.queries);
  int const ty = at.ty;
  int const tx = at.tx;
  index const first = at.first;
  index const rows = p.queries - first < tiles::side ? p.queries - first : tiles::side;
  index const column = at.column;
  T const* const q = at.rows(p.q, p.width) + first * p.q.row;
  T const* const k = at.rows(p.k, p.width);
  T const* const v = at.rows(p.v, p.width) + column;

  micro_tile<T> out;
  T top[micro];
  T sum[micro];  // of this thread's columns
  OURO_UNROLL
  for (int m = 0; m < micro; ++m) {
    top[m] = -std::numeric_limits<T>::max() / 2;
    sum[m] = T(0);
    OURO_UNROLL
    for (int n = 0; n < micro; ++n) out[m][n] = T(0);
  }
  index const visible = p.sees.count(first + rows - 1, p.keys);  // later rows see no less
  for (index j = 0; j < visible; j += tiles::side) {
    index const keys = p.keys - j < tiles::side ? p.keys - j : tiles::side;
    micro_tile<T> s;
    dot_rows<T>(s, room, q, p.q.row, rows, k + j * p.k.row, p.k.row, keys, p.width);
    OURO_UNROLL
    for (int m = 0; m < micro; ++m) {
      index const i = first + ty + m;
      index const count = ty + m < rows ? p.sees.count(i, p.keys) : 0;
      T best = top[m];
      OURO_UNROLL
      for (int n = 0; n < micro; ++n) {
        s[m][n] *= p.scale;
        if (j + tx + n < count && s[m][n] > best) best = s[m][n];
      }
      best = group_max(best);
      T const shrink = std::exp(top[m] - best);
      top[m] = best;
      sum[m] *= shrink;
      T keep[micro];
      keep_factors(p, at.flat, i, j + tx, keep);
      OURO_UNROLL
      for (int n = 0; n < micro; ++n) {
        T const weight = j + tx + n < count ? std::exp(s[m][n] - best) : T(0);
        sum[m] += weight;
        out[m][n] *= shrink;
        weights[(tx + n) * tiles::pitch + ty + m] = weight * keep[n];
      }
    }
    __syncthreads();  // all have done with the scores' operands
    load_rows(room, v + j * p.v.row, p.v.row, keys, p.width - column);
    __syncthreads();
    multiply<T>(out, weights, room, static_cast<int>(keys));
  }
  OURO_UNROLL
  for (int m = 0; m < micro; ++m) {
    T const total = group_sum(sum[m]);
    if (ty + m >= rows) continue;
    index const i = first + ty + m;
    if (column == 0 && tx == 0) lse[at.flat * p.queries + i] = top[m] + std::log(total);
    OURO_UNROLL
    for (int n = 0; n < micro; ++n)
      if (column + tx + n < p.width) at.rows(y, p.width)[i * y.row + column + tx + n] = out[m][n] / total;
  }
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::attention(view y, view lse, const_view q, const_view k, const_view v, attention_rule const& rule) {
  if (y.size() == 0) return;
  if (attention_is_fused(q, rule)) return fused_attention(y, lse.as<float>(), q, k, v, rule);
  with_real(q.type, "attention", [&]<class T>(std::type_identity<T>) {
    if (attention_is_long(q, k)) return attention_by_products<T>(y, lse.as<T>(), q, k, v, rule);
    attention_problem<T> const p(q, k, v, rule);
    launch("attention", attention_kernel<T>, p.blocks(p.queries), attention_tiles<T>::threads, 0, p,
           rows_of<T>(destination(y)), lse.as<T>());
  });
}

}  // namespace ouro
