// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The reference model's Sensor: bytes are compressed to one vector for each patch, and coloured by the state.
#pragma once

#include <vector>

#include <ouro/nn/exchange.hpp>
#include <ouro/nn/sequential.hpp>
#include <ouro/nn/state_transformer.hpp>
#include <ouro/ops/batch_norm.hpp>
#include <ouro/ops/gather_sum.hpp>
#include <ouro/ops/square_root.hpp>
#include <ouro/sensor/patches.hpp>

namespace ouro {

/// y = gain ⊙ x + shift for rows of C columns: (C) each.
template <class B>
struct column_line {
  tensor<B> gain;
  tensor<B> shift;
};

/// A convolution's weight (out, in, kernel) and bias (out).
template <Backend B>
struct convolution {
  using backend = B;
  parameter<B> weight;
  parameter<B> bias;
  OURO_MODULE(convolution, weight, bias);

  convolution() = default;
  convolution(genesis<B>& g, std::int64_t in, std::int64_t out, std::int64_t kernel)
      : weight(g.fan_in({out, in, kernel}, in * kernel)), bias(g.fan_in({out}, in * kernel)) {}

  /// With kernel 1: x (…,in) → (…,out).
  tensor<B> pointwise(context<B>& cx, tensor<B> const& x) const {
    return linear_map(x, matrix(cx.stored(weight, x.type())), cx.stored(bias, x.type()));
  }
  /// pointwise(gain ⊙ x + shift), by other weights instead of other rows: W (gain ⊙ x + shift) = (W ⊙ gain) x + W shift.
  tensor<B> pointwise(tensor<B> const& x, column_line<B> const& line) const {
    auto const w = matrix(weight.value());
    auto const more = matmul(w, reshape(line.shift, {w.dim(1), 1}));
    return linear_map(x, w * line.gain, bias.value() + reshape(more, {w.dim(0)}));
  }

 private:
  static tensor<B> matrix(tensor<B> const& w) { return reshape(w, {w.dim(0), w.dim(1)}); }
};

/// Batch normalisation with running statistics (momentum 0.1): x (R,C) → (R,C).
template <Backend B>
struct batch_norm_module {
  using backend = B;
  parameter<B> weight;
  parameter<B> bias;
  statistic<B> running_mean;
  statistic<B> running_var;
  OURO_MODULE(batch_norm_module, weight, bias, running_mean, running_var);

  batch_norm_module() = default;
  batch_norm_module(genesis<B>& g, std::int64_t width)
      : weight(g.ones({width})), bias(g.zeros({width})), running_mean(g.zeros({width})), running_var(g.ones({width})) {}

  tensor<B> operator()(context<B>& cx, tensor<B> const& x) const {
    if (!cx.training) {
      auto const [gain, shift] = line(cx, x);
      return x * gain + shift;
    }
    auto const r = batch_norm(x, weight.value(), bias.value(), 1e-5, cx.inner(x.type()));
    note(cx, r.mean, r.variance, x.dim(0));
    return r.y;
  }
  /// What it does to the rows of x.
  column_line<B> line(context<B>& cx, tensor<B> const& x) const {
    column_statistics<B> m{running_mean, running_var};
    if (cx.training) {
      m = column_moments(x);
      note(cx, m.mean.detach(), m.variance.detach(), x.dim(0));
    }
    auto const gain = divide(weight.value(), square_root(m.variance + tensor<B>::full({1}, x.type(), 1e-5)));
    return {gain, bias.value() - m.mean * gain};
  }

