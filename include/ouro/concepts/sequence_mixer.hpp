// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// SequenceMixer: what moves information between the rows of a sequence inside a layer.
//
// Purpose. Attention, a recurrence or anything else takes the same place in a layer; a system does not know which.
//
// Smallest model. y_t = W · mean of the rows up to t; its carry is the sum and the count.
//
// Laws.
//   step = chunk   from an empty carry, forward over T rows equals T calls of step with the carry handed on
//   causality      for segments {0,0,T,0}, row t of y depends on rows 1..t of x only
//   order          Mem and Read rows see the prefix; Input row t sees the prefix and Input 1..t; Write rows see all
//                  (a recurrence, which goes through the rows in order: those of them up to itself)
//   lanes          lane b of y depends on lane b of x only
//
// Streams. A mixer whose layers share something within one pass through a stack names it `stream`: a default-constructible
// type, one value of which is handed to forward (or step) of every layer of the pass in order. It has both forms of each:
// that without a stream is a pass of its own.
//
// What it is not. A mixer has no residual, no norm and no hormone; the layer around it does. A carry does not outlive
// the step of the system unless the caller keeps it.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <ouro/concepts/backend.hpp>

namespace ouro {

template <Backend B>
struct genesis;

/// The runs of rows in a sequence, in order, and how many leading rows of the result nobody reads.
struct segments {
  std::int64_t mem = 0;
  std::int64_t read = 0;
  std::int64_t input = 0;
  std::int64_t write = 0;
  std::int64_t skip = 0;         ///< y has rows skip … total − 1 only
  std::int64_t mem_version = 0;  ///< above 0: stays the same as long as the Mem rows do, whose share may then be kept

  [[nodiscard]] constexpr std::int64_t total() const { return mem + read + input + write; }
  /// Who sees whom, as visible prefixes of the key rows.
  [[nodiscard]] constexpr visibility sees() const { return {mem + read, input, skip}; }
};

/// How a recurrent mixer takes the segments; plain causal, row after row, unless something is set. Attention has a rule of
/// its own (segments::sees) and ignores this, and so does `step`.
struct row_policy {
  bool parallel_write = false;  ///< each Write row goes on from the carry after the Input rows, for itself alone
  bool reset_read = false;      ///< token shift and convolution begin anew at the first Read row,
  bool reset_input = false;     ///< at the first Input row,
  bool reset_write = false;     ///< at the first Write row, or at each of them if they are parallel
  bool two_way_prefix = false;  ///< Mem and Read rows hear those behind them too: a second pass, backwards, is added
};

/// Where in a stack of layers a mixer stands, and how wide it is. A mixer is made from (genesis&, mixer_place const&).
struct mixer_place {
  std::int64_t width = 0;
  std::int64_t heads = 1;
  std::int64_t layer = 0;  ///< 0 for the first of the stack
  std::int64_t layers = 1;
  std::string_view kind = {};  ///< the name of a mixer, for one that can be several; empty: its first
  row_policy rows = {};
};

namespace detail {
template <class Mixer>
struct stream_of {
  struct type {};
};
template <class Mixer>
requires requires { typename Mixer::stream; }
struct stream_of<Mixer> {
  using type = typename Mixer::stream;
};
}  // namespace detail

/// What the layers of one pass share: `Mixer::stream`, or an empty type for a mixer that has none.
template <class Mixer>
using mixer_stream = typename detail::stream_of<Mixer>::type;

/// `Mixer::name`, by which texts and files call it; "unnamed" for a mixer without one.
template <class Mixer>
constexpr std::string_view mixer_name() {
  if constexpr (requires { Mixer::name; }) return Mixer::name;
  else return "unnamed";
}

/// Whether what a mixer does in a pass depends on other layers of it: such a layer cannot be run again by itself.
template <class Mixer>
bool shares_stream(Mixer const& m) {
  if constexpr (requires { m.shares(); }) return m.shares();
  else return requires {
      typename Mixer::stream;
    };
}

/// Whether a mixer takes rows that are stored in bf16, and answers in it: one that does says so.
template <class Mixer>
bool takes_narrow(Mixer const& m) {
  if constexpr (requires { m.takes_narrow(); }) return m.takes_narrow();
  else return false;
}

/// forward with the stream of the pass, for a mixer with or without one.
template <class Mixer, class Context, class Tensor>
Tensor mix(Mixer const& m, Context& cx, Tensor const& x, segments s, typename Mixer::carry& c,
           mixer_stream<Mixer>& pass) {
  if constexpr (requires { typename Mixer::stream; }) return m.forward(cx, x, s, c, pass);
  else return m.forward(cx, x, s, c);
}
/// step with the stream of the pass, for a mixer with or without one.
template <class Mixer, class Context, class Tensor>
Tensor mix_step(Mixer const& m, Context& cx, Tensor const& x, typename Mixer::carry& c, mixer_stream<Mixer>& pass) {
  if constexpr (requires { typename Mixer::stream; }) return m.step(cx, x, c, pass);
  else return m.step(cx, x, c);
}

/// `Mixer` is the type, `Context` and `Tensor` those of its backend.
template <class Mixer, class Context, class Tensor>
concept SequenceMixer = requires(Mixer const& m, Context& cx, Tensor const& x, segments s, typename Mixer::carry c) {
  { m.forward(cx, x, s, c) } -> std::same_as<Tensor>;  // (B,T,D) → (B,T − skip,D); c becomes the carry after the rows
  { m.step(cx, x, c) } -> std::same_as<Tensor>;        // (B,1,D) → (B,1,D); c moves on
};

/// One sentence per requirement, for a type that should model SequenceMixer.
template <class Mixer, class Context, class Tensor>
consteval bool check_sequence_mixer() {
  static_assert(
      requires { requires std::is_default_constructible_v<typename Mixer::carry>; },
      "a SequenceMixer names its carry: a default-constructible type `carry`");
  static_assert(
      requires(Mixer const& m, Context& cx, Tensor const& x, segments s, typename Mixer::carry& c) {
        { m.forward(cx, x, s, c) } -> std::same_as<Tensor>;
      },
      "a SequenceMixer has `tensor forward(context&, tensor x, segments, carry&) const`: x (B,T,D) -> (B,T-skip,D); so "
      "has one with a `stream`, beside the form that takes it");
  static_assert(
      requires(Mixer const& m, Context& cx, Tensor const& x, typename Mixer::carry& c) {
        { m.step(cx, x, c) } -> std::same_as<Tensor>;
      },
      "a SequenceMixer has `tensor step(context&, tensor x, carry&) const`: one row, x (B,1,D) -> (B,1,D); so has one "
      "with a `stream`, beside the form that takes it");
  if constexpr (requires { typename Mixer::stream; })
    static_assert(
        requires(Mixer const& m, Context& cx, Tensor const& x, segments s, typename Mixer::carry& c,
                 typename Mixer::stream& pass) {
          requires std::is_default_constructible_v<typename Mixer::stream>;
          { m.forward(cx, x, s, c, pass) } -> std::same_as<Tensor>;
          { m.step(cx, x, c, pass) } -> std::same_as<Tensor>;
        },
        "a SequenceMixer that names a `stream`, a default-constructible type, has forward and step with a `stream&` "
        "as the last argument too");
  static_assert(std::is_default_constructible_v<Mixer>,
                "a SequenceMixer is default-constructible: a stack has its layers before it makes their mixers");
  static_assert(std::is_constructible_v<Mixer, genesis<typename Tensor::backend>&, mixer_place const&>,
                "a SequenceMixer is made from its place: it has a constructor `(genesis&, mixer_place const&)`");
  return true;
}

}  // namespace ouro
