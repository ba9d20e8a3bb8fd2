// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The reference model's Actor: each patch is a short causal sequence of bytes that looks at the thoughts of its patch
// and of the one before.
#pragma once

#include <vector>

#include <ouro/autodiff/settle.hpp>
#include <ouro/nn/exchange.hpp>
#include <ouro/nn/hormone_layer.hpp>
#include <ouro/nn/sequential.hpp>
#include <ouro/ops/cross_entropy.hpp>
#include <ouro/ops/gather_sum.hpp>
#include <ouro/sensor/patches.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// A thought (D) → K anchor rows (K,D); `sos_anchor` stands for the thought before the first.
template <Backend B>
struct decompressor {
  using backend = B;
  linear<B> expander;
  parameter<B> sos_anchor;  // (1,1,K,D)
  OURO_MODULE(decompressor, expander, sos_anchor);

  decompressor() = default;
  decompressor(genesis<B>& g, std::int64_t width, std::int64_t anchors)
      : expander(g, width, anchors * width), sos_anchor(g.normal({1, 1, anchors, width}, 0.02)) {}

  /// now (B,S,D), before (B,1,D) or absent → A₋₁ … A_{S−1}, of which patch s looks at A_{s−1} and A_s: (B,S+1,K,D).
  tensor<B> operator()(context<B>& cx, tensor<B> const& now, tensor<B> const& before) const {
    std::int64_t const lanes = now.dim(0);
    std::int64_t const anchors = sos_anchor.dim(2);
    std::int64_t const width = sos_anchor.dim(3);
    auto rows = [&](tensor<B> const& t) { return reshape(expander(cx, t), {lanes, t.dim(1), anchors, width}); };
    if (before) return rows(concat<B>({before, now}, 1));
    return concat<B>({expand(sos_anchor.value(), {lanes, 1, anchors, width}), rows(now)}, 1);
  }
};

template <Backend B>
struct byte_actor {
  using backend = B;
  using input_type = patches;
  using target_type = byte_target;
  using output_type = patches;
  using layer = hormone_layer<B, attention<B>>;

  embedding<B> byte_embedding;  // (V,D)
  parameter<B> pos_embedding;   // (1,1,P,D)
  parameter<B> global_sos;      // (1,1,1,D)
  linear<B> hormone_proj;
  ouro::decompressor<B> decompressor;
  std::vector<layer> decoder_layer;
  hormone_receptor<B, layer_norm<B>> final_norm;
  linear<B> head;
  bool ignored_as_zero = false;
  std::int64_t tokens_at_once = settled_rows();  ///< bytes of a settled part
  OURO_MODULE(byte_actor, byte_embedding, pos_embedding, global_sos, hormone_proj, decompressor, decoder_layer,
              final_norm, head, ignored_as_zero, tokens_at_once);

  byte_actor() = default;
  /// Of width D, for patches of P bytes, with K anchor rows for each thought; ignored_zero: as gridman_config::ignored_bytes_as_zero. Errors
  /// (config): heads that do not divide the width.
  byte_actor(genesis<B>& g, std::int64_t width, std::int64_t heads, std::int64_t layers, std::int64_t patch,
             std::int64_t anchors, bool ignored_zero);

  [[nodiscard]] std::int64_t patch() const { return pos_embedding.dim(2); }

  /// Mean cross entropy in nats over the live bytes of all lanes; runs forward and, where a tape watches, backward in
  /// parts of whole patches.
  actor_loss<B> loss(context<B>& cx, impression<B> const& seen, patches const& x, byte_target const& target) const;

  /// The predictions for every byte of the target: (B,S,P,V).
  tensor<B> predict(context<B>& cx, impression<B> const& seen, patches const& x, byte_target const& target) const;

