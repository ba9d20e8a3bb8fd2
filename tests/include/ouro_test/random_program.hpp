// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Programs drawn at random: operations on whatever values there are, on parts of them and on values that are one, in
// checkpoints, settled and postponed. All are smooth and stay small, so that differences say what their gradients are.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include <ouro/autodiff/settle.hpp>
#include <ouro/ops/batch_norm.hpp>
#include <ouro/ops/cross_entropy.hpp>
#include <ouro/ops/dropout.hpp>
#include <ouro/ops/exp.hpp>
#include <ouro/ops/gather_sum.hpp>
#include <ouro/ops/gelu.hpp>
#include <ouro/ops/hormone_gate.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/mix_rows.hpp>
#include <ouro/ops/noise.hpp>
#include <ouro/ops/normalize_rows.hpp>
#include <ouro/ops/rwkv7_scan.hpp>
#include <ouro/ops/scaled_dot_product_attention.hpp>
#include <ouro/ops/short_convolution.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/silu.hpp>
#include <ouro/ops/softmax.hpp>
#include <ouro/ops/softplus.hpp>
#include <ouro/ops/square.hpp>
#include <ouro/ops/ssd_scan.hpp>
#include <ouro/ops/tanh.hpp>
#include <ouro/ops/unit.hpp>
#include <ouro_test/dice.hpp>
#include <ouro_test/weigh.hpp>

namespace ouro_test {

/// One program over five leaves. What it does depends on its key and on the extents of the leaves alone.
template <class B>
class random_program {
 public:
  using tensor = ouro::tensor<B>;
  using list = std::vector<tensor>;

  static std::vector<ouro::shape> leaf_shapes() { return {{2, 3, 8}, {1, 4, 8}, {2, 1, 6}, {96}, {3, 5, 4}}; }

  random_program(std::uint64_t key, list leaves) : key_(key), leaves_(std::move(leaves)) {}

  /// Its value, a scalar. Beside a tape a part of the terms is postponed to its backward().
  tensor run(ouro::tape<B>* tape) {
    tape_ = tape;
    total_ = weigh(leaves_[0]);
    dice d(key_);
    list pool(leaves_.begin(), leaves_.begin() + 3);
    steps(d, pool, d.between(1, 24), false);
    for (std::int64_t n = d.between(1, 3); n > 0; --n) total_ = total_ + weigh(any(d, pool), 0.3);
    return total_ + weigh(pool.back());
  }

 private:
  static constexpr std::int64_t largest = 400;

  /// Adds as many values to the pool, made from what is in it and from the leaves.
  void steps(dice& d, list& pool, std::int64_t count, bool inside) {
    for (; count > 0; --count) {
      auto y = step(d, pool, inside);
      if (y.size() <= largest) pool.push_back(std::move(y));
    }
  }
  /// A value of the pool, more often a late one.
  static tensor const& any(dice& d, list const& pool) {
    auto const n = static_cast<std::int64_t>(pool.size());
    auto const first = d.below(n);
    return pool[static_cast<std::size_t>(std::max(first, d.below(n)))];
  }
  list some(dice& d, list const& pool) {
    list inputs;
    for (std::int64_t n = d.between(1, 3); n > 0; --n) inputs.push_back(any(d, pool));
    return inputs;
  }
  /// A part of the leaf that holds weights; others may overlap it.
  tensor weights(dice& d, ouro::shape const& dims) {
    auto const& all = leaves_[3];
    std::int64_t const n = dims.size();
    if (n > all.size()) return tensor::full(dims, all.type(), 0.25);
    return reshape(slice(all, 0, d.below(all.size() - n + 1), n), dims);
  }
  std::array<tensor, 2> two_weights(dice& d, ouro::shape const& first, ouro::shape const& second) {
    return {weights(d, first), weights(d, second)};
  }
  /// Numbers that no tape knows.
  tensor constant(dice& d, ouro::shape const& dims) { return ouro::normal<B>(dims, leaves_[0].type(), {d.key(), 1}); }
  /// x with rows that differ, so that what normalises them is smooth.
  tensor spread(dice& d, tensor const& x) { return tanh(x) + constant(d, x.dims()); }
  /// x, where its extents are those of `dims` or 1.
  static tensor fitted(tensor x, ouro::shape const& dims) {
    for (int i = 0; i < dims.rank(); ++i)
      if (x.dim(i) != dims[i] && x.dim(i) != 1) x = mean(x, i);
    return x;
  }
  static tensor filled(tensor const& x, ouro::shape const& dims) { return expand(fitted(x, dims), dims); }
  static tensor part(dice& d, tensor const& x, int axis) {
    auto const n = x.dim(axis);
    auto const start = d.below(n);
    return slice(x, axis, start, d.between(1, n - start));
  }
  static std::int64_t divisor(dice& d, std::int64_t n) {
    for (;;)
      if (auto const k = d.between(1, n); n % k == 0) return k;
  }

