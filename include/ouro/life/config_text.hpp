// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A configuration as text, and back.
#pragma once

#include <algorithm>
#include <charconv>
#include <string>
#include <type_traits>
#include <vector>

#include <ouro/io/json.hpp>
#include <ouro/meta/module.hpp>
#include <ouro/system/config.hpp>

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
inline std::string to_text(gridman_config const& c) {
  std::string out;
  meta::for_each_member(c, [&](char const* name, auto const& value) {
    out += (out.empty() ? "{" : ",") + json::quote(name) + ":";
    using type = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::is_same_v<type, bool>) out += value ? "true" : "false";
    else if constexpr (requires { value.view(); }) out += json::quote(value.view());
    else out += detail::exact(value);
  });
  return out + "}";
}
/// `c` with the fields that a JSON object names, {"dropout": 0.1}. Errors: no object (data); a value of another kind (data),
/// fields that do not exist (config), both with their names; a rule that is broken (config).
inline gridman_config changed(gridman_config c, json const& j) {
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
        value = v->integer();
      }
    } catch (error const& e) {
      fail(e.code(), "config", name, ": ", e.what());
    }
  });
  std::string names;
  for (auto const& name : unknown) names += (names.empty() ? "" : ", ") + json::quote(name);
  require(names.empty(), errc::config, "config", "there are fields that this version does not know: ", names);
  c.validate();
  return c;
}
inline gridman_config changed(gridman_config const& c, std::string const& text) {
  return changed(c, json::parse(text));
}
/// The configuration that to_text wrote. Errors, beside those of `changed`: a field is missing (storage); those that lives
/// older than the field do not have (`mixers` and what follows) may be.
inline gridman_config config_from_text(std::string const& text) {
  auto const j = json::parse(text);
  gridman_config c;
  bool optional = false;  // from `mixers` on
  meta::for_each_member(c, [&](char const* name, auto& value) {
    optional = optional || static_cast<void const*>(&value) == &c.mixers;
    require(optional || j.find(name) != nullptr, errc::storage, "config", "'", name, "' is missing");
  });
  return changed(c, j);
}

}  // namespace ouro