  /// Speaks one patch byte by byte, with the keys and values of the bytes before it kept.
  class voice {
   public:
    /// `previous`: the byte before the patch, one for each lane; empty for the very first patch of all (global_sos).
    voice(byte_actor const& actor, context<B>& cx, impression<B> const& seen, std::vector<std::int32_t> const& previous)
        : actor_(actor), cx_(cx), signals_(actor.signals(cx, seen.hormone)) {
      if (!previous.empty()) tell(previous);
      require(seen.now.dim(1) == 1, errc::shape, "voice", "needs the thought of one patch, got ", seen.now.dims());
      auto const around = actor.looked_at(cx, seen.now, seen.before);
      for (auto const& l : actor.decoder_layer) {
        auto const& a = *l.cross_attn;
        carry_.push_back({{}, a.absorb(cx, a.project(cx, around))});
      }
    }
    /// The logits of the next byte: (B,V). Errors: the patch is full, or the byte before was not told.
    tensor<B> next() {
      require(at_ < actor_.patch(), errc::argument, "voice", "the patch is full");
      require(!waits_, errc::argument, "voice", "the byte before was not told");
      std::int64_t const lanes = signals_.outputs[0].dim(0);
      std::int64_t const width = actor_.pos_embedding.dim(3);
      auto const place = reshape(slice(actor_.pos_embedding.value(), 2, at_, 1), {1, 1, width});
      auto const start = previous_.empty()
                             ? expand(reshape(actor_.global_sos.value(), {1, 1, width}), {lanes, 1, width})
                             : reshape(actor_.embed(previous_), {lanes, 1, width});
      auto h = start + place;
      mixer_stream<attention<B>> pass;
      for (std::size_t i = 0; i < carry_.size(); ++i)
        h = actor_.decoder_layer[i].step(cx_, h, carry_[i], signals_.layers[i], pass);
      ++at_;
      waits_ = true;
      return reshape(actor_.head(cx_, actor_.final_norm(cx_, h, signals_.outputs[0])), {lanes, byte_vocabulary});
    }
    /// The byte of each lane that was chosen (or forced) after next().
    void tell(std::vector<std::int32_t> const& bytes) {
      for (auto const b : bytes)
        require(b >= 0 && b < byte_vocabulary, errc::argument, "voice", "there is no byte ", b);
      waits_ = false;
      previous_ = tensor<B>::from(bytes, {static_cast<std::int64_t>(bytes.size()), 1});
    }
    /// Chooses the byte of each lane after next(), and tells it: i32 (B,1); -1 where the logits are not finite.
    tensor<B> choose(tensor<B> const& logits, sampling_rule const& rule) {
      tensor<B> chosen({logits.dim(0), 1}, dtype::i32);
      B::sample(chosen.write(), packed(logits).read(), rule);
      waits_ = false;
      return previous_ = chosen;
    }
    [[nodiscard]] std::int64_t said() const { return at_; }

   private:
    byte_actor const& actor_;
    context<B>& cx_;
    stack_signals<B> signals_;
    tensor<B> previous_;  // i32 (B,1), or absent
    std::vector<typename layer::carry> carry_;
    std::int64_t at_ = 0;
    bool waits_ = false;  // for the byte that follows from the last logits
  };

  /// Stores the weights that every byte reads in another dtype. In bf16 they are half as long, and a number is off by
  /// 2⁻⁹ of its value at most; such an Actor speaks and predicts, but no tape watches it. Errors (argument): neither bf16 nor the
  /// dtype of its other parameters.
  void store_weights(dtype type);

  /// The patch that follows the last patch of x, most probable byte by byte (ties: the lower byte).
  patches act(context<B>& cx, impression<B> const& seen, patches const& x) const;

 private:
  /// What the backend likes to have at once, or a working set that stays in cache.
  static constexpr std::int64_t settled_rows() {
    if constexpr (requires { B::settled_rows; }) return B::settled_rows;
    else return 2048;
  }

  /// bytes i32 (N,1) → (N,D).
  tensor<B> embed(tensor<B> const& bytes) const {
    auto const table = reshape(byte_embedding.weight.value(), {1, byte_vocabulary, byte_embedding.weight.dim(1)});
    return gather_sum(table, bytes);
  }

  static tensor<B> column(std::vector<std::int32_t> const& v) {
    return tensor<B>::from(v, {static_cast<std::int64_t>(v.size()), 1});
  }

