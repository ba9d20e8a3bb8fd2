// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A configuration as text, and back: any struct that OURO_MODULE describes, of numbers, bools and short texts.
#pragma once

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <ouro/io/json.hpp>
#include <ouro/meta/module.hpp>
#include <ouro/tensor/error.hpp>

namespace ouro {

namespace detail {

template <class T>
std::string exact(T value) {
  char text[64];
  auto const r = std::to_chars(text, text + sizeof text, value);
  return {text, r.ptr};
}

}  // namespace detail

/// A configuration as one JSON object.
template <meta::Reflected Config>
std::string to_text(Config const& c) {
  std::string out;
  meta::for_each_member(c, [&](char const* name, auto const& value) {
    out += (out.empty() ? "{" : ",") + json::quote(name) + ":";
    using type = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::is_same_v<type, bool>) out += value ? "true" : "false";
    else if constexpr (requires { value.view(); }) out += json::quote(value.view());
    else out += detail::exact(value);
  });
  return (out.empty() ? "{" : out) + "}";
}
/// `c` with the fields that a JSON object names, {"dropout": 0.1}. Errors: no object (data); a value of another kind (data), a text
/// that is too long or fields that do not exist (config), all with their names; a rule of its validate(), if it has one, that is broken.
template <meta::Reflected Config>
Config changed(Config c, json const& j) {
  require(j.is(json::kind::object), errc::data, "config", "needs a JSON object");
  std::vector<std::string> unknown = j.keys();
  meta::for_each_member(c, [&](char const* name, auto& value) {
    auto const* v = j.find(name);
    if (v == nullptr) return;
    unknown.erase(std::find(unknown.begin(), unknown.end(), name));
    try {
      using type = std::remove_reference_t<decltype(value)>;
      if constexpr (std::is_same_v<type, bool>) {
        value = v->boolean();
      } else if constexpr (requires { value.view(); }) {
        require(v->is(json::kind::string), errc::data, "json", "expected a string");
        value = type(v->text());
      } else if constexpr (std::is_same_v<type, double>) {
        value = v->number();
      } else {
        static_assert(std::is_same_v<type, std::int64_t>, "a configuration has int64_t, double, bool and short_text");
        value = v->integer();
      }
    } catch (error const& e) {
      fail(e.code() == errc::argument ? errc::config : e.code(), "config", name, ": ", e.what());
    }
  });
  std::string names;
  for (auto const& name : unknown) names += (names.empty() ? "" : ", ") + json::quote(name);
  require(names.empty(), errc::config, "config", "there are fields that this version does not know: ", names);
  if constexpr (requires { c.validate(); }) c.validate();
  return c;
}
template <meta::Reflected Config>
Config changed(Config const& c, std::string const& text) {
  return changed(c, json::parse(text));
}
/// The configuration that to_text wrote. Errors, beside those of `changed`: a field is missing (storage); those that lives
/// older than the field do not have may be: the one that Config::younger names, where it does, and what follows.
template <meta::Reflected Config>
Config config_from_text(std::string const& text) {
  auto const j = json::parse(text);
  Config c;
  bool optional = false;
  meta::for_each_member(c, [&](char const* name, auto const&) {
    if constexpr (requires { Config::younger; }) optional = optional || Config::younger == std::string_view(name);
    require(optional || j.find(name) != nullptr, errc::storage, "config", "'", name, "' is missing");
  });
  return changed(c, j);
}

}  // namespace ouro
