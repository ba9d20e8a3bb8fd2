// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention to few keys, as between the bytes of a patch and from them to its thoughts: sixteen queries at a time, a
// vector for each key with the scores of all of them, so that the softmax needs no sums within vectors.

constexpr index few_keys = 64;
constexpr index some_queries = 16;

/// Sixteen queries of a head. Scores and weights lie as (keys,16).
struct query_block_of_few {
  attention_head const& h;
  index first;                 ///< of the queries
  index m;                     ///< how many there are
  index seen = 0;              ///< keys that any of them sees
  int count[some_queries];     ///< keys that each of them sees

  query_block_of_few(attention_head const& head, index i0)
      : h(head), first(i0), m(head.queries - i0 < some_queries ? head.queries - i0 : some_queries) {
    for (index l = 0; l < some_queries; ++l) {
      count[l] = l < m ? static_cast<int>(seen_by(h, first + l)) : 0;
      seen = count[l] > seen ? count[l] : seen;
    }
  }
  /// What the dropout multiplies each weight by; `rows` is scratch of the same size. Without dropout they stay ones.
  void masks(float* to, float* rows) const {
    if (h.drop.threshold == 0) return;
    index const pad = padded(h.keys);
    weight_dropper drop(h);
    for (index l = 0; l < m; ++l) {
      for (index j = 0; j < seen; ++j) rows[l * pad + j] = 1.0F;
      drop(rows + l * pad, seen, first + l);
    }
    transpose(rows, pad, m, seen, to, some_queries);
  }
};

inline index few_keys_scratch(index keys, index width, bool gradient) {
  index const scores = padded(keys) * some_queries;
  return gradient ? 2 * width * some_queries + 4 * scores : width * some_queries + 3 * scores;
}

void attend_to_few(attention_head const& h, float* y, index ldy, float* lse, float* scratch) {
  index const scores = padded(h.keys) * some_queries;
  float* q = scratch;  // (width,16)
  float* p = q + h.width * some_queries;
  float* mask = p + scores;
  for (index i = 0; i < scores; ++i) mask[i] = 1.0F;
  for (index i0 = 0; i0 < h.queries; i0 += some_queries) {
    query_block_of_few const b(h, i0);
    transpose(h.q + i0 * h.ldq, h.ldq, b.m, h.width, q, some_queries);
    multiply({h.k, h.ldk, 1, q, some_queries, p, some_queries, h.width, h.scale, false}, b.seen, some_queries);
    float top[some_queries];
    float sum[some_queries] = {};
    for (float& t : top) t = -3.4e38F;
    for (int j = 0; j < b.seen; ++j)
      for (index l = 0; l < some_queries; ++l) {
        float const s = p[j * some_queries + l];
        top[l] = select(j < b.count[l] && s > top[l], s, top[l]);
      }
    for (int j = 0; j < b.seen; ++j)
      for (index l = 0; l < some_queries; ++l) {
        float& s = p[j * some_queries + l];
        s = select(j < b.count[l], exp1(s - top[l]), 0.0F);
        sum[l] += s;
      }
    for (index l = 0; l < b.m; ++l) lse[i0 + l] = top[l] + __builtin_logf(sum[l]);
    for (float& s : sum) s = 1.0F / s;
    b.masks(mask, mask + scores);
    for (index j = 0; j < b.seen; ++j)
      for (index l = 0; l < some_queries; ++l) p[j * some_queries + l] *= mask[j * some_queries + l] * sum[l];
    multiply({p, 1, some_queries, h.v, h.ldv, y + i0 * ldy, ldy, b.seen, 1.0F, false}, b.m, h.width);
  }
}

// Gradients towards keys and values add to what is there.
void attend_to_few_gradient(attention_head const& h, attention_slopes const& to, float const* lse, float const* dy,
                            index wide_rows, float* scratch) {
  index const scores = padded(h.keys) * some_queries;
  float* q = scratch;  // (width,16), as the next
  float* dyt = q + h.width * some_queries;
  float* p = dyt + h.width * some_queries;
  float* ds = p + scores;
  float* mask = ds + scores;
  for (index i = 0; i < scores; ++i) mask[i] = 1.0F;
  for (index i0 = 0; i0 < h.queries; i0 += some_queries) {
    query_block_of_few const b(h, i0);
    float const* const slope = dy + i0 * wide_rows;
    transpose(h.q + i0 * h.ldq, h.ldq, b.m, h.width, q, some_queries);
    transpose(slope, wide_rows, b.m, h.width, dyt, some_queries);
    multiply({h.k, h.ldk, 1, q, some_queries, p, some_queries, h.width, h.scale, false}, b.seen, some_queries);
    multiply({h.v, h.ldv, 1, dyt, some_queries, ds, some_queries, h.width, 1.0F, false}, b.seen, some_queries);
    float shift[some_queries] = {};
    float sum[some_queries] = {};
    float dot[some_queries] = {};
    for (index l = 0; l < b.m; ++l) shift[l] = lse[i0 + l];
    b.masks(mask, mask + scores);
    float* const weight = mask + scores;  // the masks' own room is free
    for (int j = 0; j < b.seen; ++j)
      for (index l = 0; l < some_queries; ++l) {
        index const at = j * some_queries + l;
        float const w = select(j < b.count[l], exp1(p[at] - shift[l]), 0.0F);
        weight[at] = w;
        p[at] = w * mask[at];
        ds[at] *= mask[at];
        sum[l] += w;
        dot[l] += w * ds[at];
      }
    // Slopes of scores add up to 0, so the mean is that of these very weights: y · dy would leave its rounding in every key.
    for (index l = 0; l < b.m; ++l) dot[l] /= sum[l];
    for (int j = 0; j < b.seen; ++j)
      for (index l = 0; l < some_queries; ++l) {
        index const at = j * some_queries + l;
        ds[at] = (ds[at] - dot[l]) * weight[at];
      }
    if (to.v != nullptr)
      multiply({p, some_queries, 1, slope, wide_rows, to.v, to.ldv, b.m, 1.0F, true}, b.seen, h.width);
    if (to.q != nullptr)
      multiply({ds, 1, some_queries, h.k, h.ldk, to.q + i0 * to.ldq, to.ldq, b.seen, h.scale, to.q_adds}, b.m, h.width);
    if (to.k != nullptr)
      multiply({ds, some_queries, 1, h.q + i0 * h.ldq, h.ldq, to.k, to.ldk, b.m, h.scale, true}, b.seen, h.width);
  }
}
