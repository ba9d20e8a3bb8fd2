// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Elementwise primitives and reductions in f32. What the kernels do not cover goes to the reference.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include <ouro/backend/cpu.hpp>
#include <ouro/tensor/host_memory.hpp>
#include <ouro/tensor/normal.hpp>

#include "dropper.hpp"
#include "kernels.hpp"
#include "runs.hpp"
#include "threads.hpp"

namespace ouro {
namespace {

cpu_kernels::table const& kernels() { return cpu_kernels::best(); }

template <class... Views>
bool all_f32(Views const&... v) {
  return ((v.type == dtype::f32) && ...);
}

/// y = the numbers of a draw, where each block of four words makes four.
template <class F>
void by_blocks(view y, random_draw const& draw, F const& numbers_of) {
  auto* const to = y.as<float>();
  std::int64_t const size = y.size();
  cpu_threading::parallel((size + 3) / 4, 64, [&](std::int64_t from, std::int64_t past) {
    for (std::int64_t b = from; b < past; ++b) {
      auto const numbers = numbers_of(philox::words(draw.key, draw.site, static_cast<std::uint64_t>(b)));
      std::int64_t const end = std::min(size, 4 * b + 4);
      for (std::int64_t i = 4 * b; i < end; ++i) to[i] = static_cast<float>(numbers[static_cast<std::size_t>(i % 4)]);
    }
  });
}

}  // namespace

void cpu::fill(view v, double value) {
  if (!all_f32(v) || !v.contiguous()) return reference::fill(v, value);
  auto* p = v.as<float>();
  cpu_threading::parallel(v.size(), 65536, [&](std::int64_t from, std::int64_t to) {
    std::fill(p + from, p + to, static_cast<float>(value));
  });
}

void cpu::copy(view to, const_view from, bool accumulate) {
  runs const r(to.dims, to.steps, from.steps, from.steps);
  if (!all_f32(to, from) || to.size() == 0 || r.along(0) != 1 || (accumulate && r.along(1) != 1))
    return reference::copy(to, from, accumulate);
  auto* y = to.as<float>();
  auto const* x = from.as<float>();
  auto const step = r.along(1);
  r.for_each([&](std::int64_t i, std::int64_t j, std::int64_t, std::int64_t n) {
    if (accumulate) kernels().scale(y + i, x + j, 1.0F, n, true);
    else if (step == 1) std::memcpy(y + i, x + j, static_cast<std::size_t>(n) * sizeof(float));
    else
      for (std::int64_t k = 0; k < n; ++k) y[i + k] = x[j + k * step];
  });
}

void cpu::scale(destination y, const_view x, double factor) {
  runs const r(y.out.dims, y.out.steps, x.steps, x.steps);
  if (!all_f32(y.out, x) || y.out.size() == 0 || r.along(0) != 1 || (r.along(1) != 0 && r.along(1) != 1))
    return reference::scale(y, x, factor);
  auto* p = y.out.as<float>();
  auto const* q = x.as<float>();
  bool const constant = r.along(1) == 0;
  r.for_each([&](std::int64_t i, std::int64_t j, std::int64_t, std::int64_t n) {
    if (!constant) return kernels().scale(p + i, q + j, static_cast<float>(factor), n, y.accumulate);
    float const value = static_cast<float>(factor) * q[j];
    for (std::int64_t k = 0; k < n; ++k) p[i + k] = y.accumulate ? p[i + k] + value : value;
  });
}

namespace {
/// Of softplus there is one number for each head only, and no part of a Gridman takes the others.
bool has_vectors(unary f) { return f != unary::softplus && f != unary::log && f != unary::relu; }
}  // namespace

void cpu::map(unary f, view y, const_view x) {
  runs const r(y.dims, y.steps, x.steps, x.steps);
  bool const vectors = has_vectors(f) && all_f32(y, x);
  if (!vectors || y.size() == 0 || r.along(0) != 1 || r.along(1) != 1) return reference::map(f, y, x);
  r.for_each([&](std::int64_t i, std::int64_t j, std::int64_t, std::int64_t n) {
    kernels().map(static_cast<int>(f), y.as<float>() + i, x.as<float>() + j, n);
  });
}

void cpu::map_gradient(unary f, destination dx, const_view saved, const_view dy) {
  if (!dx.wanted()) return;
  runs const r(dy.dims, dx.out.steps, saved.steps, dy.steps);
  bool const vectors = has_vectors(f) && all_f32(dx.out, saved, dy);
  if (!vectors || dy.size() == 0 || r.along(0) != 1 || r.along(1) != 1 || r.along(2) != 1)
    return reference::map_gradient(f, dx, saved, dy);
  r.for_each([&](std::int64_t i, std::int64_t j, std::int64_t k, std::int64_t n) {
    kernels().map_gradient(static_cast<int>(f), dx.out.as<float>() + i, saved.as<float>() + j, dy.as<float>() + k, n,
                           dx.accumulate);
  });
}

void cpu::combine(binary f, destination c, const_view a, const_view b) {
  runs const r(c.out.dims, c.out.steps, a.steps, b.steps);
  bool const first_constant = r.along(1) == 0 && r.along(2) == 1;
  if (first_constant && (f == binary::add || f == binary::multiply)) return combine(f, c, b, a);
  if (!all_f32(c.out, a, b) || c.out.size() == 0 || r.along(0) != 1 || r.along(1) != 1 || r.along(2) > 1 ||
      r.along(2) < 0)
    return reference::combine(f, c, a, b);
  bool const constant = r.along(2) == 0;
  r.for_each([&](std::int64_t i, std::int64_t j, std::int64_t k, std::int64_t n) {
    float* out = c.out.as<float>() + i;
    float const* x = a.as<float>() + j;
    float const* y = b.as<float>() + k;
    if (constant) kernels().combine_scalar(static_cast<int>(f), out, x, *y, n, c.accumulate);
    else kernels().combine(static_cast<int>(f), out, x, y, n, c.accumulate);
  });
}

// Sums over the last axes are dot products along runs; sums over leading or middle axes add whole runs to one row.
void cpu::reduce_sum(destination y, const_view x, double factor) {
  shape steps = y.out.steps;
  bool summed = false;
  for (int i = 0; i < x.dims.rank(); ++i)
    if (y.out.dims[i] == 1 && x.dims[i] != 1) {
      steps[i] = 0;
      summed = true;
    }
  runs const r(x.dims, steps, x.steps, x.steps);
  if (!all_f32(y.out, x) || !summed || x.size() == 0 || r.along(1) != 1 || !y.out.contiguous() || r.rank > 3)
    return reference::reduce_sum(y, x, factor);
  auto const* p = x.as<float>();
  auto* out = y.out.as<float>();
  auto const scale = static_cast<float>(factor);
  std::int64_t const n = r.n[r.rank - 1];
  if (r.along(0) == 0) {  // the run is summed; what is left must be a plain list of results
    if (r.rank > 2 || (r.rank == 2 && r.step[0][0] == 0)) return reference::reduce_sum(y, x, factor);
    std::int64_t const rows = r.rank == 2 ? r.n[0] : 1;
    cpu_threading::parallel(rows, 16384 / n + 1, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t i = from; i < to; ++i) {
        float const sum = scale * kernels().sum(p + (r.rank == 2 ? i * r.step[1][0] : 0), n);
        float& at = out[r.rank == 2 ? i * r.step[0][0] : 0];
        at = y.accumulate ? at + sum : sum;
      }
    });
    return;
  }
  // (groups, summed rows, n): each group's rows are added up by columns, which threads share.
  bool const grouped = r.rank == 3;
  int const middle = r.rank - 2;
  if (r.rank < 2 || r.step[0][middle] != 0 || (grouped && r.step[0][0] == 0))
    return reference::reduce_sum(y, x, factor);
  std::int64_t const groups = grouped ? r.n[0] : 1;
  std::int64_t const rows = r.n[middle];
  auto block = [&](std::int64_t g, std::int64_t from, std::int64_t to) {
    float* to_row = out + (grouped ? g * r.step[0][0] : 0);
    float const* source = p + (grouped ? g * r.step[1][0] : 0);
    std::vector<float> sum(static_cast<std::size_t>(to - from), 0.0F);
    for (std::int64_t i = 0; i < rows; ++i)
      kernels().scale(sum.data(), source + i * r.step[1][middle] + from, 1.0F, to - from, true);
    kernels().scale(to_row + from, sum.data(), scale, to - from, y.accumulate);
  };
  if (groups > 1) {
    cpu_threading::parallel(groups, 16384 / (rows * n) + 1, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t g = from; g < to; ++g) block(g, 0, n);
    });
  } else {
    cpu_threading::parallel(n, std::max<std::int64_t>(16, 16384 / rows + 1),
                            [&](std::int64_t from, std::int64_t to) { block(0, from, to); });
  }
}

