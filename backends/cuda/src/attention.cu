// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention with a running softmax (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
// "FlashAttention", 2022): a block for each tile of queries goes over the tiles of keys that any of them sees. For
// sequences that are too short for attention_products.cu, where fused_attention.cu is not asked for.
#include "attention_products.hpp"
#include "f32_copies.hpp"
#include "fused_attention.hpp"
#include "rows.hpp"
#include "sums.hpp"

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
    T const total = lanes_sum<16>(sum[m]);
    if (ty + m >= rows) continue;
    index const i = first + ty + m;
    if (column == 0 && tx == 0) lse[at.flat * p.queries + i] = top[m] + std::log(total);
    OURO_UNROLL
    for (int n = 0; n < micro; ++n)
      if (column + tx + n < p.width) at.rows(y, p.width)[i * y.row + column + tx + n] = out[m][n] / total;
  }
}

constexpr int one_query_threads = 128;
constexpr index most_keys_of_one = 4096;  // their weights lie in shared memory

/// The only query of a lane and head, as when one byte after the other is said: a warp for each key, then a thread for each
/// column.
template <class T>
__global__ void __launch_bounds__(one_query_threads) attention_of_one(attention_problem<T> p, head_rows<T> y, T* lse) {
  constexpr int warps = one_query_threads / warp_size;
  T* const weights = shared_memory<T>();
  __shared__ T room[warps];
  index const head = blockIdx.x % p.heads * p.width;
  index const lane = blockIdx.x / p.heads;
  T const* const q = p.q.data + lane * p.q.lane + head;
  T const* const k = p.k.data + lane * p.k.lane + head;
  T const* const v = p.v.data + lane * p.v.lane + head;
  index const keys = p.sees.count(0, p.keys);
  OURO_UNROLL_BY_8
  for (index j = static_cast<int>(threadIdx.x) / warp_size; j < keys; j += warps) {
    T const score = row_sum<T>(p.width, lane_number(), [&](index c) { return q[c] * k[j * p.k.row + c]; });
    if (lane_number() == 0) weights[j] = score * p.scale;
  }
  __syncthreads();
  T top = weights[0];
  for (index j = lane_number(); j < keys; j += warp_size) top = weights[j] > top ? weights[j] : top;
  top = warp_max(top);
  T mine = 0;
  for (index j = threadIdx.x; j < keys; j += one_query_threads) mine += std::exp(weights[j] - top);
  T const sum = block_sum(mine, room);
  if (threadIdx.x == 0) lse[blockIdx.x] = top + std::log(sum);
  for (index c = threadIdx.x; c < p.width; c += one_query_threads) {
    T out = 0;
    OURO_UNROLL_BY_8
    for (index j = 0; j < keys; ++j) out += std::exp(weights[j] - top) * v[j * p.v.row + c];
    y.data[lane * y.lane + head + c] = out / sum;
  }
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::attention(view y, view lse, const_view q, const_view k, const_view v, attention_rule const& rule) {
  if (y.size() == 0) return;
  if (attention_is_fused(q, rule)) return fused_attention(y, lse.as<float>(), q, k, v, rule);
  if (q.type == dtype::bf16) {
    f32_result const result(y);
    attention(result.get().out, lse, f32_values(q).get(), f32_values(k).get(), f32_values(v).get(), rule);
    return result.finish();
  }
  with_real(q.type, "attention", [&]<class T>(std::type_identity<T>) {
    if (attention_is_long(q, k)) return attention_by_products<T>(y, lse.as<T>(), q, k, v, rule);
    attention_problem<T> const p(q, k, v, rule);
    if (p.queries == 1 && p.kept.all() && p.keys <= most_keys_of_one)
      return launch("attention", attention_of_one<T>, p.lanes * p.heads, one_query_threads,
                    static_cast<std::size_t>(p.keys) * sizeof(T), p, rows_of<T>(destination(y)), lse.as<T>());
    launch("attention", attention_kernel<T>, p.blocks(p.queries), attention_tiles<T>::threads, 0, p,
           rows_of<T>(destination(y)), lse.as<T>());
  });
}

}  // namespace ouro
