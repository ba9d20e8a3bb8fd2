// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Definitions of nn/mixers/rwkv7.hpp: initialisation and the forward pass.
#pragma once

#include <vector>

#include <ouro/nn/mixers/rwkv7.hpp>

namespace ouro {

template <Backend B>
rwkv7<B>::rwkv7(genesis<B>& g, mixer_place const& place, rwkv7_ranks const& rank) {
  std::int64_t const width = place.width;
  policy = place.rows;
  require(place.heads >= 1 && width >= 1 && width % place.heads == 0, errc::config, "rwkv7",
          "heads must divide the width, got width ", width, " and heads ", place.heads);
  require(place.layer >= 0 && place.layer < place.layers, errc::config, "rwkv7", "no layer ", place.layer, " of ",
          place.layers);
  std::int64_t const head = width / place.heads;
  double const depth =
      place.layers > 1 ? static_cast<double>(place.layer) / static_cast<double>(place.layers - 1) : 0.0;
  double const rest = 1.0 - static_cast<double>(place.layer) / static_cast<double>(place.layers);
  double const last = elementary::max<double>(1.0, static_cast<double>(width - 1));
  auto by_channel = [&](auto f) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < width; ++i) values.push_back(f(static_cast<double>(i)));
    parameter<B> p(tensor<B>::from(values, {1, 1, width}, g.type));
    p.decay = 0;
    return p;
  };
  auto without_decay = [](tensor<B> t) {
    parameter<B> p(std::move(t));
    p.decay = 0;
    return p;
  };
  auto line = [&](double i) { return i / last - 0.5; };
  auto zigzag = [&](double i) {  // from −1 to 1 within each head, flat in the middle
    double const half = static_cast<double>(head - 1) / 2.0;
    double const z = half > 0 ? (elementary::fmod(i, static_cast<double>(head)) - half) / half : 0.0;
    return z * elementary::abs(z);
  };
  auto mix = [&](double power) {
    return by_channel([&](double i) { return 1.0 - elementary::pow(i / static_cast<double>(width), power * rest); });
  };
  x_r = mix(0.2), x_w = mix(0.9), x_k = mix(0.7), x_v = mix(0.7), x_a = mix(0.9), x_g = mix(0.2);

  w0 = by_channel([&](double i) {
    return -6.0 + 6.0 * elementary::pow(i / last, 1.0 + elementary::pow(depth, 0.3)) + 0.5 + 2.5 * zigzag(i);
  });
  w0.learning_rate = 2;
  a0 = by_channel([&](double i) { return -0.19 + 0.3 * zigzag(i) + 0.4 * line(i); });
  v0 = by_channel([&](double i) { return 0.73 - 0.4 * line(i); });
  auto up = [&](std::int64_t r) {
    double const gain = elementary::max(1.0, elementary::sqrt(static_cast<double>(r) / static_cast<double>(width)));
    return without_decay(orthogonal(g, {r, width}, 0.1 * gain));
  };
  w1 = without_decay(g.zeros({width, rank.w})), w2 = up(rank.w);
  a1 = without_decay(g.zeros({width, rank.a})), a2 = up(rank.a);
  v1 = without_decay(g.zeros({width, rank.v})), v2 = up(rank.v);
  g1 = without_decay(g.zeros({width, rank.g})), g2 = up(rank.g);
  k_k = by_channel([&](double i) { return 0.71 - 0.1 * line(i); });
  k_a = by_channel([](double) { return 1.02; });
  r_k = without_decay(tensor<B>::full({place.heads, head}, g.type, -0.04));

  receptance = projection<B>(orthogonal(g, {width, width}));
  key = projection<B>(orthogonal(g, {width, width}, 0.1));
  value = projection<B>(orthogonal(g, {width, width}));
  output = projection<B>(g.zeros({width, width}));
  double const level = elementary::pow(static_cast<double>(1 + place.layer) / static_cast<double>(place.layers), 0.7);
  ln_x.weight = without_decay(tensor<B>::full({width}, g.type, level));
  ln_x.bias = without_decay(g.zeros({width}));
}

