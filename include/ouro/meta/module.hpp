// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Compile-time reflection of plain structs: the only file that names Boost.Hana.
#pragma once

#include <boost/hana/accessors.hpp>
#include <boost/hana/basic_tuple.hpp>
#include <boost/hana/pair.hpp>
#include <boost/hana/unpack.hpp>

#include <type_traits>
#include <utility>

namespace ouro::meta {

/// A name as a type: what boost::hana::string says in one template argument for each letter.
template <std::size_t N>
struct letters {
  char text[N];
  constexpr letters(char const (&s)[N]) {  // NOLINT: written as a string literal
    for (std::size_t i = 0; i < N; ++i) text[i] = s[i];
  }
};
template <letters Text>
struct name_of {
  [[nodiscard]] static constexpr char const* c_str() { return Text.text; }
};

/// A function object that selects a member.
template <auto Pointer>
struct member {
  template <class T>
  constexpr decltype(auto) operator()(T&& object) const {
    return (std::forward<T>(object).*Pointer);
  }
};

/// True for a struct that OURO_MODULE describes.
template <class T>
concept Reflected = requires {
  typename std::remove_cvref_t<T>::hana_accessors_impl;
};

/// Calls f(name, member) for every reflected member of `object`, in the order of the list. A leading underscore is not
/// part of a name: `_0` is the member called "0".
template <Reflected T, class F>
void for_each_member(T& object, F&& f) {
  auto visit = [&](char const* text, auto& value) { f(text[0] == '_' ? text + 1 : text, value); };
  boost::hana::unpack(boost::hana::accessors<std::remove_const_t<T>>(), [&](auto const&... pair) {
    (visit(boost::hana::first(pair).c_str(), boost::hana::second(pair)(object)), ...);
  });
}

}  // namespace ouro::meta

#define OURO_DETAIL_PARENS ()
#define OURO_DETAIL_EXPAND(...) OURO_DETAIL_EXPAND3(OURO_DETAIL_EXPAND3(OURO_DETAIL_EXPAND3(__VA_ARGS__)))
#define OURO_DETAIL_EXPAND3(...) OURO_DETAIL_EXPAND2(OURO_DETAIL_EXPAND2(OURO_DETAIL_EXPAND2(__VA_ARGS__)))
#define OURO_DETAIL_EXPAND2(...) OURO_DETAIL_EXPAND1(OURO_DETAIL_EXPAND1(OURO_DETAIL_EXPAND1(__VA_ARGS__)))
#define OURO_DETAIL_EXPAND1(...) __VA_ARGS__
#define OURO_DETAIL_MEMBER(type, name) \
  ::boost::hana::pair<::ouro::meta::name_of<#name>, ::ouro::meta::member<&type::name>>
// Four members for each time the list is read again: 41 times are 164 members.
#define OURO_DETAIL_MEMBERS(type, name, ...) \
  OURO_DETAIL_MEMBER(type, name) __VA_OPT__(, OURO_DETAIL_MEMBERS2(type, __VA_ARGS__))
#define OURO_DETAIL_MEMBERS2(type, name, ...) \
  OURO_DETAIL_MEMBER(type, name) __VA_OPT__(, OURO_DETAIL_MEMBERS3(type, __VA_ARGS__))
#define OURO_DETAIL_MEMBERS3(type, name, ...) \
  OURO_DETAIL_MEMBER(type, name) __VA_OPT__(, OURO_DETAIL_MEMBERS4(type, __VA_ARGS__))
#define OURO_DETAIL_MEMBERS4(type, name, ...) \
  OURO_DETAIL_MEMBER(type, name) __VA_OPT__(, OURO_DETAIL_AGAIN OURO_DETAIL_PARENS(type, __VA_ARGS__))
#define OURO_DETAIL_AGAIN() OURO_DETAIL_MEMBERS

/// Describes a struct: `OURO_MODULE(linear, weight, bias);` after the members, also inside a class template. At most 160
/// members. One that the list leaves out is neither trained nor saved, and nothing tells.
#define OURO_MODULE(type, ...)                                                                                     \
  struct hana_accessors_impl {                                                                                     \
    static auto apply() {                                                                                          \
      return ::boost::hana::basic_tuple<__VA_OPT__(OURO_DETAIL_EXPAND(OURO_DETAIL_MEMBERS(type, __VA_ARGS__)))>{}; \
    }                                                                                                              \
  }