 private:
  void note(context<B>& cx, tensor<B> const& mean, tensor<B> const& variance, std::int64_t rows) const {
    auto const n = static_cast<double>(rows);
    cx.statistics.push_back({&running_mean, mean, 0.1});
    cx.statistics.push_back({&running_var, variance, 0.1, n > 1 ? n / (n - 1) : 1.0});  // the unbiased estimate
  }
};

/// Numbered members of the compressor's sequences.
template <Backend B>
struct resonator_stack {
  using backend = B;
  convolution<B> _0;
  batch_norm_module<B> _2;
  OURO_MODULE(resonator_stack, _0, _2);
};
template <Backend B>
struct single_convolution {
  using backend = B;
  convolution<B> _0;
  OURO_MODULE(single_convolution, _0);
};
template <Backend B>
struct boundary_stack {
  using backend = B;
  linear<B> _0;
  layer_norm<B> _1;
  linear<B> _3;
  OURO_MODULE(boundary_stack, _0, _1, _3);
};

/// Patches of bytes → one vector each: a convolution of kernel 8 over the bytes, then start, mean and end of the patch.
template <Backend B>
struct compressor {
  using backend = B;
  static constexpr std::int64_t kernel = 8;
  static constexpr std::int64_t padding = 2;
  static constexpr std::int64_t lost = 3;  ///< columns fewer than bytes: kernel − 1 − 2·padding

  resonator_stack<B> resonator;
  single_convolution<B> condenser;
  parameter<B> pos_emb;  // (1,D,P)
  single_convolution<B> fusion_mlp;
  boundary_stack<B> boundary_fusion;
  layer_norm<B> proj_norm;
  OURO_MODULE(compressor, resonator, condenser, pos_emb, fusion_mlp, boundary_fusion, proj_norm);

  compressor() = default;
  compressor(genesis<B>& g, std::int64_t width, std::int64_t patch)
      : resonator{convolution<B>(g, byte_vocabulary, 2 * width, kernel), batch_norm_module<B>(g, 2 * width)},
        condenser{convolution<B>(g, 2 * width, width, 1)},
        pos_emb(g.normal({1, width, patch}, 0.02)),
        fusion_mlp{convolution<B>(g, width, width, 1)},
        boundary_fusion{linear<B>(g, 3 * width, 2 * width), layer_norm<B>(g, 2 * width),
                        linear<B>(g, 2 * width, width)},
        proj_norm(g, width) {
    require(patch > lost, errc::config, "compressor", "a patch must have at least ", lost + 1, " bytes, got ", patch);
    boundary_fusion._3.weight = g.xavier({width, 2 * width}, 0.1);
  }

  /// Whether the normalisation is part of the product after it. A backend that has no faster products than others computes what
  /// is written: rows that are normalised first keep more digits.
  static bool folds([[maybe_unused]] dtype type) {
    if constexpr (requires { B::products(); }) return exact_products<B>(type);
    else return false;
  }
  /// What the rows of columns are stored in.
  dtype inner(context<B> const& cx) const { return folds(pos_emb.type()) ? pos_emb.type() : cx.inner(pos_emb.type()); }
  /// Whether what was looked up is not kept for its gradient, but looked up again.
  static constexpr bool looks_again = !on_device<B>;

  /// Bytes are few, so the convolution is a table: T_k = E W_kᵀ, y = Σ_k T_k[byte]. PAD is a zero row of E: (8,V,2D).
  tensor<B> table(tensor<B> const& embedding) const {
    auto const& w = resonator._0.weight.value();  // (2D,V,8)
    auto const taps = reshape(transpose(w, 0, 2), {kernel, byte_vocabulary, w.dim(0)});
    return matmul(expand(embedding, {kernel, byte_vocabulary, byte_vocabulary}), taps);
  }