  tensor step(dice& d, list const& pool, bool inside) {
    tensor const x = any(d, pool);
    auto const dims = x.dims();
    std::int64_t const lanes = dims[0];
    std::int64_t const rows = dims[1];
    std::int64_t const width = dims[2];
    int const axis = static_cast<int>(d.below(3));
    auto const y = [&]() -> tensor const& { return any(d, pool); };
    switch (d.below(30)) {
      case 0: {
        tensor (*const maps[])(tensor const&) = {ouro::tanh<B>, ouro::sigmoid<B>, ouro::silu<B>, ouro::gelu<B>,
                                                 ouro::softplus<B>};
        return maps[d.below(5)](x);
      }
      case 1: return d.chance(50) ? square(tanh(x)) : ouro::exp(tanh(x));
      case 2: return scale(x + fitted(y(), dims), 0.7);
      case 3: return fitted(y(), dims) - scale(x, 0.5);
      case 4: return tanh(x) * fitted(y(), dims);
      case 5: return fitted(y(), dims) / (softplus(x) + 1.0);
      case 6: return slice(part(d, x, axis), axis, 0, 1);
      case 7: {
        auto const inner = part(d, x, axis);
        return part(d, inner, static_cast<int>(d.below(3)));
      }
      case 8: return reverse(x, axis);
      case 9: return transpose(x, axis, static_cast<int>(d.below(3)));
      case 10: {
        auto const a = divisor(d, dims.size());
        auto const b = divisor(d, dims.size() / a);
        return reshape(x, {a, b, dims.size() / a / b});
      }
      case 11: {
        list parts{part(d, x, axis), d.chance(50) ? x : part(d, x, axis)};
        if (d.chance(50)) parts.push_back(filled(y(), dims));
        return concat(parts, axis);
      }
      case 12: return expand(mean(x, axis), dims.with(axis, d.between(1, 4)));
      case 13: return d.chance(50) ? scale(sum(x, axis), 0.3) : mean(x, axis);
      case 14: {
        auto const other = d.chance(50) ? x : filled(y(), dims.with(1, d.between(1, 4)));
        auto const product = scale(tanh(x), 1.0 / static_cast<double>(width));
        auto const addend = d.chance(50) ? tensor() : weights(d, {1, 1, other.dim(1)});
        return matmul(product, transpose(other, 1, 2), addend);
      }
      case 15: {
        std::int64_t const out = d.between(1, 9);
        auto const w = weights(d, {out, width});
        return linear_map(tanh(x), w, d.chance(50) ? tensor() : weights(d, {out}));
      }
      case 16: {
        auto const rows_of = spread(d, x);
        auto const [w, b] = two_weights(d, {width}, {width});
        return normalize_rows(rows_of, w, b);
      }
      case 17: return softmax(x);
      case 18: return unit(spread(d, x));
      case 19: return attended(d, x, y());
      case 20: {
        ouro::random_draw const mask{d.key(), 3};
        return d.chance(50) ? dropout(x, 0.3, mask) : scale(add_dropped(x, filled(y(), dims), 0.3, mask), 0.7);
      }
      case 21: {
        auto const flat = reshape(spread(d, x), {lanes * rows, width});
        if (d.chance(50)) {
          auto const [w, b] = two_weights(d, {width}, {width});
          return reshape(batch_norm(flat, w, b, 0.1).y, dims);
        }
        auto const moments = column_moments(flat);
        return reshape(moments.mean - moments.variance, {1, 1, width});
      }
      case 22: {
        std::vector<std::int32_t> targets;
        for (std::int64_t i = 0; i < lanes * rows; ++i)
          targets.push_back(static_cast<std::int32_t>(d.below(width + 1) - 1));
        auto const labels = tensor::from(targets, {lanes * rows});
        return reshape(cross_entropy(reshape(x, {lanes * rows, width}), labels), {lanes, rows, 1});
      }
      case 23: {
        auto const& table = leaves_[4];
        std::vector<std::int32_t> entries;
        for (std::int64_t i = 0; i < rows * table.dim(0); ++i)
          entries.push_back(static_cast<std::int32_t>(d.below(table.dim(1) + 1) - 1));
        auto const index = tensor::from(entries, {rows, table.dim(0)});
        return reshape(gather_sum(table, index, d.chance(50) ? tensor() : weights(d, {table.dim(2)})),
                       {1, rows, table.dim(2)});
      }
      case 24: return attach(x, leaves_[static_cast<std::size_t>(d.below(5))]);
      case 25: {
        auto const shares = weights(d, {d.between(1, 3), width});
        auto const mixed = mix_rows(x, filled(y(), dims), shares);
        return ouro::concat({mixed.front(), mixed.back()}, 1);
      }
      case 26: return gated(d, x, y());
      case 27: return scanned(d, x, y());
      case 28: {
        auto const key = d.key();
        return checkpoint(some(d, pool), [this, key](list const& inputs) { return inner(key, inputs); });
      }
      default: {
        auto const key = d.key();
        auto const f = [this, key](std::int64_t number, list const& inputs) {
          return weigh(inner(key + static_cast<std::uint64_t>(number), inputs), 2.0);
        };
        auto const inputs = some(d, pool);
        if (inside || d.chance(40)) return reshape(settle(inputs, d.between(1, 3), f), {1, 1, 1});
        auto const later = [f](list const& given) { return f(0, given); };
        if (tape_ != nullptr) postpone(*tape_, inputs, later);
        else total_ = total_ + later(inputs);
        return x;
      }
    }
  }
  /// A program in the program.
  tensor inner(std::uint64_t key, list pool) {
    dice d(key);
    steps(d, pool, d.between(1, 6), true);
    return pool.back();
  }
  /// Attention of x to itself or another value, or of parts of a projection that lie side by side.
  tensor attended(dice& d, tensor const& x, tensor const& other) {
    auto q = x;
    auto k = d.chance(50) ? x : filled(other, x.dims().with(1, d.between(1, 5)));
    auto v = d.chance(50) ? k : filled(other, k.dims());
    if (d.chance(50)) {
      std::int64_t const width = d.between(1, 4);
      auto const all = linear_map(tanh(x), weights(d, {3 * width, x.dim(2)}), {});
      auto const rest = slice(all, 2, width, 2 * width);
      list parts{slice(all, 2, 0, width), slice(rest, 2, 0, width), slice(rest, 2, width, width)};
      std::rotate(parts.begin(), parts.begin() + d.below(3), parts.end());
      q = parts[0], k = parts[1], v = parts[d.chance(80) ? 2 : 0];
    }
    ouro::attention_rule rule{divisor(d, q.dim(2)), 0.4, {}, d.chance(30) ? 0.3 : 0.0, {d.key(), 2}};
    if (d.chance(50)) rule.sees = {d.between(1, 3), d.between(0, 4), 0};
    return scaled_dot_product_attention(q, k, v, rule);
  }
  tensor gated(dice& d, tensor const& x, tensor const& other) {
    std::int64_t const inside = divisor(d, x.dim(2));
    std::int64_t const out = d.between(1, 2);
    ouro::hormone_gate_inputs<B> in;
    in.x = folded(spread(d, x), inside);
    in.h = filled(other, {x.dim(0), 1, inside});
    in.f = filled(other, x.dims().with(2, out * inside));
    if (d.chance(50)) in.bias = weights(d, {out * inside});
    in.query_weight = weights(d, {inside});
    in.query_bias = weights(d, {inside});
    in.gate = constant(d, {out, inside});
    in.gate = in.gate + weights(d, {out, inside});
    in.proj_weight = weights(d, {out * inside});
    in.proj_bias = weights(d, {out * inside});
    bool const folds = d.chance(50);
    if (!folds || d.chance(20)) in.residual = filled(x, in.f.dims());
    in.gelu = d.chance(50);
    if (d.chance(30)) in.dropout = 0.3, in.draw = {d.key(), 5};
    if (!folds) return hormone_gate(in);
    auto const [y, sums] = hormone_gate_and_fold(in);
    return d.chance(50) ? ouro::concat<B>({sums, y}, 2) : d.chance(50) ? sums : y;
  }
  tensor scanned(dice& d, tensor const& x, tensor const& other) {
    auto const dims = x.dims();
    auto const z = filled(other, dims);
    std::int64_t const size = divisor(d, dims[2]);
    std::int64_t const heads = dims[2] / size;
    auto const state = expand(weights(d, {1, heads, size, size}), {dims[0], heads, size, size});
    auto both = [](auto const& r, ouro::shape const& like) {
      return r.y * reshape(mean(mean(mean(r.state, 1), 2), 3), {like[0], 1, 1}) + r.y;
    };
    switch (d.below(3)) {
      case 0: {
        auto const a = scale(tanh(x), 0.4);
        return tanh(both(rwkv7_scan(tanh(z), x, a, z, a, scale(tanh(z), -0.4), state), dims));
      }
      case 1: {
        auto const step = softplus(mean(reshape(z, {dims[0], dims[1], heads, size}), 3));
        auto const rate = scale(softplus(weights(d, {heads})), -1.0);
        auto const b = filled(tanh(z), dims.with(2, size));
        return tanh(both(ssd_scan(x, reshape(step, {dims[0], dims[1], heads}), rate, b, filled(x, b.dims()),
                                  weights(d, {heads}), state),
                         dims));
      }
      default: {
        std::int64_t const kernel = d.between(1, 3);
        auto const window =
            kernel == 1 ? tensor::zeros(dims.with(1, 0), x.type()) : expand(mean(z, 1), dims.with(1, kernel - 1));
        auto const [w, b] = two_weights(d, {dims[2], kernel}, {dims[2]});
        auto const r = short_convolution(x, window, w, b);
        return kernel == 1 ? r.y : ouro::concat({r.y, r.state}, 1);
      }
    }
  }

  std::uint64_t key_;
  list leaves_;
  ouro::tape<B>* tape_ = nullptr;
  tensor total_;
};

}  // namespace ouro_test
