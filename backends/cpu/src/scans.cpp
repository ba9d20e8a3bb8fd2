// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Recurrences and short convolutions in f32: threads share lanes and heads. What several heads or lanes add to is summed
// in their order, whoever computed it.
#include <algorithm>
#include <vector>

#include <ouro/backend/cpu.hpp>

#include "kernels.hpp"
#include "scan_kernels.hpp"
#include "threads.hpp"

namespace ouro {

namespace cpu_scans {
table const& best() {
#if defined(OURO_X86)
  auto const& chosen = cpu_kernels::best();
  if (&chosen == &cpu_kernels::avx512()) return avx512();
  if (&chosen == &cpu_kernels::avx2()) return avx2();
#endif
  return generic();
}
}  // namespace cpu_scans

namespace {

using cpu_scans::rows_in;
using cpu_scans::rows_out;
using cpu_scans::state_out;

/// Floats of the backend's pool, which start at a cache line.
class pool_floats {
 public:
  explicit pool_floats(std::int64_t n)
      : bytes_(static_cast<std::size_t>(n) * sizeof(float)), memory_(static_cast<float*>(cpu::allocate(bytes_))) {}
  pool_floats(pool_floats const&) = delete;
  pool_floats& operator=(pool_floats const&) = delete;
  ~pool_floats() { cpu::deallocate(memory_, bytes_); }
  [[nodiscard]] float* data() const { return memory_; }

