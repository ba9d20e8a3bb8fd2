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
enum class field_kind : std::uint8_t { parameter, statistic };

/// A learned tensor. `decay` and `learning_rate` scale what the optimiser is told.
template <class B>
struct parameter : tensor<B> {
  static constexpr field_kind kind = field_kind::parameter;
  double decay = 1;
  double learning_rate = 1;

  parameter() = default;
  /// A tensor becomes a parameter by being kept; a view is copied, so that it can be learned.
  parameter(tensor<B> value) : tensor<B>(value.is_plain() ? std::move(value) : value.copy()) {}  // NOLINT
  /// Other values; what the optimiser is told stays.
  parameter& operator=(tensor<B> value) {
    tensor<B>::operator=(parameter(std::move(value)));
    return *this;
  }
  [[nodiscard]] tensor<B> const& value() const { return *this; }
};

/// A running estimate: saved with the module, never differentiated.
template <class B>
struct statistic : tensor<B> {
  static constexpr field_kind kind = field_kind::statistic;
  statistic() = default;
  statistic(tensor<B> value) : tensor<B>(std::move(value)) {}  // NOLINT
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

/// A walk through a module that lists its tensors.
template <class B>
class field_walk {
 public:
  std::vector<field<tensor<B>>> found;

  template <class Member>
  void visit(Member& member);

 private:
  template <class Member>
  void visit(char const* name, Member& member) {
    auto const outside = enter(name);
    visit(member);
    path_.resize(outside);
  }
  std::size_t enter(char const* name);  // the length of the path before
  void add(tensor<B>& value, field_kind kind, double decay, double learning_rate);

  std::string path_;
};

template <class B>
template <class Member>
void field_walk<B>::visit(Member& member) {
  if constexpr (requires { Member::kind; }) {
    if constexpr (Member::kind == field_kind::parameter) add(member, Member::kind, member.decay, member.learning_rate);
    else add(member, Member::kind, 1, 1);
  } else if constexpr (meta::Reflected<Member>) {
    meta::for_each_member(member, [this](char const* name, auto& inner) { this->visit(name, inner); });
  } else if constexpr (is_list<Member>) {
    if constexpr (requires { member.has_value(); }) {
      if (member) visit(*member);
    } else {
      for (std::size_t i = 0; i < member.size(); ++i) visit(std::to_string(i).c_str(), member[i]);
    }
  } else if constexpr (is_choice<Member>) {
    std::visit([this](auto& chosen) { this->visit(chosen); }, member);
  } else {
    static_assert(std::is_trivially_copyable_v<Member> && !std::is_pointer_v<Member>,
                  "a member of a module must be a parameter or statistic, a module, a vector, optional or "
                  "variant of modules, or a trivially copyable configuration, and no pointer to any of these");
  }
}

template <class B>
std::size_t field_walk<B>::enter(char const* name) {
  auto const outside = path_.size();
  if (*name == 0) return outside;
  if (outside > 0) path_ += '.';
  path_ += name;
  return outside;
}

template <class B>
void field_walk<B>::add(tensor<B>& value, field_kind kind, double decay, double learning_rate) {
  found.push_back({path_, &value, kind, decay, learning_rate});
}

}  // namespace detail

/// All tensors of a module with their paths ("layers.0.norm.weight"), in the order of declaration. What a member called
/// `_` holds is named as if the module held it.
template <meta::Reflected Module, class B = typename Module::backend>
std::vector<field<tensor<B>>> fields(Module& module) {
  detail::field_walk<B> walk;
  walk.visit(module);
  return std::move(walk.found);
}
template <meta::Reflected Module, class B = typename Module::backend>
std::vector<field<tensor<B> const>> fields(Module const& module) {
  std::vector<field<tensor<B> const>> list;
  for (auto& f : fields(const_cast<Module&>(module)))  // one walk for both; what it finds is not written through
    list.push_back({std::move(f.path), f.value, f.kind, f.decay, f.learning_rate});
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