  /// What the first layer reads depends on a byte and its place alone, so each of them may be computed once and copied.
  static constexpr bool shared_rows = !on_device<B>;
  struct byte_rows {
    tensor<B> rows;   // (R,D), each another one
    tensor<B> index;  // i32 (N,1): which of them is the n-th byte's
    /// t (R,C) → (N,C).
    [[nodiscard]] tensor<B> spread(tensor<B> const& t) const {
      return gather_sum(reshape(t, {1, t.dim(0), t.dim(1)}), index);
    }
  };
  /// Of bytes in patches of which the first `length` are asked for.
  byte_rows distinct(std::vector<std::int32_t> const& bytes, std::int64_t length) const {
    std::vector<std::int32_t> number(static_cast<std::size_t>(byte_vocabulary * length), -1);
    std::vector<std::int32_t> which, places, index;
    index.reserve(bytes.size());
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      auto const place = static_cast<std::int32_t>(i % static_cast<std::size_t>(length));
      auto& at = number[static_cast<std::size_t>(place * byte_vocabulary + bytes[i])];
      if (at < 0) {
        at = static_cast<std::int32_t>(which.size());
        which.push_back(bytes[i]);
        places.push_back(place);
      }
      index.push_back(at);
    }
    auto const position = reshape(pos_embedding.value(), {1, patch(), pos_embedding.dim(3)});
    return {embed(column(which)) + gather_sum(position, column(places)), column(index)};
  }

  /// What the layers look at: anchors as the decompressor gives them, or the windows of the patches, (B·S,2K,D).
  tensor<B> looked_at(context<B>& cx, tensor<B> const& now, tensor<B> const& before) const {
    auto const anchors = decompressor(cx, now, before);
    if (cx.watcher != nullptr) cx.see("anchors", windows(anchors));
    auto const groups = copied(anchors, cx.inner(anchors.type()));  // once for all layers
    return on_device<B> ? windows(groups) : groups;
  }

  stack_signals<B> signals(context<B>& cx, tensor<B> const& hormone) const {
    return hear(decoder_layer, {&final_norm.hormone_network}, hormone_proj(cx, hormone));
  }

  /// What logits() looks at: thought (B,S,D), the signals, and the thought before (B,1,D) if there was one.
  std::vector<tensor<B>> gather(context<B>& cx, impression<B> const& seen) const {
    auto const s = signals(cx, seen.hormone);
    std::vector<tensor<B>> inputs{seen.now, s.outputs[0]};
    for (auto const& l : s.layers) inputs.insert(inputs.end(), {l.norm2, l.linear1, l.linear2});
    if (seen.before) inputs.push_back(seen.before);
    return inputs;
  }

  /// Patches first … first + count − 1, of which the first `length` bytes each are asked for.
  struct run {
    std::int64_t first;
    std::int64_t count;
    std::int64_t length;
  };

  /// in: what gather() gives. The patches of a run → (B,count·length,V).
  tensor<B> logits(context<B>& cx, std::vector<tensor<B>> const& in, patches const& x, byte_target const& target,
                   run const& asked) const {
    auto const [first, n, length] = asked;
    std::int64_t const lanes = x.lanes;
    std::int64_t const width = pos_embedding.dim(3);
    std::vector<std::int32_t> bytes;
    bytes.reserve(static_cast<std::size_t>(lanes * n * length));
    for (std::int64_t b = 0; b < lanes; ++b)
      for (std::int64_t s = first; s < first + n; ++s) {
        bytes.push_back(x.at(b, s, patch() - 1));
        for (std::int64_t i = 0; i + 1 < length; ++i) {
          bool const live = target.live[static_cast<std::size_t>((b * x.count + s) * patch() + i)] != 0;
          bytes.push_back(live || !ignored_as_zero ? target.next.at(b, s, i) : 0);
        }
      }
    auto const read = shared_rows ? distinct(bytes, length) : byte_rows{};
    tensor<B> h;  // (B·n,length,D)
    if (shared_rows) {
      h = reshape(read.spread(read.rows), {lanes * n, length, width});
    } else {
      auto const place = reshape(slice(pos_embedding.value(), 2, 0, length), {1, length, width});
      h = reshape(embed(column(bytes)), {lanes * n, length, width}) + place;
    }

    std::size_t const given = 2 + 3 * decoder_layer.size();
    tensor<B> before = in.size() > given ? in[given] : tensor<B>{};
    if (first > 0) before = slice(in[0], 1, first - 1, 1);
    auto const around = looked_at(cx, slice(in[0], 1, first, n), before);
    mixer_stream<attention<B>> pass;
    for (std::size_t i = 0; i < decoder_layer.size(); ++i) {
      auto const& l = decoder_layer[i];
      layer_signals<B> const now{in[2 + 3 * i], in[3 + 3 * i], in[4 + 3 * i]};
      segments const s{.input = length};
      if (i == 0 && shared_rows) {
        auto const projected = read.spread(l.attn.project_all(cx, l.norm1(cx, read.rows)));
        auto const rows = reshape(projected, {lanes * n, length, 3 * width});
        h = l.after(cx, h, l.attn.within(cx, rows, s.sees()), around, now);
      } else {
        h = l(cx, h, s, around, now, pass);
      }
    }
    auto const rows = reshape(h, {lanes, n * length, width});
    return head(cx, final_norm(cx, rows, in[1], {.result = cx.inner(h.type())}), h.type());
  }

  /// Runs of patches in which something counts in some lane, as many in each as `tokens_at_once` allows, evenly. The others
  /// need no Actor at all, nor does what lies behind a patch's last byte that counts.
  [[nodiscard]] std::vector<run> live_runs(byte_target const& t, std::int64_t lanes, std::int64_t count) const {
    std::int64_t const most = elementary::max<std::int64_t>(1, tokens_at_once / (lanes * patch()));
    auto length_of = [&](std::int64_t s) {  // up to the last byte that counts in any lane
      std::int64_t length = 0;
      for (std::int64_t b = 0; b < lanes; ++b)
        for (std::int64_t i = length; i < patch(); ++i)
          if (t.live[static_cast<std::size_t>((b * count + s) * patch() + i)] != 0) length = i + 1;
      return length;
    };
    std::vector<run> runs;
    for (std::int64_t s = 0; s < count;) {
      std::int64_t const first = s++;
      std::int64_t const length = length_of(first);
      while (s < count && length_of(s) == length) ++s;
      if (length == 0) continue;
      std::int64_t const pieces = (s - first + most - 1) / most;
      for (std::int64_t p = 0; p < pieces; ++p) {
        std::int64_t const from = (s - first) * p / pieces;
        runs.push_back({first + from, (s - first) * (p + 1) / pieces - from, length});
      }
    }
    return runs;
  }

  void check(impression<B> const& seen, patches const& x, byte_target const& target) const {
    auto const& next = target.next;
    require(target.live.size() == next.bytes.size(), errc::shape, "byte_actor", "a target of ", next.bytes.size(),
            " bytes must say of each whether it counts, got ", target.live.size());
    require(x.width == patch() && next.width == patch() && x.count == next.count && x.lanes == next.lanes &&
                seen.now.dim(0) == x.lanes && seen.now.dim(1) == x.count,
            errc::shape, "byte_actor", "input, target and thought must have the same lanes and patches of ", patch(),
            " bytes, got ", x.lanes, "x", x.count, "x", x.width, ", ", next.lanes, "x", next.count, "x", next.width,
            " and ", seen.now.dims());
    x.validate("byte_actor");
    next.validate("byte_actor");
  }
};