 private:
  std::size_t bytes_;
  float* memory_;
};
/// Zeroed scratch. What pads matrices in it stays zero, so that heads of one size share it.
class scratch_floats : public pool_floats {
 public:
  explicit scratch_floats(std::int64_t n) : pool_floats(n) { std::fill_n(data(), n, 0.0F); }
};

/// The columns of one lane that start at `column`.
rows_in columns(const_view const& v, std::int64_t lane, std::int64_t column) {
  return {v.as<float>() + lane * v.steps[0] + column, v.steps[1]};
}
rows_out columns(destination const& d, std::int64_t lane, std::int64_t column) {
  if (!d.wanted()) return {nullptr, 0, false};
  return {d.out.as<float>() + lane * d.out.steps[0] + column, d.out.steps[1], d.accumulate};
}
state_out state_at(destination const& d, std::int64_t job) {
  if (!d.wanted()) return {nullptr, false};
  return {d.out.as<float>() + job * d.out.dims[2] * d.out.dims[3], d.accumulate};
}

bool dense(destination const& d) { return !d.wanted() || d.out.contiguous(); }

std::int64_t grain_of(std::int64_t work) { return 100000 / (work + 1) + 1; }

cpu_scans::rwkv7_head head_of(rwkv7_operands const& in, std::int64_t job) {
  std::int64_t const lane = job / in.state.dims[1];
  std::int64_t const key = in.state.dims[3];
  std::int64_t const value = in.state.dims[2];
  std::int64_t const head = job % in.state.dims[1];
  return {in.r.dims[1],
          key,
          value,
          columns(in.r, lane, head * key),
          columns(in.w, lane, head * key),
          columns(in.k, lane, head * key),
          columns(in.v, lane, head * value),
          columns(in.a, lane, head * key),
          columns(in.b, lane, head * key),
          in.state.as<float>() + job * key * value};
}

cpu_scans::ssd_head head_of(ssd_operands const& in, std::int64_t job) {
  std::int64_t const heads = in.state.dims[1];
  std::int64_t const lane = job / heads;
  std::int64_t const key = in.state.dims[3];
  std::int64_t const value = in.state.dims[2];
  std::int64_t const head = job % heads;
  std::int64_t const group = head * (in.b.dims[2] / key) / heads;
  return {in.x.dims[1],
          key,
          value,
          columns(in.x, lane, head * value),
          columns(in.step, lane, head),
          columns(in.b, lane, group * key),
          columns(in.c, lane, group * key),
          static_cast<double>(in.rate.as<float>()[head]),
          static_cast<double>(in.skip.as<float>()[head]),
          in.state.as<float>() + job * key * value};
}

}  // namespace

void cpu::rwkv7_scan(view y, view last, rwkv7_operands const& in) {
  if (in.r.type != dtype::f32 || in.state.size() == 0) return reference::rwkv7_scan(y, last, in);
  auto const& kernels = cpu_scans::best();
  std::int64_t const rows = in.r.dims[1], value = in.state.dims[2], key = in.state.dims[3];
  cpu_threading::parallel(in.state.dims[0] * in.state.dims[1], grain_of(rows * (key + 16) * value),
                          [&](std::int64_t first, std::int64_t end) {
                            scratch_floats scratch(kernels.rwkv7_scratch(rows, key, value, false));
                            for (std::int64_t job = first; job < end; ++job) {
                              kernels.rwkv7(
                                  head_of(in, job),
                                  columns(destination(y), job / in.state.dims[1], job % in.state.dims[1] * value),
                                  last.as<float>() + job * key * value, scratch.data());
                            }
                          });
}

void cpu::rwkv7_scan_gradient(rwkv7_gradients const& to, rwkv7_operands const& in, const_view dy, const_view dlast) {
  bool const plain =
      dense(to.r) && dense(to.w) && dense(to.k) && dense(to.v) && dense(to.a) && dense(to.b) && dense(to.state);
  if (in.r.type != dtype::f32 || in.state.size() == 0 || !plain)
    return reference::rwkv7_scan_gradient(to, in, dy, dlast);
  auto const& kernels = cpu_scans::best();
  std::int64_t const rows = in.r.dims[1], value = in.state.dims[2], key = in.state.dims[3];
  cpu_threading::parallel(
      in.state.dims[0] * in.state.dims[1], grain_of(3 * rows * (key + 16) * value),
      [&](std::int64_t first, std::int64_t end) {
        scratch_floats scratch(kernels.rwkv7_scratch(rows, key, value, true));
        for (std::int64_t job = first; job < end; ++job) {
          std::int64_t const lane = job / in.state.dims[1];
          std::int64_t const head = job % in.state.dims[1];
          kernels.rwkv7_gradient(
              head_of(in, job),
              {columns(to.r, lane, head * key), columns(to.w, lane, head * key), columns(to.k, lane, head * key),
               columns(to.v, lane, head * value), columns(to.a, lane, head * key), columns(to.b, lane, head * key),
               state_at(to.state, job)},
              columns(dy, lane, head * value), dlast.empty() ? nullptr : dlast.as<float>() + job * key * value,
              scratch.data());
        }
      });
}

void cpu::ssd_scan(view y, view last, ssd_operands const& in) {
  if (in.x.type != dtype::f32 || in.state.size() == 0) return reference::ssd_scan(y, last, in);
  auto const& kernels = cpu_scans::best();
  std::int64_t const rows = in.x.dims[1], value = in.state.dims[2], key = in.state.dims[3];
  cpu_threading::parallel(
      in.state.dims[0] * in.state.dims[1], grain_of(rows * (key + 16) * value),
      [&](std::int64_t first, std::int64_t end) {
        scratch_floats scratch(kernels.ssd_scratch(rows, key, value, false));
        for (std::int64_t job = first; job < end; ++job) {
          kernels.ssd(head_of(in, job), columns(destination(y), job / in.state.dims[1], job % in.state.dims[1] * value),
                      last.as<float>() + job * key * value, scratch.data());
        }
      });
}

void cpu::ssd_scan_gradient(ssd_gradients const& to, ssd_operands const& in, const_view dy, const_view dlast) {
  bool const plain = dense(to.x) && dense(to.step) && dense(to.rate) && dense(to.b) && dense(to.c) && dense(to.skip) &&
                     dense(to.state);
  if (in.x.type != dtype::f32 || in.state.size() == 0 || !plain) return reference::ssd_scan_gradient(to, in, dy, dlast);
  auto const& kernels = cpu_scans::best();
  std::int64_t const lanes = in.state.dims[0], heads = in.state.dims[1];
  std::int64_t const rows = in.x.dims[1], value = in.state.dims[2], key = in.state.dims[3];
  std::int64_t const groups = in.b.dims[2] / key;
  std::int64_t const jobs = lanes * heads;
  // What each head says about its group's b and c: rows (job, T, key).
  bool const shared = groups != heads;
  pool_floats const of_b(shared && to.b.wanted() ? jobs * rows * key : 0);
  pool_floats const of_c(shared && to.c.wanted() ? jobs * rows * key : 0);
  std::vector<double> of_rate(static_cast<std::size_t>(jobs));
  std::vector<double> of_skip(static_cast<std::size_t>(jobs));
  auto part = [&](destination const& d, pool_floats const& own, std::int64_t job) -> rows_out {
    if (!d.wanted() || !shared) return columns(d, job / heads, job % heads * key);
    return {own.data() + job * rows * key, key, false};
  };
  cpu_threading::parallel(jobs, grain_of(3 * rows * (key + 16) * value), [&](std::int64_t first, std::int64_t end) {
    scratch_floats scratch(kernels.ssd_scratch(rows, key, value, true));
    for (std::int64_t job = first; job < end; ++job) {
      std::int64_t const lane = job / heads;
      std::int64_t const head = job % heads;
      kernels.ssd_gradient(head_of(in, job),
                           {columns(to.x, lane, head * value), columns(to.step, lane, head), part(to.b, of_b, job),
                            part(to.c, of_c, job), &of_rate[static_cast<std::size_t>(job)],
                            &of_skip[static_cast<std::size_t>(job)], state_at(to.state, job)},
                           columns(dy, lane, head * value),
                           dlast.empty() ? nullptr : dlast.as<float>() + job * key * value, scratch.data());
    }
  });
  auto add_heads = [&](destination const& d, pool_floats const& own) {
    if (!shared || !d.wanted()) return;
    std::int64_t const members = heads / groups;
    cpu_threading::parallel(lanes * rows, grain_of(heads * key), [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t row = first; row < end; ++row)
        for (std::int64_t h = 0; h < heads; ++h) {
          std::int64_t const lane = row / rows;
          float* out = d.out.as<float>() + row * groups * key + h / members * key;
          float const* from = own.data() + ((lane * heads + h) * rows + row % rows) * key;
          cpu_kernels::best().scale(out, from, 1.0F, key, d.accumulate || h % members != 0);
        }
    });
  };
  add_heads(to.b, of_b);
  add_heads(to.c, of_c);
  auto add_lanes = [&](destination const& d, std::vector<double> const& own) {
    for (std::int64_t h = 0; h < heads && d.wanted(); ++h) {
      double sum = 0;
      for (std::int64_t n = 0; n < lanes; ++n) sum += own[static_cast<std::size_t>(n * heads + h)];
      float& out = d.out.as<float>()[h];
      out = static_cast<float>(sum) + (d.accumulate ? out : 0.0F);
    }
  };
  add_lanes(to.rate, of_rate);
  add_lanes(to.skip, of_skip);
}

