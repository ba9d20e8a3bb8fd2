// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The laws of an Actor (ouro/concepts/actor.hpp).
#pragma once

#include <ouro/autodiff/tape.hpp>
#include <ouro/concepts/actor.hpp>
#include <ouro/train/adamw.hpp>
#include <ouro_test/laws/lives.hpp>

namespace ouro_test {

template <class B>
ouro::impression<B> lanes_of(ouro::impression<B> const& s, std::vector<std::int64_t> const& which) {
  return {lanes_of(s.now, which), lanes_of(s.before, which), lanes_of(s.hormone, which), s.predicted_loss};
}

/// `seen` has at least three lanes of any content. `samples` knows the Actor's types: `input(lanes, draw)` and
/// `target(lanes, draw)` make them, `lanes(x, which)` picks lanes of either, `ignored(target)` makes nothing of it count,
/// `ignored(target, lane)` (where the type can say so) one lane, `values(output)` is a vector of numbers.
template <class B, class T, class Samples>
void actor_laws(T const& actor, Samples const& samples, ouro::impression<B> const& seen) {
  static_assert(ouro::Actor<T, B>);
  std::int64_t const lanes = seen.now.dim(0);
  auto const x = samples.input(lanes, 1);
  auto const target = samples.target(lanes, 2);
  double const near = reordered(seen.now.type());
  std::vector<ouro::tensor<B>> const given{seen.now, seen.before, seen.hormone};
  ouro::impression<B> const other{noise<B>(seen.now.dims(), seen.now.type()), {}, seen.hormone, {}};
  auto const other_x = samples.input(lanes, 3);

  check_pure(
      given, [&](auto& cx) { return actor.loss(cx, seen, x, target).value; },
      [&](auto& cx) { return actor.loss(cx, other, other_x, samples.target(lanes, 4)); });
  check_pure(
      given, [&](auto& cx) { return samples.values(actor.act(cx, seen, x)); },
      [&](auto& cx) { return actor.act(cx, other, other_x); });

  ouro::context<B> cx;
  auto loss = [&](auto const& goal, std::vector<std::int64_t> const& which) {
    return actor.loss(cx, lanes_of(seen, which), samples.lanes(x, which), samples.lanes(goal, which));
  };
  auto const all = actor.loss(cx, seen, x, target);
  REQUIRE(all.live > 0);
  REQUIRE(all.value.size() == 1);

  // Mean: over what counts in every lane, whichever lanes stand beside it.
  double sum = 0;
  std::int64_t live = 0;
  std::vector<double> alone;
  std::vector<std::int64_t> twice;
  for (std::int64_t b = 0; b < lanes; ++b) {
    auto const one = loss(target, {b});
    alone.push_back(one.value.item());
    sum += static_cast<double>(one.live) * alone.back();
    live += one.live;
    twice.insert(twice.end(), {b, b});
  }
  CHECK(live == all.live);
  CHECK(std::abs(sum / static_cast<double>(live) / all.value.item() - 1) < near);
  CHECK(std::abs(loss(target, twice).value.item() / all.value.item() - 1) < near);
  CHECK(std::abs(alone[0] / alone[2] - 1) > 1e-3);  // or this would show nothing

  // A tape changes no value. Ignored: no live target, no value, and no gradient at all.
  auto gradient_of = [&](auto const& goal, auto const& check) {
    auto watched = seen;
    watched.now = seen.now.copy();
    ouro::tape<B> tape;
    tape.watch(watched.now);
    for (auto const& f : ouro::fields(actor)) tape.watch(*f.value);
    auto const l = actor.loss(cx, watched, x, goal);
    if (l.value) tape.backward(l.value);
    check(l, tape.gradient(watched.now));
    if (l.value.empty())
      for (auto const& f : ouro::fields(actor)) CHECK(tape.gradient(*f.value).empty());
  };
  gradient_of(target, [&](auto const& l, auto const& g) {
    CHECK(same_bits(l.value, all.value));
    CHECK_FALSE(g.empty());
  });
  gradient_of(samples.ignored(target), [](auto const& l, auto const& g) {
    CHECK(l.live == 0);
    CHECK(l.value.empty());
    CHECK(g.empty());
  });
  if constexpr (requires { samples.ignored(target, std::int64_t{1}); }) {
    auto const part = samples.ignored(target, 1);
    gradient_of(part, [&](auto const& l, auto const& g) {
      auto const rest = loss(target, {0, 2});
      CHECK(l.live == rest.live);
      CHECK(std::abs(l.value.item() / rest.value.item() - 1) < near);
      REQUIRE_FALSE(g.empty());
      auto const none = lanes_of(g, {1}).template values<double>();
      CHECK(none == std::vector<double>(none.size()));
      CHECK(ouro::norm_of<B>({lanes_of(g, {0})}) > 0);
    });
  }
}

}  // namespace ouro_test
