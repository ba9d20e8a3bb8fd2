// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Inputs and targets for the laws: of Gridman (patches of bytes) and of the creature in examples/mackey_glass (numbers).
#pragma once

#include <vector>

#include <ouro/sensor/patches.hpp>
#include <ouro/tensor/normal.hpp>

struct bytes {
  std::int64_t count = 3;
  std::int64_t width = 5;

  [[nodiscard]] ouro::patches input(std::int64_t lanes, std::uint64_t draw) const {
    ouro::patches p{lanes, count, width, {}};
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(lanes * count * width); ++i)
      p.bytes.push_back(static_cast<std::int32_t>(ouro::random_draw{draw, 0}.word(i) % 258));
    return p;
  }
  /// About two bytes of three count.
  [[nodiscard]] ouro::byte_target target(std::int64_t lanes, std::uint64_t draw) const {
    ouro::byte_target t{input(lanes, draw), {}};
    for (std::uint64_t i = 0; i < t.next.bytes.size(); ++i)
      t.live.push_back(ouro::random_draw{draw, 1}.word(i) % 3 > 0);
    return t;
  }
  [[nodiscard]] ouro::patches lanes(ouro::patches const& x, std::vector<std::int64_t> const& which) const {
    return {static_cast<std::int64_t>(which.size()), count, width, picked(x.bytes, which)};
  }
  [[nodiscard]] ouro::byte_target lanes(ouro::byte_target const& t, std::vector<std::int64_t> const& which) const {
    return {lanes(t.next, which), picked(t.live, which)};
  }
  [[nodiscard]] ouro::byte_target ignored(ouro::byte_target t) const {
    for (auto& l : t.live) l = 0;
    return t;
  }
  [[nodiscard]] ouro::byte_target ignored(ouro::byte_target t, std::int64_t lane) const {
    for (std::int64_t i = 0; i < count * width; ++i) t.live[static_cast<std::size_t>(lane * count * width + i)] = 0;
    return t;
  }
  [[nodiscard]] static std::vector<std::int32_t> values(ouro::patches const& p) { return p.bytes; }

 private:
  template <class T>
  [[nodiscard]] std::vector<T> picked(std::vector<T> const& x, std::vector<std::int64_t> const& which) const {
    std::vector<T> y;
    for (auto b : which) y.insert(y.end(), x.begin() + b * count * width, x.begin() + (b + 1) * count * width);
    return y;
  }
};

struct numbers {
  [[nodiscard]] static std::vector<float> input(std::int64_t lanes, std::uint64_t draw) {
    std::vector<float> x;
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(lanes); ++i)
      x.push_back(static_cast<float>(ouro::standard_normal({draw, 0}, i)));
    return x;
  }
  [[nodiscard]] static std::vector<float> target(std::int64_t lanes, std::uint64_t draw) { return input(lanes, draw); }
  [[nodiscard]] static std::vector<float> lanes(std::vector<float> const& x, std::vector<std::int64_t> const& which) {
    std::vector<float> y;
    for (auto b : which) y.push_back(x[static_cast<std::size_t>(b)]);
    return y;
  }
  [[nodiscard]] static std::vector<float> ignored(std::vector<float> const&) { return {}; }
  [[nodiscard]] static std::vector<float> values(std::vector<float> const& x) { return x; }
};
