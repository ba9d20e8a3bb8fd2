// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the laws of the concepts are tried on and compared by: random lives, some of their lanes, equality of bits, and
// purity.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include <ouro/nn/context.hpp>
#include <ouro/nn/exchange.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/system/state.hpp>
#include <ouro_test/random.hpp>

namespace ouro_test {

template <class T>
requires std::is_arithmetic_v<T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
/// Shape, dtype and every bit; an absent tensor is the same as another absent one only.
template <class B>
bool same_bits(ouro::tensor<B> const& a, ouro::tensor<B> const& b) {
  return a.empty() == b.empty() && a.dims() == b.dims() && (a.empty() || a.type() == b.type()) &&
         same_bits(a.template values<double>(), b.template values<double>());
}
template <class B>
bool same_bits(std::vector<ouro::tensor<B>> const& a, std::vector<ouro::tensor<B>> const& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!same_bits(a[i], b[i])) return false;
  return true;
}
template <class T>
bool same_bits(std::pair<T, ouro::random_stream> const& a, std::pair<T, ouro::random_stream> const& b) {
  return same_bits(a.first, b.first) && a.second == b.second;
}

/// Some lanes of a value, in the order named.
template <class B>
ouro::tensor<B> lanes_of(ouro::tensor<B> const& x, std::vector<std::int64_t> const& which) {
  if (x.empty()) return x;
  std::vector<ouro::tensor<B>> parts;
  for (auto lane : which) parts.push_back(ouro::slice(x, 0, lane, 1));
  return ouro::concat(parts, 0);
}
template <class B>
ouro::state<B> lanes_of(ouro::state<B> s, std::vector<std::int64_t> const& which) {
  for (auto* t : {&s.mem, &s.working, &s.oscillator, &s.hormone, &s.self}) *t = lanes_of(*t, which);
  return s;
}

/// A life in which every number is random. Another one at each call.
template <class B>
ouro::state<B> random_life(std::int64_t lanes, std::int64_t mem, std::int64_t rows, std::int64_t width,
                           std::int64_t hormone, ouro::dtype type) {
  ouro::state<B> s;
  s.mem = noise<B>({lanes, mem, width}, type);
  s.working = noise<B>({lanes, rows, width}, type);
  s.oscillator = noise<B>({lanes, 2}, type);
  s.hormone = noise<B>({lanes, 1, hormone}, type);
  s.self = noise<B>({lanes, 1, width}, type);
  return s;
}
/// Another life of the same sizes.
template <class B>
ouro::state<B> another(ouro::state<B> const& s) {
  return random_life<B>(s.lanes(), s.mem.dim(1), s.working.dim(1), s.mem.dim(2), s.hormone.dim(2), s.mem.type());
}
/// The tensors of a life, and what Sensor and Brain see of it.
template <class B>
std::vector<ouro::tensor<B>> tensors(ouro::state<B> const& s) {
  return {s.mem, s.working, s.oscillator, s.hormone, s.self};
}
template <class B>
ouro::state_view<B> seen_of(ouro::state<B> const& s) {
  return {s.mem, s.working, s.self};
}
template <class B>
std::vector<ouro::tensor<B>> copies(std::vector<ouro::tensor<B>> const& list) {
  std::vector<ouro::tensor<B>> out;
  for (auto const& t : list) out.push_back(t.copy());
  return out;
}

/// What a component may differ by when it computes the same rows among others: the sums of its products, of some
/// hundred terms, may be taken in another order.
inline double reordered(ouro::dtype type) { return type == ouro::dtype::f64 ? 1e-12 : 1e-5; }

/// Every row has length one, but for the rounding of its elements.
template <class B>
bool unit_rows(ouro::tensor<B> const& x) {
  auto const v = x.template values<double>();
  auto const width = static_cast<std::size_t>(x.dim(-1));
  for (std::size_t row = 0; row < v.size(); row += width) {
    double squares = 0;
    for (std::size_t i = row; i < row + width; ++i) squares += v[i] * v[i];
    if (!(std::abs(squares - 1) < (x.type() == ouro::dtype::f64 ? 1e-14 : 1e-6))) return false;
  }
  return !v.empty();
}

/// Purity: `f(context)` gives the same bits again from an equal context, in training and outside, whatever `other`
/// computed between; so does the context it leaves behind, and `given` is as before.
template <class B, class F, class G>
void check_pure(std::vector<ouro::tensor<B>> const& given, F const& f, G const& other) {
  auto const before = copies(given);
  ouro::context<B> const plain;
  ouro::context<B> const training{.training = true, .dropout = 0.2, .masks = ouro::random_stream(ouro::seed{3})};
  for (auto const& cx : {plain, training}) {
    INFO((cx.training ? "in training" : "outside training"));
    auto a = cx;
    auto const first = f(a);
    for (auto between : {training, plain}) static_cast<void>(other(between));
    auto b = cx;
    CHECK(same_bits(f(b), first));
    CHECK(a.masks == b.masks);
    REQUIRE(a.statistics.size() == b.statistics.size());
    for (std::size_t i = 0; i < a.statistics.size(); ++i)
      CHECK(same_bits(a.statistics[i].batch, b.statistics[i].batch));
  }
  CHECK(same_bits(given, before));
}

}  // namespace ouro_test
