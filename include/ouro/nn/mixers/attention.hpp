// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Multi-head attention: as a module between two sequences, and as a SequenceMixer.
#pragma once

#include <utility>

#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/nn/linear.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/scaled_dot_product_attention.hpp>
#include <ouro/ops/softmax.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// Groups of rows (B,S+1,K,C), of which the s-th of a lane's S sequences looks at the s-th and the next: (B·S,2K,C).
template <Backend B>
tensor<B> windows(tensor<B> const& groups) {
  std::int64_t const count = groups.dim(1) - 1;
  return reshape(concat<B>({slice(groups, 1, 0, count), slice(groups, 1, 1, count)}, 2),
                 {groups.dim(0) * count, 2 * groups.dim(2), groups.dim(3)});
}

/// Keys and values already projected, of `count` rows; empty before the first.
template <Backend B>
struct attention_carry {
  tensor<B> rows;  // (B,room,2D), a key and a value each; what is behind `count` is room for more
  std::int64_t count = 0;

  [[nodiscard]] tensor<B> keys() const { return part(0); }
  [[nodiscard]] tensor<B> values() const { return part(rows.dim(2) / 2); }
  /// Adds rows (B,T,2D): in place, in memory that doubles when it is full, unless a tape watches.
  void append(tensor<B> const& more);

 private:
  [[nodiscard]] tensor<B> part(std::int64_t from) const {
    return slice(slice(rows, 1, 0, count), 2, from, rows.dim(2) / 2);
  }
};

template <Backend B>
void attention_carry<B>::append(tensor<B> const& more) {
  std::int64_t const needed = count + more.dim(1);
  if (rows.empty()) {
    rows = more;
  } else if (rows.origin().first != nullptr || more.origin().first != nullptr) {
    rows = concat<B>({slice(rows, 1, 0, count), more}, 1);
  } else {
    if (needed > rows.dim(1)) {
      tensor<B> room(rows.dims().with(1, elementary::max<std::int64_t>(16, 2 * needed)), rows.type());
      B::copy(room.write().slice(1, 0, count), rows.read().slice(1, 0, count), false);
      rows = std::move(room);
    }
    B::copy(rows.write().slice(1, count, more.dim(1)), more.read(), false);
  }
  count = needed;
}

/// K rows for others to look at that have absorbed the projections of queries and results: a key and a value of the whole
/// width for each head and row (key = s·W_qᵀ k, offset = s·k·b_q, value = W_o v, with the head's parts of W and the scale
/// s = 1/√(D/H)).
template <Backend B>
struct absorbed_rows {
  tensor<B> keys;     // (B,H·K,D)
  tensor<B> offsets;  // (B,1,H·K)
  tensor<B> values;   // (B,H·K,D)
};

/// Attention with one packed projection (rows q, k, v), biases and scale 1/√(D/H). The in-projection starts Xavier
/// uniform with biases 0, the out-projection uniform in ±1/√D with bias 0.
template <Backend B>
struct attention {
  using backend = B;
  static constexpr std::string_view name = "attention";
  using carry = attention_carry<B>;
  parameter<B> in_proj_weight;  // (3D, D)
  parameter<B> in_proj_bias;    // (3D)
  linear<B> out_proj;
  std::int64_t heads = 1;
  bool drops = true;  ///< dropout on the weights while training
  OURO_MODULE(attention, in_proj_weight, in_proj_bias, out_proj, heads, drops);

  attention() = default;
  attention(genesis<B>& g, std::int64_t width, std::int64_t head_count, bool dropout = true);

  attention(genesis<B>& g, mixer_place const& place) : attention(g, place.width, place.heads) {}

  [[nodiscard]] static bool takes_narrow() { return true; }

  /// The SequenceMixer form: rows of one sequence look at each other.
  tensor<B> forward(context<B>& cx, tensor<B> const& x, segments s, carry& c) const;
  tensor<B> step(context<B>& cx, tensor<B> const& x, carry& c) const;

  /// Queries, keys and values of rows, next to each other: x (…,D) → (…,3D).
  tensor<B> project_all(context<B>& cx, tensor<B> const& x) const { return projected(cx, x, 0, 3 * x.dim(-1)); }
  /// Rows that are projected already (B,T,3D) look at each other.
  tensor<B> within(context<B>& cx, tensor<B> const& rows, visibility sees) const {
    std::int64_t const width = rows.dim(2) / 3;
    return look(cx, slice(rows, 2, 0, width), {slice(rows, 2, width, 2 * width), rows.dim(1)}, sees);
  }

  /// Keys and values of a sequence (B,T,D), for rows of another one to look at; or of groups (B,S+1,K,D), for windows() on
  /// them, in which each row is projected once.
  carry project(context<B>& cx, tensor<B> const& x) const;
  /// Rows of x (B,T,D) look at all the keys of c.
  tensor<B> cross(context<B>& cx, tensor<B> const& x, carry const& c) const;

  /// The same where few rows are looked at by many: c has K rows. Takes 2·K·D² multiplications for these, and 2·H·K·D for
  /// each row that looks, where cross() of what is projected alone takes 2·D² for either.
  absorbed_rows<B> absorb(context<B>& cx, carry const& c) const;
  tensor<B> cross(context<B>& cx, tensor<B> const& x, absorbed_rows<B> const& rows) const;