  /// bytes (B,S,P), table(embedding) → (B,S,D).
  tensor<B> operator()(context<B>& cx, patches const& x, tensor<B> const& table) const {
    std::int64_t const columns = x.width - lost;
    std::int64_t const sequences = x.lanes * x.count;
    std::int64_t const width = pos_emb.dim(1);

    std::vector<std::int32_t> index;
    index.reserve(static_cast<std::size_t>(sequences * columns * kernel));
    for (std::int64_t s = 0; s < sequences; ++s)
      for (std::int64_t c = 0; c < columns; ++c)
        for (std::int64_t k = 0; k < kernel; ++k) {
          std::int64_t const i = c + k - padding;
          std::int32_t const b = i < 0 || i >= x.width ? pad_byte : x.bytes[static_cast<std::size_t>(s * x.width + i)];
          index.push_back(b == pad_byte ? -1 : b);
        }
    auto const at = tensor<B>::from(index, {sequences * columns, kernel});
    auto const look_up = [at, type = inner(cx)](std::vector<tensor<B>> const& in) {
      return gelu(gather_sum(in[0], at, in[1], type));
    };
    std::vector<tensor<B>> const tables{table, resonator._0.bias.value()};
    auto h = looks_again ? checkpoint<B>(tables, look_up) : look_up(tables);  // (B·S·C,2D)
    // Normalised rows are never written, but where factors of products are rounded: a large mean would cost their digits.
    dtype const type = pos_emb.type();
    h = folds(type) ? condenser._0.pointwise(h, resonator._2.line(cx, h))
                    : condenser._0.pointwise(cx, resonator._2(cx, h));
    auto const y = reshape(gelu(h), {sequences, columns, width});  // (B·S,C,D)

    auto const turned = transpose(slice(pos_emb.value(), 2, 0, columns), 1, 2);
    auto const place = as_copy_of(turned, turned.copy(y.type()));                            // (1,C,D)
    auto const body = mean(gelu(fusion_mlp._0.pointwise(cx, y + place)), 1);                 // (B·S,1,D)
    auto const ends = concat<B>({slice(y, 1, 0, 1), body, slice(y, 1, columns - 1, 1)}, 2);  // (B·S,1,3D)
    auto const& f = boundary_fusion;
    return reshape(proj_norm(cx, f._3(cx, gelu(f._1(cx, f._0(cx, ends, type))))), {x.lanes, x.count, width});
  }
};

template <Backend B, class Mixer = attention<B>>
struct byte_sensor {
  using backend = B;
  using input_type = patches;
  embedding<B> byte_embedding;  // (V,V)
  ouro::compressor<B> compressor;
  state_transformer<B, Mixer> context_mixer;
  OURO_MODULE(byte_sensor, byte_embedding, compressor, context_mixer);

  byte_sensor() = default;
  /// Of width D, for patches of P bytes and State's rows; `kinds` and `policy` are of a Mixer that has them. Errors (config): heads that
  /// do not divide the width; a patch below 4.
  byte_sensor(genesis<B>& g, std::int64_t width, std::int64_t heads, std::int64_t layers, std::int64_t patch,
              std::int64_t state_rows, std::string_view kinds = {}, row_policy policy = {})
      : compressor(g, width, patch), context_mixer(g, width, heads, layers, state_rows, false, kinds, policy) {
    auto e = g.normal({byte_vocabulary, byte_vocabulary}, 0.02);
    if (!g.blank) B::fill(e.write().slice(0, pad_byte, 1), 0.0);
    byte_embedding.weight = e;
  }

  /// Patches (B,S,P) → disturbances (B,S,D).
  tensor<B> operator()(context<B>& cx, patches const& x, state_view<B> const& s, tensor<B> const& hormone) const {
    require(x.width == compressor.pos_emb.dim(2) && x.lanes == s.mem.dim(0), errc::shape, "byte_sensor", "needs ",
            s.mem.dim(0), " lanes of patches of ", compressor.pos_emb.dim(2), " bytes, got ", x.lanes, " of ", x.width);
    x.validate("byte_sensor");
    auto const press = [this, x](context<B>& inner, std::vector<tensor<B>> const& table) {
      return compressor(inner, x, table[0]);
    };
    auto const& embedding = byte_embedding.weight.value();
    std::vector<tensor<B>> const table{cx.once({reinterpret_cast<std::intptr_t>(&compressor)}, embedding,
                                               [&] { return compressor.table(embedding); })};
    // Of all parts it keeps the most for each multiplication: where not all can be kept, this is what to compute again.
    auto const pressed = cx.keeps_all() ? press(cx, table) : cx.recomputed(table, press);
    cx.see("compressor", pressed);
    auto const y = context_mixer(cx, unit(pressed), s.mem, s.working, s.self, hormone, wanted::features).features;
    cx.see("sensor", y);
    return y;
  }
};

}  // namespace ouro
