// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The sequence [Mem | Read | Input | Write] that lets an input meet a state: inside the Sensor it colours what is
// perceived, inside the Brain it also moves the state on.
#pragma once

#include <array>
#include <mutex>
#include <optional>
#include <vector>

#include <ouro/nn/hormone_layer.hpp>
#include <ouro/ops/unit.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// Linear(D→D/2), GELU, Linear(D/2→D), tanh: members are named by their place in that sequence.
template <Backend B>
struct self_network {
  using backend = B;
  linear<B> _0;
  linear<B> _2;
  OURO_MODULE(self_network, _0, _2);
  tensor<B> operator()(context<B>& cx, tensor<B> const& x) const { return tanh(_2(cx, gelu(_0(cx, x)))); }
};

/// self ← LN(0.95·self + 0.05·encoder(mean of the state's rows)): (B,1,D).
template <Backend B>
struct self_encoder {
  using backend = B;
  self_network<B> encoder;
  layer_norm<B> norm;
  OURO_MODULE(self_encoder, encoder, norm);

  self_encoder() = default;
  self_encoder(genesis<B>& g, std::int64_t width);

  tensor<B> operator()(context<B>& cx, tensor<B> const& self, tensor<B> const& state) const;
};

template <Backend B>
self_encoder<B>::self_encoder(genesis<B>& g, std::int64_t width)
    : encoder{linear<B>(g, width, width / 2), linear<B>(g, width / 2, width)}, norm(g, width) {}

template <Backend B>
tensor<B> self_encoder<B>::operator()(context<B>& cx, tensor<B> const& self, tensor<B> const& state) const {
  return norm(cx, 0.95 * self + 0.05 * encoder(cx, mean(state, 1)));
}

/// Interleaved sin (even columns) and cos (odd columns) of position · 100000^(−2k/D): (rows,D).
template <Backend B>
tensor<B> position_encoding(std::vector<double> const& positions, std::int64_t width, dtype type) {
  std::vector<double> rates;
  for (std::int64_t c = 0; c < width; ++c)
    rates.push_back(elementary::pow(100000.0, -2.0 * static_cast<double>(c / 2) / static_cast<double>(width)));
  std::vector<double> values;
  values.reserve(positions.size() * rates.size());
  for (double p : positions)
    for (std::size_t c = 0; c < rates.size(); ++c)
      values.push_back(c % 2 == 0 ? elementary::sin(p * rates[c]) : elementary::cos(p * rates[c]));
  return tensor<B>::from(values, {static_cast<std::int64_t>(positions.size()), width}, type);
}

/// Position encodings for the sizes they were last asked for: they follow from nothing else, so that a network and its
/// copies share them. Several threads may ask.
template <Backend B>
class position_encodings : public counted {
 public:
  using sizes = std::array<std::int64_t, 6>;

  /// make() unless it was asked for these sizes lately.
  template <class F>
  tensor<B> get(sizes const& asked, F&& make) {
    std::lock_guard const lock(mutex_);
    for (auto const& k : kept_)
      if (k.asked == asked) return k.value;
    if (kept_.size() == most) kept_.erase(kept_.begin());
    kept_.push_back({asked, make()});
    return kept_.back().value;
  }

 private:
  struct kept {
    sizes asked;
    tensor<B> value;
  };
  static constexpr std::size_t most = 4;  // awake with input, awake with none, asleep, and one more

  std::mutex mutex_;
  std::vector<kept> kept_;
};

/// What a StateTransformer is asked for.
enum class wanted : std::uint8_t {
  features,  ///< the Input rows only (Sensor): Write rows are never computed
  both,      ///< Input and Write rows (Brain, awake)
  state,     ///< the Write rows only (Brain, asleep)
};

template <class B>
struct state_transformer_result {
  tensor<B> features;  // (B,L,D), unit rows
  tensor<B> state;     // (B,R,D), unit rows
  tensor<B> self;      // (B,1,D)
};

template <Backend B, class Mixer = attention<B>>
struct state_transformer {
  using backend = B;
  layer_norm<B> mem_norm;
  layer_norm<B> state_norm;
  layer_norm<B> input_norm;
  parameter<B> read_slot_emb;   // (1,R,D)
  parameter<B> write_slot_emb;  // (1,R,D)
  std::vector<hormone_layer<B, Mixer>> layers;
  hormone_receptor<B, layer_norm<B>> text_output_norm;
  hormone_receptor<B, layer_norm<B>> state_output_norm;
  std::optional<ouro::self_encoder<B>> self_encoder;
  shared<position_encodings<B>> encodings = make_owned<position_encodings<B>>();
  OURO_MODULE(state_transformer, mem_norm, state_norm, input_norm, read_slot_emb, write_slot_emb, layers,
              text_output_norm, state_output_norm, self_encoder);

