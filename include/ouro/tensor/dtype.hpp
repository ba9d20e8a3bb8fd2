// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The closed set of element types, chosen at run time. f32 and f64 are computed in; bf16 is a storage type, of weights and
// of inner values; i32 and u16 hold bytes, targets and indices.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <ouro/meta/host_device.hpp>
#include <ouro/tensor/error.hpp>

namespace ouro {

/// bfloat16: the upper half of an IEEE binary32. Converts with round to nearest even.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  OURO_HOST_DEVICE explicit bf16(float x) {
    auto const u = std::bit_cast<std::uint32_t>(x);
    if ((u & 0x7fffffffU) > 0x7f800000U) {
      bits = static_cast<std::uint16_t>((u >> 16U) | 0x40U);  // keep a NaN a NaN
    } else {
      bits = static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16U) & 1U)) >> 16U);
    }
  }
  OURO_HOST_DEVICE explicit bf16(double x) : bf16(static_cast<float>(x)) {}
  OURO_HOST_DEVICE explicit bf16(std::int32_t x) : bf16(static_cast<float>(x)) {}
  OURO_HOST_DEVICE explicit bf16(std::uint16_t x) : bf16(static_cast<float>(x)) {}
  OURO_HOST_DEVICE explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
  }
  OURO_HOST_DEVICE explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }
  OURO_HOST_DEVICE explicit operator std::int32_t() const {
    return static_cast<std::int32_t>(static_cast<float>(*this));
  }
  OURO_HOST_DEVICE explicit operator std::uint16_t() const {
    return static_cast<std::uint16_t>(static_cast<float>(*this));
  }
};

enum class dtype : std::uint8_t { f64, f32, bf16, i32, u16 };

constexpr std::int64_t size_of(dtype type) {
  switch (type) {
    case dtype::f64: return 8;
    case dtype::f32:
    case dtype::i32: return 4;
    case dtype::bf16:
    case dtype::u16: return 2;
  }
  return 0;
}

constexpr char const* name_of(dtype type) {
  switch (type) {
    case dtype::f64: return "f64";
    case dtype::f32: return "f32";
    case dtype::bf16: return "bf16";
    case dtype::i32: return "i32";
    case dtype::u16: return "u16";
  }
  return "?";
}

template <class T>
inline constexpr dtype dtype_of = [] {
  static_assert(std::is_same_v<T, double> || std::is_same_v<T, float> || std::is_same_v<T, bf16> ||
                    std::is_same_v<T, std::int32_t> || std::is_same_v<T, std::uint16_t>,
                "the elements of a tensor are double, float, ouro::bf16, std::int32_t or std::uint16_t");
  if constexpr (std::is_same_v<T, double>) return dtype::f64;
  if constexpr (std::is_same_v<T, float>) return dtype::f32;
  if constexpr (std::is_same_v<T, bf16>) return dtype::bf16;
  if constexpr (std::is_same_v<T, std::int32_t>) return dtype::i32;
  return dtype::u16;
}();

constexpr bool is_floating(dtype type) { return type == dtype::f64 || type == dtype::f32; }
/// Whether a network's inner values may have it: those are computed in f32 where they are stored in bf16.
constexpr bool is_real(dtype type) { return is_floating(type) || type == dtype::bf16; }
/// What sums of values of this type are computed and kept in.
constexpr dtype computed_in(dtype type) { return type == dtype::bf16 ? dtype::f32 : type; }
/// The one of two real types that holds the values of both.
constexpr dtype wider(dtype a, dtype b) { return size_of(a) < size_of(b) ? b : a; }

/// Calls `f(std::type_identity<T>{})` with the C++ type of a computing dtype (f32 or f64); anything else is an error.
template <class F>
decltype(auto) with_real(dtype type, char const* where, F&& f) {
  if (type == dtype::f32) return std::forward<F>(f)(std::type_identity<float>{});
  require(type == dtype::f64, errc::shape, where, "needs f32 or f64, got ", name_of(type));
  return std::forward<F>(f)(std::type_identity<double>{});
}

/// Calls `f(std::type_identity<T>{})` with the C++ type of any dtype.
template <class F>
decltype(auto) with_any(dtype type, F&& f) {
  switch (type) {
    case dtype::f64: return std::forward<F>(f)(std::type_identity<double>{});
    case dtype::bf16: return std::forward<F>(f)(std::type_identity<bf16>{});
    case dtype::i32: return std::forward<F>(f)(std::type_identity<std::int32_t>{});
    case dtype::u16: return std::forward<F>(f)(std::type_identity<std::uint16_t>{});
    case dtype::f32: break;
  }
  return std::forward<F>(f)(std::type_identity<float>{});
}

}  // namespace ouro
