// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Tensors and reflected values in and out of safetensors. What is saved is what reflection lists: a member that OURO_MODULE
// leaves out is not saved.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <ouro/io/safetensors.hpp>
#include <ouro/meta/module.hpp>
#include <ouro/nn/module.hpp>
#include <ouro/tensor/tensor.hpp>

namespace ouro {

/// What a file calls a dtype.
constexpr char const* stored_name_of(dtype type) {
  constexpr char const* names[] = {"F64", "F32", "BF16", "I32", "U16"};
  return names[static_cast<int>(type)];
}
inline shape shape_of(stored_tensor const& stored) {
  shape dims;
  for (auto d : stored.dims) dims.push_back(d);
  return dims;
}

namespace detail {

/// Errors (storage): the stored tensor has another shape or dtype.
inline void require_like(safetensors_reader const& in, std::string const& name, shape const& dims, dtype type) {
  auto const stored = in.at(name);
  char const* const expected = stored_name_of(type);
  require(shape_of(stored) == dims && stored.type == expected, errc::storage, "load", name, ": expected ", expected,
          " ", dims, ", stored ", stored.type, " ", shape_of(stored));
}

}  // namespace detail

/// Writes a tensor in its own dtype, bit for bit. Errors (argument): it is absent.
template <class B>
void store(safetensors_writer& out, std::string const& name, tensor<B> const& x) {
  require(!x.empty(), errc::argument, "store", name, " is absent");
  std::vector<std::int64_t> dims;
  for (int i = 0; i < x.rank(); ++i) dims.push_back(x.dim(i));
  with_any(x.type(), [&]<class T>(std::type_identity<T>) {
    auto const values = x.template values<T>();
    out.add(name, stored_name_of(dtype_of<T>), dims,
            {reinterpret_cast<char const*>(values.data()), values.size() * sizeof(T)});
  });
}

/// A stored tensor, converted to `type`. Errors (storage): a dtype that no tensor has.
template <class B>
tensor<B> load(stored_tensor const& stored, dtype type, std::string const& name) {
  auto const dims = shape_of(stored);
  auto read = [&]<class T>(std::type_identity<T>) {
    std::vector<T> values(static_cast<std::size_t>(dims.size()));
    if (!values.empty()) std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
    return tensor<B>::from(values, dims, type);
  };
  if (stored.type == "F64") return read(std::type_identity<double>{});
  if (stored.type == "F32") return read(std::type_identity<float>{});
  if (stored.type == "BF16") return read(std::type_identity<bf16>{});
  if (stored.type == "I32") return read(std::type_identity<std::int32_t>{});
  if (stored.type == "U16") return read(std::type_identity<std::uint16_t>{});
  fail(errc::storage, "load", "tensor '", name, "' has dtype ", stored.type, ", expected F64, F32, BF16, I32 or U16");
}

/// Writes every reflected member: tensors, optional tensors (absent ones are not written), and plain values as bytes.
template <meta::Reflected T>
void store_fields(safetensors_writer& out, std::string const& prefix, T const& object) {
  meta::for_each_member(object, [&](char const* name, auto const& member) {
    using type = std::remove_cvref_t<decltype(member)>;
    std::string const path = prefix + name;
    if constexpr (requires { member.dims(); }) {
      store(out, path, member);
    } else if constexpr (requires { member->dims(); }) {
      if (member) store(out, path, *member);
    } else {
      static_assert(std::is_trivially_copyable_v<type>, "a saved value is a tensor or trivially copyable");
      out.add(path, "U8", {static_cast<std::int64_t>(sizeof(type))},
              {reinterpret_cast<char const*>(&member), sizeof(type)});
    }
  });
}

/// The reverse: dtypes are kept, values are bit for bit those stored. Errors (storage): a member is missing, or a plain
/// value has another size.
template <class B, meta::Reflected T>
void load_fields(safetensors_reader const& in, std::string const& prefix, T& object) {
  auto type_of = [](stored_tensor const& s) {
    return s.type == "F64"    ? dtype::f64
           : s.type == "BF16" ? dtype::bf16
           : s.type == "I32"  ? dtype::i32
           : s.type == "U16"  ? dtype::u16
                              : dtype::f32;
  };
  meta::for_each_member(object, [&](char const* name, auto& member) {
    using type = std::remove_cvref_t<decltype(member)>;
    std::string const path = prefix + name;
    if constexpr (requires { member.dims(); }) {
      auto const s = in.at(path);
      member = load<B>(s, type_of(s), path);
    } else if constexpr (requires { member->dims(); }) {
      member.reset();
      if (!in.contains(path)) return;
      auto const s = in.at(path);
      member = load<B>(s, type_of(s), path);
    } else {
      auto const s = in.at(path);
      require(s.type == "U8" && s.bytes.size() == sizeof(type), errc::storage, "load", "'", path, "' must have ",
              sizeof(type), " bytes, got ", s.bytes.size());
      std::memcpy(&member, s.bytes.data(), sizeof(type));
    }
  });
}

/// Writes all tensors of a module.
template <class Module>
void store_module(safetensors_writer& out, Module const& module) {
  for (auto const& f : fields(module)) store(out, f.path, *f.value);
}
/// Reads them back, strictly. Errors (storage): all that differs in names and shapes.
template <class Module>
void load_module(safetensors_reader const& in, Module& module) {
  using backend = typename Module::backend;
  std::string differences;
  auto const list = fields(module);
  std::size_t found = 0;
  for (auto const& f : list) {
    if (!in.contains(f.path)) {
      differences += "\n  missing: " + f.path + " " + f.value->dims().str();
      continue;
    }
    ++found;
    auto const stored = shape_of(in.at(f.path));
    if (stored != f.value->dims())
      differences += "\n  " + f.path + ": expected " + f.value->dims().str() + ", stored " + stored.str();
  }
  if (found < in.names().size())
    for (auto const& name : in.names()) {
      bool known = false;
      for (auto const& f : list) known = known || f.path == name;
      if (!known) differences += "\n  unknown: " + name;
    }
  require(differences.empty(), errc::storage, "load", "the stored network is another one:", differences);
  for (auto const& f : list) *f.value = load<backend>(in.at(f.path), f.value->type(), f.path);
}

}  // namespace ouro
