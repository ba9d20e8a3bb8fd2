// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention of one lane and head, in scratch of the caller's: blocks of query rows against the keys they see. Its
// products are too small and too many for a library call, so they run in register tiles here.

/// to (columns, pad) = fromᵀ for from (rows, columns), 16 × 16 values at a time.
void transpose(float const* from, index ld, index rows, index columns, float* to, index pad) {
  index const whole_rows = rows / 16 * 16;
  index const whole_columns = columns / 16 * 16;
  for (index r = 0; r < whole_rows; r += 16)
    for (index c = 0; c < whole_columns; c += 16) {
      v16 x[16];
      for (int i = 0; i < 16; ++i) x[i] = load(from + (r + i) * ld + c);
      transpose16(x);
      for (int i = 0; i < 16; ++i) store(to + (c + i) * pad + r, x[i]);
    }
  for (index r = 0; r < rows; ++r)
    for (index c = r < whole_rows ? whole_columns : 0; c < columns; ++c) to[c * pad + r] = from[r * ld + c];
  for (index c = 0; c < columns; ++c)
    for (index r = rows; r < pad; ++r) to[c * pad + r] = 0.0F;
}

/// The rows of one head next to each other: where they lie, every row is on a page of its own.
void gather_rows(float const* from, index ld, index rows, index columns, float* to) {
  for (index r = 0; r < rows; ++r)
    for (index c = 0; c < columns; ++c) to[r * columns + c] = from[r * ld + c];
}

constexpr index query_block = 64;
inline index padded(index n) { return (n + 15) / 16 * 16; }

inline index seen_by(attention_head const& h, index query) {
  index const row = h.first + query;
  index const n = row < h.prefix ? h.prefix : row < h.prefix + h.causal ? row + 1 : h.keys;
  return n < h.keys ? n : h.keys;
}

/// The dropout of rows of weights, asked for one after another: the bits of several short ones are drawn together.
class weight_dropper {
 public:
  explicit weight_dropper(attention_head const& head) : h(head), groups((head.keys + 31) / 32) {}
  /// The first n weights of a query, each multiplied by the factor or by 0.
  void operator()(float* p, index n, index query) {
    if (n == 0) return;
    if (groups > most) return k_dropout(p, nullptr, p, h.drop, static_cast<wide>((h.flat + query) * groups * 32), n);
    if (query < first || query >= end) {
      first = query;
      end = first + most / groups;
      kept_words(h.drop, static_cast<wide>((h.flat + first) * groups), (end - first) * groups, kept);
    }
    k_keep(p, nullptr, p, kept + (query - first) * groups, h.drop.factor, n);
  }

 private:
  static constexpr index most = 16;
  attention_head const& h;
  index groups;
  word kept[most];  // of queries first to end
  index first = 0;
  index end = 0;
};

#include "few_keys_kernels.inl"

/// A product of an attention, in bf16 if its head rounds.
inline void multiply([[maybe_unused]] attention_head const& h, small_product const& p, index m, index n,
                     [[maybe_unused]] float* room) {
#if defined(OURO_X86)
  if (h.rounds) return bf16_product(p.c, p.ldc, {p.a, p.ra, p.ca}, {p.b, p.ldb, 1}, m, n, p.k, p.factor, p.add, room);
#endif
  multiply(p, m, n);
}

index k_attention_scratch(index keys, index width, bool gradient, bool rounds) {
  if (keys <= few_keys) return few_keys_scratch(keys, width, gradient);
  index const pad = padded(keys);
  index room = 0;
#if defined(OURO_X86)
  if (rounds) {  // for its products: (block, keys) over the width, (block, width) over the keys, (keys, width) over the block
    index const some[] = {bf16_product_room(query_block, pad, width), bf16_product_room(query_block, width, pad),
                          bf16_product_room(pad, width, query_block)};
    for (index n : some) room = n > room ? n : room;
  }
#endif
  static_cast<void>(rounds);
  return (gradient ? 3 * width * pad + 3 * query_block * pad : 2 * width * pad + query_block * pad) + room;
}