void cpu::scale_by(destination const* places, const_view const* list, std::size_t count, const_view factor) {
  with_real(factor.type, "scale_by", [&]<class T>(std::type_identity<T>) {
    for (std::size_t k = 0; k < count; ++k)
      if (places[k].wanted()) scale(places[k], list[k], static_cast<double>(*factor.as<T>()));
  });
}

void cpu::sum_of_squares(view y, const_view const* list, std::size_t count) {
  if (!std::all_of(list, list + count, [](const_view const& x) { return all_f32(x); }))
    return reference::sum_of_squares(y, list, count);
  // Fixed blocks: the order of the sum does not depend on the number of threads.
  constexpr std::int64_t block = 65536;
  struct part {
    float const* from;
    std::int64_t n;
    double sum;
  };
  std::vector<part> parts;
  for (std::size_t k = 0; k < count; ++k)
    for (std::int64_t i = 0; i < list[k].size(); i += block)
      parts.push_back({list[k].as<float>() + i, std::min(block, list[k].size() - i), 0});
  cpu_threading::parallel(static_cast<std::int64_t>(parts.size()), 1, [&](std::int64_t from, std::int64_t to) {
    for (auto p = parts.begin() + from; p != parts.begin() + to; ++p) p->sum = kernels().sum_of_squares(p->from, p->n);
  });
  double sum = 0;
  for (auto const& p : parts) sum += p.sum;
  *y.as<double>() = sum;
}