  state_transformer() = default;
  /// `kinds` names the mixers of the layers ("rwkv7*3 attention") where they can differ. Errors (config): another number.
  state_transformer(genesis<B>& g, std::int64_t width, std::int64_t heads, std::int64_t layer_count,
                    std::int64_t state_rows, bool updates_self, std::string_view kinds = {}, row_policy policy = {})
      : mem_norm(g, width),
        state_norm(g, width),
        input_norm(g, width),
        read_slot_emb(g.normal({1, state_rows, width}, 0.02)),
        write_slot_emb(g.normal({1, state_rows, width}, 0.02)),
        layers(layer_stack<B, Mixer>(g, width, heads, layer_count, false, kinds, policy)),
        text_output_norm(g, layer_norm<B>(g, width), width / 4, width, width),
        state_output_norm(g, layer_norm<B>(g, width), width / 4, width, width),
        self_encoder(updates_self ? std::optional(ouro::self_encoder<B>(g, width)) : std::nullopt) {}

  /// x (B,L,D), mem (B,M,D), state (B,R,D), self (B,1,D), hormone (B,1,D/4).
  state_transformer_result<B> operator()(context<B>& cx, tensor<B> const& x, tensor<B> const& mem,
                                         tensor<B> const& state, tensor<B> const& self, tensor<B> const& hormone,
                                         wanted want) const {
    std::int64_t const width = read_slot_emb.dim(2);
    require(mem.rank() == 3 && state.rank() == 3 && x.rank() == 3 && mem.dim(2) == width && x.dim(2) == width &&
                state.dims() == shape{x.dim(0), read_slot_emb.dim(1), width} && mem.dim(0) == x.dim(0),
            errc::shape, "state_transformer", "needs Mem of width ", width, " and a State of ", read_slot_emb.dim(1),
            " rows for each of ", x.dims(), ", got ", mem.dims(), " and ", state.dims(), ": of another network?");
    auto const s = state_norm(cx, state);
    state_transformer_result<B> result;
    segments run{mem.dim(1), state.dim(1), x.dim(1), want == wanted::features ? 0 : state.dim(1), 0};

    std::vector<tensor<B>> rows{mem_norm(cx, mem), s + read_slot_emb.value(), input_norm(cx, x)};
    if (want == wanted::features) {
      // The Write rows take part in the sum of section 7 with a derivative of zero: they decay, nothing more.
      rows[1] = attach(rows[1], write_slot_emb.value());
    } else {
      result.self = (*self_encoder)(cx, self, s);
      rows.push_back(s + write_slot_emb.value() + result.self);
    }
    auto h = concat(rows, 1) +  // (B,T,D)
             encodings->get({run.mem, run.read, run.input, run.write, x.dim(2), static_cast<std::int64_t>(x.type())},
                            [&] { return encoding(run, x.dim(2), x.type()); });

    // Only those that are read: a network that nothing depends on gets no gradient, and does not decay.
    std::vector<hormone_network<B> const*> outputs;
    if (want != wanted::state) outputs.push_back(&text_output_norm.hormone_network);
    if (want != wanted::features) outputs.push_back(&state_output_norm.hormone_network);
    auto const signals = hear(layers, outputs, hormone);

    mixer_stream<Mixer> pass;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      bool const last = i + 1 == layers.size();
      auto now = run;
      if (last) now.skip = run.mem + run.read + (want == wanted::state ? run.input : 0);
      auto const& heard = signals.layers[i];
      if (!shares_stream(layers[i].attn) && !cx.keeps(layers[i].kept_bytes(cx, h))) {
        h = cx.recomputed({h, heard.norm2, heard.linear1, heard.linear2},
                          [&layer = layers[i], now](context<B>& inner, std::vector<tensor<B>> const& in) {
                            mixer_stream<Mixer> alone;
                            return layer(inner, in[0], now, {}, {in[1], in[2], in[3]}, alone);
                          });
      } else {
        if (i == 0) now.mem_version = cx.version_of(mem);  // later layers have mixed something else into Mem
        h = layers[i](cx, h, now, {}, heard, pass);
      }
      cx.see("layer", h);
    }
    if (want != wanted::state)
      result.features = unit(text_output_norm(cx, slice(h, 1, 0, run.input), signals.outputs.front()));
    if (want != wanted::features)
      result.state = unit(state_output_norm(cx, slice(h, 1, h.dim(1) - run.write, run.write), signals.outputs.back()));
    return result;
  }

 private:
  static tensor<B> encoding(segments const& run, std::int64_t width, dtype type) {
    std::vector<double> positions;
    for (std::int64_t i = 0; i < run.mem; ++i) positions.push_back(static_cast<double>(i - run.mem));
    for (std::int64_t i = 0; i < run.read; ++i) positions.push_back(0);
    for (std::int64_t i = 0; i < run.input; ++i) positions.push_back(static_cast<double>(i + 1));
    for (std::int64_t i = 0; i < run.write; ++i) positions.push_back(8.0 * static_cast<double>(run.write));
    return position_encoding<B>(positions, width, type);
  }
};

}  // namespace ouro