template <Backend B>
byte_actor<B>::byte_actor(genesis<B>& g, std::int64_t width, std::int64_t heads, std::int64_t layers,
                          std::int64_t patch, std::int64_t anchors, bool ignored_zero)
    : byte_embedding{g.normal({byte_vocabulary, width}, 1.0)},
      pos_embedding(g.normal({1, 1, patch, width}, 1.0)),
      global_sos(g.normal({1, 1, 1, width}, 1.0)),
      hormone_proj(g, width / 4, width / 4),
      decompressor(g, width, anchors),
      decoder_layer(layer_stack<B, attention<B>>(g, width, heads, layers, true, {}, {})),
      final_norm(g, layer_norm<B>(g, width), width / 4, width, width),
      head(g, width, byte_vocabulary),
      ignored_as_zero(ignored_zero) {}

template <Backend B>
actor_loss<B> byte_actor<B>::loss(context<B>& cx, impression<B> const& seen, patches const& x,
                                  byte_target const& target) const {
  check(seen, x, target);
  std::int64_t const live = target.live_count();
  if (live == 0) return {};
  auto const parts = live_runs(target, x.lanes, x.count);
  auto const inputs = gather(cx, seen);
  auto const draws = cx.masks;
  std::uint64_t const sites = 8 + 4 * decoder_layer.size();
  cx.masks.counter += sites * parts.size();

  auto const part = [&](std::int64_t p, std::vector<tensor<B>> const& in) {
    auto const& asked = parts[static_cast<std::size_t>(p)];
    context<B> own{.training = cx.training, .dropout = cx.dropout, .masks = draws, .narrow = cx.narrow};
    own.masks.counter += sites * static_cast<std::uint64_t>(p);
    std::vector<std::int32_t> labels;
    for (std::int64_t b = 0; b < x.lanes; ++b)
      for (std::int64_t s = asked.first; s < asked.first + asked.count; ++s)
        for (std::int64_t i = 0; i < asked.length; ++i) {
          auto const at = static_cast<std::size_t>((b * x.count + s) * patch() + i);
          labels.push_back(target.live[at] ? target.next.bytes[at] : -1);
        }
    auto y = logits(own, in, x, target, asked);
    // Where there was no thought the anchor before the first patch takes part, whether or not that patch counts.
    if (p == 0 && asked.first > 0 && !seen.before) y = attach(y, decompressor.sos_anchor.value());
    auto const rows = static_cast<std::int64_t>(labels.size());
    auto const nll = cross_entropy(reshape(y, {rows, byte_vocabulary}), tensor<B>::from(labels, {rows}));
    return scale(sum(nll), 1.0 / static_cast<double>(live));
  };
  auto const total = settle<B>(inputs, static_cast<std::int64_t>(parts.size()), part);
  return {total, live};
}

