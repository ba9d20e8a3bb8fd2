// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Which mixer each layer of a stack has, as a text: "rwkv7*3 attention".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <ouro/tensor/elementary.hpp>
#include <ouro/tensor/error.hpp>

namespace ouro {

/// One name for each layer, seen in the text, which must outlive it. A text is names with an optional count, separated by
/// spaces. Which names there are is known to the mixer, not here. Errors (config): a count that is no number in 1..1024,
/// more than 1024 layers, a count without a name.
inline std::vector<std::string_view> layer_kinds(std::string_view text) {
  constexpr std::size_t most = 1024;
  std::vector<std::string_view> kinds;
  for (std::size_t at = 0; at < text.size();) {
    auto const end = elementary::min(text.find(' ', at), text.size());
    auto const word = text.substr(at, end - at);
    at = end + 1;
    if (word.empty()) continue;
    auto const star = elementary::min(word.find('*'), word.size());
    std::size_t count = star < word.size() ? 0 : 1;
    for (char digit : word.substr(elementary::min(star + 1, word.size())))
      count =
          digit >= '0' && digit <= '9' && count <= most ? 10 * count + static_cast<std::size_t>(digit - '0') : most + 1;
    require(star > 0 && count >= 1 && count <= most && kinds.size() + count <= most, errc::config, "layers",
            "a stack is written as names with an optional *count in 1..1024, as in \"rwkv7*3 attention\", got '",
            std::string(word), "'");
    for (; count > 0; --count) kinds.push_back(word.substr(0, star));
  }
  return kinds;
}

/// The same for a stack of `layers` layers; an empty text leaves the kind of every layer to the mixer. Errors (config):
/// another number of layers.
inline std::vector<std::string_view> layer_kinds(std::string_view text, std::int64_t layers) {
  auto kinds = layer_kinds(text);
  for (std::int64_t i = 0, n = kinds.empty() ? layers : 0; i < n; ++i) kinds.push_back({});
  require(static_cast<std::int64_t>(kinds.size()) == layers, errc::config, "layers", "'", std::string(text), "' names ",
          kinds.size(), " layers, the stack has ", layers);
  return kinds;
}

/// The shortest text of these layers.
inline std::string layers_text(std::vector<std::string_view> const& kinds) {
  std::string text;
  for (std::size_t i = 0; i < kinds.size();) {
    std::size_t count = 1;
    while (i + count < kinds.size() && kinds[i + count] == kinds[i]) ++count;
    if (i > 0) text += ' ';
    text += kinds[i];
    if (count > 1) text += "*" + std::to_string(count);
    i += count;
  }
  return text;
}

/// A stack of `kind` with attention in every fourth layer and in the last one, which so reads what is far away exactly.
inline std::string hybrid_layers(std::string_view kind, std::int64_t layers) {
  std::vector<std::string_view> kinds;
  for (std::int64_t i = 1; i <= layers; ++i) kinds.push_back(i % 4 == 0 || i == layers ? "attention" : kind);
  return layers_text(kinds);
}

}  // namespace ouro