 private:
  [[nodiscard]] static double scale_of(std::int64_t head_width) {
    return 1.0 / elementary::sqrt(static_cast<double>(head_width));
  }
  /// x (B,T,D) by the rows [from, to) of the in-projection: (B,T,to − from).
  tensor<B> projected(context<B>& cx, tensor<B> const& x, std::int64_t from, std::int64_t to) const {
    return linear_map(x, slice(cx.stored(in_proj_weight, x.type()), 0, from, to - from),
                      slice(cx.stored(in_proj_bias, x.type()), 0, from, to - from));
  }
  tensor<B> query(context<B>& cx, tensor<B> const& x) const { return projected(cx, x, 0, x.dim(-1)); }
  /// By the rows `from` and on; what they make of Mem is kept while that stays the same.
  tensor<B> projected(context<B>& cx, tensor<B> const& x, segments const& s, std::int64_t from) const {
    std::int64_t const to = in_proj_weight.dim(0);
    if (s.mem_version == 0 || s.mem == 0) return projected(cx, x, from, to);
    auto const mem = cx.once(
        {reinterpret_cast<std::intptr_t>(this), from}, in_proj_weight.value(),
        [&] { return projected(cx, slice(x, 1, 0, s.mem), from, to); }, s.mem_version);
    return concat<B>({mem, projected(cx, slice(x, 1, s.mem, x.dim(1) - s.mem), from, to)}, 1);
  }
  tensor<B> look(context<B>& cx, tensor<B> const& q, carry const& c, visibility sees) const {
    attention_rule rule{.heads = heads,
                        .scale = scale_of(q.dim(2) / heads),
                        .sees = sees,
                        .dropout = drops ? cx.rate() : 0.0,
                        .draw = {}};
    if (rule.dropout > 0) rule.draw = cx.masks.next();
    return out_proj(cx, scaled_dot_product_attention(q, c.keys(), c.values(), rule));
  }
};

template <Backend B>
attention<B>::attention(genesis<B>& g, std::int64_t width, std::int64_t head_count, bool dropout)
    : in_proj_weight(g.xavier({3 * width, width})),
      in_proj_bias(g.zeros({3 * width})),
      out_proj(g, width, width),
      heads(head_count),
      drops(dropout) {
  require(heads >= 1 && width % heads == 0, errc::config, "attention", "heads must divide the width of ", width,
          ", got ", heads);
  out_proj.bias = g.zeros({width});
}

template <Backend B>
tensor<B> attention<B>::forward(context<B>& cx, tensor<B> const& x, segments s, carry& c) const {
  std::int64_t const width = x.dim(2);
  bool const all_ask = s.skip == 0;
  auto const rows = projected(cx, x, s, all_ask ? 0 : width);  // (B,T,3D), or keys and values only
  std::int64_t const keys = all_ask ? width : 0;
  c = {slice(rows, 2, keys, 2 * width), rows.dim(1)};
  auto const q = all_ask ? slice(rows, 2, 0, width) : query(cx, slice(x, 1, s.skip, x.dim(1) - s.skip));
  return look(cx, q, c, s.sees());
}

template <Backend B>
tensor<B> attention<B>::step(context<B>& cx, tensor<B> const& x, carry& c) const {
  std::int64_t const width = x.dim(2);
  auto const now = project_all(cx, x);
  c.append(slice(now, 2, width, 2 * width));
  return look(cx, slice(now, 2, 0, width), c, {});
}

template <Backend B>
attention_carry<B> attention<B>::project(context<B>& cx, tensor<B> const& x) const {
  std::int64_t const width = x.dim(-1);
  auto const rows = projected(cx, x, width, 3 * width);
  auto const looked_at = x.rank() == 4 ? windows(rows) : rows;
  return {looked_at, looked_at.dim(1)};
}

template <Backend B>
tensor<B> attention<B>::cross(context<B>& cx, tensor<B> const& x, carry const& c) const {
  return look(cx, query(cx, x), c, {});
}

template <Backend B>
absorbed_rows<B> attention<B>::absorb(context<B>& cx, carry const& c) const {
  std::int64_t const lanes = c.rows.dim(0);
  std::int64_t const rows = c.count;
  std::int64_t const width = c.rows.dim(2) / 2;
  dtype const type = c.rows.type();
  std::int64_t const part = width / heads;
  // (B,K,D) → (H,B·K,D/H), times a matrix for each head, → (B,H·K,·)
  auto by_head = [&](tensor<B> const& t) { return transpose(reshape(t, {lanes * rows, heads, part}), 0, 1); };
  auto product = [&](tensor<B> const& t, tensor<B> const& w) {
    auto const y = reshape(matmul(t, w), {heads, lanes, rows, w.dim(2)});
    return reshape(transpose(y, 0, 1), {lanes, heads * rows, w.dim(2)});
  };
  auto const keys = by_head(scale(c.keys(), scale_of(part)));
  auto const query_weight = reshape(slice(cx.stored(in_proj_weight, type), 0, 0, width), {heads, part, width});
  auto const query_bias = reshape(slice(in_proj_bias.value(), 0, 0, width), {heads, part, 1});
  auto const result_weight =
      transpose(transpose(reshape(cx.stored(out_proj.weight, type), {width, heads, part}), 0, 1), 1, 2);
  return {product(keys, query_weight), reshape(product(keys, query_bias), {lanes, 1, heads * rows}),
          product(by_head(c.values()), result_weight)};
}

template <Backend B>
tensor<B> attention<B>::cross(context<B>& cx, tensor<B> const& x, absorbed_rows<B> const& rows) const {
  std::int64_t const lanes = x.dim(0);
  std::int64_t const keys = rows.keys.dim(1);
  auto const scores = matmul(x, transpose(rows.keys, 1, 2), rows.offsets, computed_in(x.type()));
  auto const weights = softmax(reshape(scores, {lanes, x.dim(1), heads, keys / heads}));
  return matmul(reshape(drops ? cx.drop(weights) : weights, {lanes, x.dim(1), keys}), rows.values,
                reshape(out_proj.bias.value(), {1, 1, x.dim(2)}), x.type());
}

}  // namespace ouro