namespace {

/// Row `t` of x, or for t < 0 of the window that ends where x starts.
float const* row_of(short_convolution_operands const& in, std::int64_t lane, std::int64_t t) {
  return t >= 0 ? in.x.as<float>() + lane * in.x.steps[0] + t * in.x.steps[1]
                : in.window.as<float>() + (lane * in.window.dims[1] + in.window.dims[1] + t) * in.window.dims[2];
}
/// The weights with columns innermost: (K,C).
std::vector<float> tap_rows(const_view const& weight) {
  std::int64_t const columns = weight.dims[0], taps = weight.dims[1];
  std::vector<float> rows(static_cast<std::size_t>(columns * taps));
  for (std::int64_t c = 0; c < columns; ++c)
    for (std::int64_t j = 0; j < taps; ++j)
      rows[static_cast<std::size_t>(j * columns + c)] = weight.as<float>()[c * taps + j];
  return rows;
}

}  // namespace

void cpu::short_convolution(view y, short_convolution_operands const& in) {
  if (in.x.type != dtype::f32) return reference::short_convolution(y, in);
  auto const& kernels = cpu_scans::best();
  std::int64_t const rows = in.x.dims[1], columns = in.x.dims[2], taps = in.weight.dims[1];
  auto const weight = tap_rows(in.weight);
  cpu_threading::parallel(in.x.dims[0] * rows, grain_of(taps * columns), [&](std::int64_t first, std::int64_t end) {
    std::vector<float const*> source(static_cast<std::size_t>(taps));
    for (std::int64_t r = first; r < end; ++r) {
      for (std::int64_t j = 0; j < taps; ++j)
        source[static_cast<std::size_t>(j)] = row_of(in, r / rows, r % rows + j - taps + 1);
      float* out = y.as<float>() + r / rows * y.steps[0] + r % rows * y.steps[1];
      std::copy_n(in.bias.as<float>(), columns, out);
      kernels.taps(out, source.data(), weight.data(), taps, columns);
    }
  });
}

