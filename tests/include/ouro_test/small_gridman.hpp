// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A Gridman that lives through an update in milliseconds, what it reads, all that it is, and how far two of them are apart.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <ouro/system/gridman.hpp>
#include <ouro/train/trainer.hpp>
#include <ouro_test/random.hpp>

namespace ouro_test {

/// One layer each in Sensor, Brain and Actor, steps of 3 patches of 5 bytes, updates of two wake steps and the sleep before.
inline ouro::gridman_config small_gridman(std::int64_t width) {
  ouro::gridman_config c;
  c.width = width, c.heads = 2, c.sensor_layers = 1, c.brain_layers = 1, c.actor_layers = 1;
  c.patch = 5, c.chunk = 3, c.state_rows = 2, c.memory_rows = 3, c.anchors = 2;
  c.wake = 2, c.sleep = 1, c.bptt = 2;
  return c;
}

/// Any bytes for a step of it: (lanes,3,5).
inline ouro::patches any_patches(std::int64_t lanes, std::uint64_t draw) {
  ouro::patches p{lanes, 3, 5, {}};
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(lanes * 15); ++i)
    p.bytes.push_back(static_cast<std::int32_t>(ouro::random_draw{draw, 0}.word(i) % 256));
  return p;
}

/// Any bytes for one life, to be said as they are heard.
inline ouro::basic_lesson<ouro::patches, ouro::byte_target> any_lesson(std::uint64_t draw) {
  auto const p = any_patches(1, draw);
  return {p, {p, std::vector<char>(p.bytes.size(), 1)}};
}

/// Moves every parameter away from where it starts: RWKV-7's output projections are zero there.
template <class Network>
void move_parameters(Network& model, std::uint64_t key) {
  using B = typename Network::backend;
  for (std::uint64_t draw = 0; auto const& f : ouro::fields(model))
    if (f.kind == ouro::field_kind::parameter)
      *f.value = *f.value + ouro::scale(ouro::normal<B>(f.value->dims(), f.value->type(), {key, draw++}), 0.05);
}

/// The largest relative error of what a life is, tensor by tensor, its last thought aside.
template <class A, class B>
double difference(ouro::state<A> const& a, ouro::state<B> const& b) {
  return std::max({relative_error(a.mem, b.mem), relative_error(a.working, b.working),
                   relative_error(a.hormone, b.hormone), relative_error(a.self, b.self),
                   relative_error(a.oscillator, b.oscillator)});
}

/// Everything that an update may change, as numbers.
template <class System, class B>
std::vector<double> all_of(System const& model, ouro::state<B> const& life, ouro::trainer<System> const& t) {
  std::vector<double> all{static_cast<double>(life.clock), static_cast<double>(life.random.counter),
                          static_cast<double>(t.updates())};
  auto add = [&](ouro::tensor<B> const& x) {
    auto const values = x.template values<double>();
    all.insert(all.end(), values.begin(), values.end());
  };
  for (auto const& f : ouro::fields(model)) add(*f.value);
  for (auto const* x : {&life.mem, &life.working, &life.oscillator, &life.hormone, &life.self}) add(*x);
  if (life.thought) add(*life.thought);
  for (std::size_t i = 0; i < t.memory().size(); ++i) {
    auto const& m = t.memory()[i];
    if (m.steps == 0) continue;  // moments of no gradient may be there or not
    all.insert(all.end(), {static_cast<double>(i), static_cast<double>(m.steps)});
    add(m.first);
    add(m.second);
  }
  return all;
}

}  // namespace ouro_test