template <Backend B>
tensor<B> rwkv7<B>::one_way(context<B>& cx, tensor<B> const& x, segments s, carry& c, tensor<B>& v_first) const {
  std::int64_t const lanes = x.dim(0), rows = x.dim(1), width = x.dim(2);
  std::int64_t const heads = r_k.dim(0), head = r_k.dim(1);
  std::int64_t const alone = rows_alone(s, policy), chained = rows - alone;
  require(chained >= 1 && s.skip < rows, errc::shape, "rwkv7", "needs a row after those skipped, got ", x.dims(),
          " and skip ", s.skip);
  dtype const wide = computed_in(x.type());  // of the carry, and of what the recurrence sees
  if (c.shift.empty())
    c = {tensor<B>::zeros({lanes, 1, width}, wide), tensor<B>::zeros({lanes, heads, head, head}, wide)};
  auto const one = tensor<B>::full({1}, wide, 1.0);
  auto const nothing = tensor<B>::zeros({lanes, 1, width}, x.type());
  std::vector<tensor<B>> before;  // what is before each row
  auto starts = run_starts(s, policy, chained);
  starts.push_back(chained);
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    before.push_back(i == 0 ? copied(c.shift, x.type()) : nothing);
    std::int64_t const more = starts[i + 1] - starts[i] - 1;
    if (more > 0) before.push_back(slice(x, 1, starts[i], more));
  }
  auto const last = slice(x, 1, chained - 1, 1);
  if (alone > 0) before.push_back(expand(policy.reset_write ? nothing : last, {lanes, alone, width}));
  auto const shares = cx.once({reinterpret_cast<std::intptr_t>(&x_r), 0, 2}, x_r.value(), [&] {
    std::vector<tensor<B>> rows_of_shares;
    for (auto const* share : {&x_r, &x_w, &x_k, &x_v, &x_a, &x_g})
      rows_of_shares.push_back(reshape(share->value(), {1, width}));
    return concat(rows_of_shares, 0);
  });
  enum : std::size_t { of_r, of_w, of_k, of_v, of_a, of_g };
  auto const mixed = mix_rows(x, before.size() > 1 ? concat(before, 1) : before[0], shares);  // (B,T,D) each
  auto down = [&](tensor<B> const& y, parameter<B> const& w) { return project_rows(y, cx.stored(w, y.type()), wide); };
  auto up = [](tensor<B> const& y, parameter<B> const& w) { return project_rows(y, w.value()); };
  auto by_head = [&](tensor<B> const& y) { return reshape(y, {lanes, y.dim(1), heads, head}); };
  auto joined = [&](tensor<B> const& y) { return reshape(y, {lanes, y.dim(1), width}); };

  auto r = receptance(cx, mixed[of_r], wide);
  auto const w = w0.value() + up(tanh(down(mixed[of_w], w1)), w2);
  auto const k = key(cx, mixed[of_k], wide);
  auto v = value(cx, mixed[of_v], wide);
  auto const rate = sigmoid(a0.value() + up(down(mixed[of_a], a1), a2));
  if (v_first.empty()) {
    v_first = v;
  } else {
    v = v + (v_first - v) * sigmoid(v0.value() + up(down(mixed[of_v], v1), v2));
  }
  auto const erased = joined(unit(by_head(k * k_k.value()), 1e-12));
  auto written = k * ((one - k_a.value()) + rate * k_a.value());

  auto const a = scale(erased, -1.0);
  auto const b = erased * rate;
  auto chain = [&](tensor<B> const& y) { return alone > 0 ? slice(y, 1, 0, chained) : y; };
  auto scanned = rwkv7_scan(chain(r), chain(w), chain(written), chain(v), chain(a), chain(b), c.state);
  c = {copied(last, wide), scanned.state};
  if (alone > 0) {
    auto own = [&](tensor<B> const& y) { return last_rows_as_lanes(y, alone); };
    auto const read = rwkv7_scan(own(r), own(w), own(written), own(v), own(a), own(b), repeated_lanes(c.state, alone));
    scanned.y = concat<B>({scanned.y, reshape(read.y, {lanes, alone, width})}, 1);
  }

  // What follows is row by row: only rows that are asked for.
  auto asked = [&](tensor<B> const& y) { return s.skip == 0 ? y : slice(y, 1, s.skip, rows - s.skip); };
  auto const gate = up(sigmoid(down(asked(mixed[of_g]), g1)), g2);
  r = asked(r), v = asked(v), written = asked(written);
  auto const plain = normalize_rows(by_head(asked(scanned.y)), tensor<B>::full({head}, wide, 1.0),
                                    tensor<B>::zeros({head}, wide), 64e-5);
  auto const normal = joined(plain) * ln_x.weight.value() + ln_x.bias.value();
  auto const bonus = sum(by_head(r * written * reshape(r_k.value(), {width})), 3) * by_head(v);  // (B,T,H,N)
  return output(cx, (normal + joined(bonus)) * gate, x.type());
}

}  // namespace ouro
