// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Speech: bytes chosen one by one, patch by patch, while the life goes on.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <ouro/generate/utf8_stream.hpp>
#include <ouro/ops/norm.hpp>
#include <ouro/sensor/patches.hpp>
#include <ouro/system/system.hpp>

namespace ouro {

struct speech_options {
  std::int64_t bytes = 200;   ///< at most this many bytes are said; 0: the prompt is only heard
  double temperature = 0.38;  ///< 0: always the most probable byte
  std::int64_t top_k = 10;    ///< only the k most probable bytes; 0: all
  bool stops_at_end = true;   ///< stop at EOS
};

namespace detail {
/// Where the bytes of a patch are seen as they are chosen, if the backend has such a place.
template <class B>
struct early_bytes {
  explicit early_bytes(std::int64_t) {}
};
template <EarlyBackend B>
struct early_bytes<B> : B::early_values {
  using B::early_values::early_values;
};
}  // namespace detail

/// Where text goes while it is said; the answer is whether more is wanted.
struct text_sink {
  void* to;
  bool (*write)(void* to, std::string const& text);
  bool operator()(std::string const& text) const { return write(to, text); }
};

/// A system that reads patches of bytes and says them one by one, whatever its Brain is.
template <class System>
concept Speaking = std::same_as<typename System::input_type, patches> && requires(System const& model) {
  typename std::remove_cvref_t<decltype(model.actor)>::voice;
  { model.actor.patch() } -> std::same_as<std::int64_t>;
};

/// Lets a life hear a prompt and answer: each patch is one wake step, as everywhere. Whole patches of the prompt need no
/// Actor; the rest of it is forced. `out(std::string const&)` receives valid UTF-8 as it is complete, at each byte that is text;
/// if it returns false, that byte was the last one, as if no more had been asked for. Returns the bytes said, without the
/// prompt. A life that falls asleep on the way sleeps first. The prompt must not be empty; the state is as it was if anything
/// throws. `life` has one lane. Errors: an empty prompt, options out of range (argument); a state that is not finite follows
/// (numeric).
template <Speaking System, class B>
std::string speak(System const& model, state<B>& life, std::string_view prompt, speech_options const& o,
                  text_sink out) {
  require(life.lanes() == 1, errc::argument, "speak", "needs a life of one lane, got ", life.lanes());
  require(!prompt.empty(), errc::argument, "speak", "the prompt must not be empty");
  require(o.bytes >= 0, errc::argument, "speak", "bytes must not be negative, got ", o.bytes);
  require(std::isfinite(o.temperature) && o.temperature >= 0, errc::argument, "speak",
          "temperature must be a number from 0 on, got ", o.temperature);
  require(o.top_k >= 0, errc::argument, "speak", "top_k must not be negative, got ", o.top_k);
  auto const width = model.actor.patch();
  auto const p = static_cast<std::size_t>(width);
  auto s = life;
  context<B> cx;
  std::vector<std::int32_t> heard;
  for (char c : prompt) heard.push_back(static_cast<unsigned char>(c));
  // Whole patches are heard; at least one, padded at its front if the prompt is shorter.
  std::size_t forced_from = heard.size() / p * p;
  if (forced_from == 0) {
    heard.insert(heard.begin(), p - heard.size(), pad_byte);
    forced_from = p;
  }
  impression<B> seen;
  auto listen = [&](std::vector<std::int32_t> bytes) {
    auto r = live_on(model, cx, std::move(s), patches{1, 1, width, std::move(bytes)});
    s = std::move(r.state);
    seen = std::move(r.seen);
  };
  for (std::size_t at = 0; at < forced_from; at += p)
    listen({heard.begin() + static_cast<std::ptrdiff_t>(at), heard.begin() + static_cast<std::ptrdiff_t>(at + p)});
  std::vector<std::int32_t> forced(heard.begin() + static_cast<std::ptrdiff_t>(forced_from), heard.end());
  std::int32_t previous = heard[forced_from - 1];

  std::string said;
  utf8_stream text;
  std::int64_t chosen_bytes = 0;
  bool done = o.bytes == 0;
  if (done && !forced.empty()) {  // what is not answered is heard to its end all the same
    forced.resize(p, pad_byte);
    listen(std::move(forced));
  }
  detail::early_bytes<B> early(width);
  while (!done) {
    typename std::remove_cvref_t<decltype(model.actor)>::voice voice(model.actor, cx, seen, {previous});
    random_draw const draw = o.temperature > 0 ? s.random.next() : random_draw{};
    std::vector<std::int32_t> patch;
    for (std::int32_t byte : forced) {
      static_cast<void>(voice.next());
      voice.tell({byte});
      patch.push_back(byte);
    }
    auto choose = [&](std::size_t i) {
      return voice.choose(voice.next(), {o.temperature, o.top_k, draw, static_cast<std::uint64_t>(i)});
    };
    auto say = [&](std::int32_t byte) {
      require(byte >= 0, errc::numeric, "speak",
              "no byte can be chosen, the logits are not finite; the life stays as it was");
      patch.push_back(byte);
      done = (byte == eos_byte && o.stops_at_end) || ++chosen_bytes >= o.bytes;
      if (byte >= 256) return;
      said += static_cast<char>(static_cast<unsigned char>(byte));
      if (!out(text.feed({&said.back(), 1}))) done = true;
    };
    if constexpr (EarlyBackend<B>) {  // all are asked for, and each is said when it is there
      tensor<B> chosen;
      for (std::size_t i = patch.size(); i < p; ++i) {
        chosen = choose(i);
        early.show(static_cast<std::int64_t>(i), chosen.read().reshape({1}));
      }
      while (patch.size() < p && !done) say(early.value(static_cast<std::int64_t>(patch.size())));
      static_cast<void>(chosen.template values<std::int32_t>());  // waits for the others, too
    } else {
      while (patch.size() < p && !done) say(choose(patch.size()).template values<std::int32_t>()[0]);
    }
    previous = patch.back();
    forced.clear();
    patch.resize(p, pad_byte);
    listen(std::move(patch));
  }
  out(text.finish());
  require(std::isfinite(norm_of(s.tensors())), errc::numeric, "speak",
          "the state that follows is not finite; the life stays as it was");
  life = std::move(s);
  return said;
}

/// The same for any callable that returns nothing or whether more is wanted.
template <Speaking System, class B, class Out>
requires(!std::is_same_v<std::remove_cvref_t<Out>, text_sink>) std::string
    speak(System const& model, state<B>& life, std::string_view prompt, speech_options const& o, Out&& out) {
  auto* to = std::addressof(out);
  return speak(model, life, prompt, o,
               text_sink{const_cast<void*>(static_cast<void const*>(to)), [](void* f, std::string const& part) {
                           auto& write = *static_cast<decltype(to)>(f);
                           if constexpr (std::is_void_v<decltype(write(part))>) {
                             write(part);
                             return true;
                           } else return static_cast<bool>(write(part));
                         }});
}

/// The same, returned as one valid UTF-8 text.
template <Speaking System, class B>
std::string speak(System const& model, state<B>& life, std::string_view prompt, speech_options const& o = {}) {
  std::string text;
  static_cast<void>(speak(model, life, prompt, o, [&](std::string const& part) { text += part; }));
  return text;
}

}  // namespace ouro