void cpu::short_convolution_gradient(short_convolution_gradients const& to, short_convolution_operands const& in,
                                     const_view dy) {
  bool const plain = dense(to.x) && dense(to.window) && dense(to.weight) && dense(to.bias) && dy.contiguous();
  if (in.x.type != dtype::f32 || !plain) return reference::short_convolution_gradient(to, in, dy);
  auto const& kernels = cpu_scans::best();
  std::int64_t const lanes = in.x.dims[0], rows = in.x.dims[1], columns = in.x.dims[2], taps = in.weight.dims[1];
  std::int64_t const kept = taps - 1;
  auto const weight = tap_rows(in.weight);
  auto up = [&](std::int64_t lane, std::int64_t t) { return dy.as<float>() + (lane * rows + t) * columns; };

  // A row of x or of the window, `position` rows after the window's first, is seen by tap j of row position − j.
  auto towards = [&](destination const& d, std::int64_t lane, std::int64_t row, std::int64_t position) {
    float* out = d.out.as<float>() + (lane * d.out.dims[1] + row) * columns;
    if (!d.accumulate) std::fill_n(out, columns, 0.0F);
    for (std::int64_t j = 0; j < taps; ++j) {
      std::int64_t const t = position - j;
      if (t < 0 || t >= rows) continue;
      float const* source = up(lane, t);
      kernels.taps(out, &source, weight.data() + j * columns, 1, columns);
    }
  };
  for (int which = 0; which < 2; ++which) {
    destination const& d = which == 0 ? to.x : to.window;
    std::int64_t const count = which == 0 ? rows : kept;
    if (!d.wanted() || count == 0) continue;
    cpu_threading::parallel(lanes * count, grain_of(taps * columns), [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t r = first; r < end; ++r) towards(d, r / count, r % count, r % count + (which == 0 ? kept : 0));
    });
  }
  if (!to.weight.wanted() && !to.bias.wanted()) return;

  // Threads share columns; rows are added up in blocks, so that long sums stay exact enough.
  constexpr std::int64_t block = 64;
  std::int64_t const parts = (columns + 15) / 16;
  cpu_threading::parallel(
      parts, grain_of(lanes * rows * (taps + 1) * 16), [&](std::int64_t from, std::int64_t to_part) {
        std::int64_t const c0 = from * 16;
        std::int64_t const n = std::min(columns, to_part * 16) - c0;
        std::vector<double> total(static_cast<std::size_t>((taps + 1) * n), 0.0);
        std::vector<float> sum(static_cast<std::size_t>(n));
        std::vector<float> const ones(static_cast<std::size_t>(n), 1.0F);
        auto add = [&](std::int64_t j, float const* a, std::int64_t a_step, float const* b, std::int64_t b_step,
                       std::int64_t count) {
          std::fill(sum.begin(), sum.end(), 0.0F);
          kernels.row_products(sum.data(), a, a_step, b, b_step, count, n);
          for (std::int64_t i = 0; i < n; ++i)
            total[static_cast<std::size_t>(j * n + i)] += static_cast<double>(sum[static_cast<std::size_t>(i)]);
        };
        for (std::int64_t lane = 0; lane < lanes; ++lane)
          for (std::int64_t t = 0; t < rows; t += block) {
            std::int64_t const count = std::min(block, rows - t);
            for (std::int64_t j = 0; j < taps; ++j) {
              std::int64_t const early = std::clamp<std::int64_t>(kept - j - t, 0, count);  // rows that see the window
              for (std::int64_t i = 0; i < early; ++i)
                add(j, up(lane, t + i) + c0, 0, row_of(in, lane, t + i + j - kept) + c0, 0, 1);
              if (count > early)
                add(j, up(lane, t + early) + c0, columns, row_of(in, lane, t + early + j - kept) + c0, in.x.steps[1],
                    count - early);
            }
            add(taps, up(lane, t) + c0, columns, ones.data(), 0, count);
          }
        for (std::int64_t i = 0; i < n; ++i) {
          for (std::int64_t j = 0; j < taps && to.weight.wanted(); ++j) {
            float& out = to.weight.out.as<float>()[(c0 + i) * taps + j];
            out = static_cast<float>(total[static_cast<std::size_t>(j * n + i)]) + (to.weight.accumulate ? out : 0.0F);
          }
          if (to.bias.wanted()) {
            float& out = to.bias.out.as<float>()[c0 + i];
            out = static_cast<float>(total[static_cast<std::size_t>(taps * n + i)]) + (to.bias.accumulate ? out : 0.0F);
          }
        }
      });
}

}  // namespace ouro