namespace {
/// y = dropout(x), or before + dropout(x).
void drop(float* y, float const* before, const_view x, double rate, random_draw draw) {
  auto const dropper = cpu_kernels::dropper(rate, draw);
  share_elements(x.size(), [&](std::int64_t start, std::int64_t count) {
    kernels().dropout(y + start, before == nullptr ? nullptr : before + start, x.as<float>() + start, dropper,
                      static_cast<std::uint64_t>(start), count);
  });
}
}  // namespace

void cpu::dropout(destination y, const_view x, double rate, random_draw draw) {
  if (!all_f32(y.out, x)) return reference::dropout(y, x, rate, draw);
  auto* const to = y.out.as<float>();
  drop(to, y.accumulate ? to : nullptr, x, rate, draw);
}
void cpu::add_dropped(view y, const_view x, const_view f, double rate, random_draw draw) {
  if (all_f32(y, x, f)) return drop(y.as<float>(), x.as<float>(), f, rate, draw);
  copy(y, x, false);
  dropout({y, true}, f, rate, draw);
}

void cpu::normal(view y, random_draw draw) {
  if (!all_f32(y)) return reference::normal(y, draw);
  by_blocks(y, draw, [](philox::block const& words) {
    auto const a = box_muller(words[0], words[1]);
    auto const b = box_muller(words[2], words[3]);
    return std::array{a.first, a.second, b.first, b.second};
  });
}

void cpu::uniform(view y, random_draw draw, double low, double high) {
  if (!all_f32(y)) return reference::uniform(y, draw, low, high);
  by_blocks(y, draw, [low, high](philox::block const& words) {
    std::array<double, 4> numbers{};
    for (std::size_t i = 0; i < 4; ++i) numbers[i] = low + (high - low) * random_draw::uniform_of(words[i]);
    return numbers;
  });
}

void cpu::adamw(adamw_update const* updates, std::size_t count) {
  for (auto const* u = updates; u != updates + count; ++u) {
    if (!all_f32(u->parameter, u->first, u->second, u->gradient)) {
      reference::adamw(u, 1);
      continue;
    }
    auto const& s = u->step;
    auto f = [](double value) { return static_cast<float>(value); };
    cpu_kernels::adamw_numbers const numbers{
        f(s.beta1),        f(1 - s.beta1),      f(s.beta2),
        f(1 - s.beta2),    f(s.gradient_scale), f(s.correction1),
        f(s.correction2),  f(s.epsilon),        f(s.learning_rate * s.weight_decay),
        f(s.learning_rate)};
    cpu_threading::parallel(u->parameter.size(), 16384, [&](std::int64_t from, std::int64_t to) {
      kernels().adamw(u->parameter.as<float>() + from, u->first.as<float>() + from, u->second.as<float>() + from,
                      u->gradient.as<float>() + from, numbers, to - from);
    });
  }
}

}  // namespace ouro
