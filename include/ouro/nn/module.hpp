// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What a module is made of, and its flat list of tensors. Optimiser, checkpoint, clipping and summaries are loops over
// that list.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include <ouro/meta/module.hpp>
#include <ouro/tensor/tensor.hpp>

namespace ouro {

/// What a tensor of a module is: learned, estimated while running, or fixed.
enum class field_kind : std::uint8_t { parameter, statistic, constant };

/// A learned tensor. `decay` and `learning_rate` scale what the optimiser is told.
template <class B>
struct parameter : tensor<B> {
  static constexpr field_kind kind = field_kind::parameter;
  double decay = 1;
  double learning_rate = 1;

  parameter() = default;
  parameter(tensor<B> value) : tensor<B>(std::move(value)) {}  // NOLINT: a tensor becomes a parameter by being kept
  [[nodiscard]] tensor<B> const& value() const { return *this; }
};

/// A running estimate: saved with the module, never differentiated.
template <class B>
struct statistic : tensor<B> {
  static constexpr field_kind kind = field_kind::statistic;
  statistic() = default;
  statistic(tensor<B> value) : tensor<B>(std::move(value)) {}  // NOLINT
};

/// A fixed tensor that is saved with the module.
template <class B>
struct constant : tensor<B> {
  static constexpr field_kind kind = field_kind::constant;
  constant() = default;
  constant(tensor<B> value) : tensor<B>(std::move(value)) {}  // NOLINT
};

/// One tensor of a module. `Tensor` is `tensor<B>` or `tensor<B> const`.
template <class Tensor>
struct field {
  std::string path;
  Tensor* value;
  field_kind kind;
  double decay;
  double learning_rate;
};

namespace detail {

template <class T>
inline constexpr bool is_list = false;
template <class T>
inline constexpr bool is_list<std::vector<T>> = true;
template <class T>
inline constexpr bool is_list<std::optional<T>> = true;
template <class T>
inline constexpr bool is_choice = false;
template <class... T>
inline constexpr bool is_choice<std::variant<T...>> = true;

template <class Tensor, class Member>
void collect(std::vector<field<Tensor>>& list, std::string const& path, Member& member) {
  using type = std::remove_const_t<Member>;
  if constexpr (requires { type::kind; }) {
    double decay = 1;
    double rate = 1;
    if constexpr (type::kind == field_kind::parameter) {
      decay = member.decay;
      rate = member.learning_rate;
    }
    list.push_back({path, &member, type::kind, decay, rate});
  } else if constexpr (meta::Reflected<type>) {
    meta::for_each_member(member, [&](char const* name, auto& inner) {
      if (*name == 0) collect(list, path, inner);
      else collect(list, path.empty() ? std::string(name) : path + "." + name, inner);
    });
  } else if constexpr (is_list<type>) {
    if constexpr (requires { member.has_value(); }) {
      if (member) collect(list, path, *member);
    } else {
      for (std::size_t i = 0; i < member.size(); ++i) collect(list, path + "." + std::to_string(i), member[i]);
    }
  } else if constexpr (is_choice<type>) {
    std::visit([&](auto& chosen) { collect(list, path, chosen); }, member);
  } else {
    static_assert(std::is_trivially_copyable_v<type>,
                  "a member of a module must be a parameter, statistic or constant, a module, a vector, optional or "
                  "variant of modules, or a trivially copyable configuration");
  }
}

}  // namespace detail

/// All tensors of a module with their paths ("layers.0.norm.weight"), in the order of declaration. What a member called
/// `_` holds is named as if the module held it.
template <meta::Reflected Module>
auto fields(Module& module) {
  using backend = typename std::remove_const_t<Module>::backend;
  using tensor_type = std::conditional_t<std::is_const_v<Module>, tensor<backend> const, tensor<backend>>;
  std::vector<field<tensor_type>> list;
  detail::collect(list, "", module);
  return list;
}

/// The number of learned values.
template <meta::Reflected Module>
std::int64_t parameter_count(Module const& module) {
  std::int64_t n = 0;
  for (auto const& f : fields(module))
    if (f.kind == field_kind::parameter) n += f.value->size();
  return n;
}

}  // namespace ouro