template <Backend B>
tensor<B> byte_actor<B>::predict(context<B>& cx, impression<B> const& seen, patches const& x,
                                 byte_target const& target) const {
  check(seen, x, target);
  return reshape(logits(cx, gather(cx, seen), x, target, {0, x.count, patch()}),
                 {x.lanes, x.count, patch(), byte_vocabulary});
}

template <Backend B>
void byte_actor<B>::store_weights(dtype type) {
  require(type == dtype::bf16 || type == pos_embedding.type(), errc::argument, "store_weights",
          "weights may be stored in bf16 or ", name_of(pos_embedding.type()), ", got ", name_of(type));
  auto in = [type](parameter<B>& p) {
    if (p.type() != type) p = p.value().copy(type);
  };
  for (auto& l : decoder_layer) {
    in(l.attn.in_proj_weight);
    in(l.attn.out_proj.weight);
    in(l.linear1.backbone.weight);
    in(l.linear2.backbone.weight);
  }
  in(head.weight);
}

template <Backend B>
patches byte_actor<B>::act(context<B>& cx, impression<B> const& seen, patches const& x) const {
  impression<B> last = seen;
  if (seen.now.dim(1) > 1) {
    last.before = slice(seen.now, 1, seen.now.dim(1) - 2, 1);
    last.now = slice(seen.now, 1, seen.now.dim(1) - 1, 1);
  }
  std::vector<std::int32_t> previous;
  for (std::int64_t b = 0; b < x.lanes; ++b) previous.push_back(x.at(b, x.count - 1, x.width - 1));
  voice v(*this, cx, last, previous);
  std::vector<tensor<B>> said;
  for (std::int64_t i = 0; i < patch(); ++i) said.push_back(v.choose(v.next(), {.temperature = 0}));
  patches const all{x.lanes, 1, patch(), concat(said, 1).template values<std::int32_t>()};
  for (auto const byte : all.bytes) require(byte >= 0, errc::numeric, "byte_actor", "the logits are not finite");
  return all;
}

}  // namespace ouro