void k_attention(attention_head const& h, float* y, index ldy, float* lse, float* scratch) {
  if (h.keys <= few_keys) return attend_to_few(h, y, ldy, lse, scratch);
  index const pad = padded(h.keys);
  float* keys = scratch;
  float* values = keys + h.width * pad;
  float* p = values + h.width * pad;
  float* room = p + query_block * pad;
  transpose(h.k, h.ldk, h.keys, h.width, keys, pad);
  gather_rows(h.v, h.ldv, h.keys, h.width, values);
  weight_dropper drop(h);
  for (index i0 = 0; i0 < h.queries; i0 += query_block) {
    index const m = h.queries - i0 < query_block ? h.queries - i0 : query_block;
    index seen = 0;
    for (index i = 0; i < m; ++i) seen = seen_by(h, i0 + i) > seen ? seen_by(h, i0 + i) : seen;
    multiply(h, {h.q + i0 * h.ldq, h.ldq, 1, keys, pad, p, pad, h.width, h.scale, false}, m, padded(seen), room);
    float share[query_block];
    for (index i = 0; i < m; ++i) {
      float* row = p + i * pad;
      index const n = seen_by(h, i0 + i);
      float const top = k_maximum(row, n);
      float const sum = k_exp_shifted(row, 1.0F, top, n);
      lse[i0 + i] = top + __builtin_logf(sum);
      share[i] = 1.0F / sum;
      for (index j = n; j < seen; ++j) row[j] = 0.0F;
      if (h.drop.threshold > 0) drop(row, n, i0 + i);
    }
    multiply(h, {p, pad, 1, values, h.width, y + i0 * ldy, ldy, seen, 1.0F, false}, m, h.width, room);
    for (index i = 0; i < m; ++i)
      for (index c = 0; c < h.width; ++c) y[(i0 + i) * ldy + c] *= share[i];
  }
}

// Gradients towards keys and values add to what is there.
void k_attention_gradient(attention_head const& h, attention_slopes const& to, float const* lse, float const* dy,
                          index wide_rows, float* scratch) {
  if (h.keys <= few_keys) return attend_to_few_gradient(h, to, lse, dy, wide_rows, scratch);
  index const pad = padded(h.keys);
  float* keys = scratch;
  float* values = keys + h.width * pad;
  float* key_rows = values + h.width * pad;
  float* p = key_rows + h.width * pad;
  float* ds = p + query_block * pad;
  float* kept = h.drop.threshold > 0 ? ds + query_block * pad : p;
  float* room = ds + 2 * query_block * pad;
  transpose(h.k, h.ldk, h.keys, h.width, keys, pad);
  transpose(h.v, h.ldv, h.keys, h.width, values, pad);
  gather_rows(h.k, h.ldk, h.keys, h.width, key_rows);
  weight_dropper drop(h);
  for (index i0 = 0; i0 < h.queries; i0 += query_block) {
    index const m = h.queries - i0 < query_block ? h.queries - i0 : query_block;
    index seen = 0;
    for (index i = 0; i < m; ++i) seen = seen_by(h, i0 + i) > seen ? seen_by(h, i0 + i) : seen;
    multiply(h, {h.q + i0 * h.ldq, h.ldq, 1, keys, pad, p, pad, h.width, h.scale, false}, m, padded(seen), room);
    multiply(h, {dy + i0 * wide_rows, wide_rows, 1, values, pad, ds, pad, h.width, 1.0F, false}, m, padded(seen), room);
    for (index i = 0; i < m; ++i) {
      float* row = p + i * pad;
      float* slope = ds + i * pad;
      index const n = seen_by(h, i0 + i);
      float const sum = k_exp_shifted(row, 1.0F, lse[i0 + i], n);
      for (index j = n; j < seen; ++j) row[j] = 0.0F;
      if (h.drop.threshold > 0) {
        float* masked = kept + i * pad;
        for (index j = 0; j < seen; ++j) masked[j] = row[j];
        drop(masked, n, i0 + i);
        drop(slope, n, i0 + i);
      }
      // Slopes of scores add up to 0, so the mean is that of these very weights: y · dy would leave its rounding in every key.
      float const dot = k_dot(row, slope, n) / sum;
      for (index j = 0; j < n; ++j) slope[j] = (slope[j] - dot) * row[j];
      for (index j = n; j < seen; ++j) slope[j] = 0.0F;
    }
    if (to.v != nullptr)
      multiply(h, {kept, 1, pad, dy + i0 * wide_rows, wide_rows, to.v, to.ldv, m, 1.0F, true}, seen, h.width, room);
    if (to.q != nullptr)
      multiply(h, {ds, pad, 1, key_rows, h.width, to.q + i0 * to.ldq, to.ldq, seen, h.scale, to.q_adds}, m, h.width, room);
    if (to.k != nullptr)
      multiply(h, {ds, 1, pad, h.q + i0 * h.ldq, h.ldq, to.k, to.ldk, m, h.scale, true}, seen, h.width, room);
  }
}
