// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Row and column primitives in f32: norms, cross entropy, table look-up.
#include <algorithm>
#include <cmath>
#include <vector>

#include <ouro/backend/cpu.hpp>

#include "kernels.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace ouro {
namespace {

cpu_kernels::table const& kernels() { return cpu_kernels::best(); }
std::int64_t row_grain(std::int64_t width) { return 16384 / std::max<std::int64_t>(width, 1) + 1; }

}  // namespace

void cpu::layer_norm(view y, view mean, view rstd, const_view x, const_view w, const_view b, double eps) {
  if (x.type != dtype::f32 || x.size() == 0) return reference::layer_norm(y, mean, rstd, x, w, b, eps);
  std::int64_t const width = x.dims.back();
  cpu_threading::parallel(x.dims.rows(), row_grain(width), [&](std::int64_t from, std::int64_t to) {
    kernels().layer_norm(y.as<float>() + from * width, mean.as<float>() + from, rstd.as<float>() + from,
                         x.as<float>() + from * width, w.as<float>(), b.as<float>(), static_cast<float>(eps), to - from,
                         width);
  });
}

void cpu::layer_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                              const_view rstd, const_view w, const_view dy) {
  if (x.type != dtype::f32 || x.size() == 0) return reference::layer_norm_gradient(dx, dw, db, x, mean, rstd, w, dy);
  // Weight and bias gradients are summed over fixed blocks of rows, then over the blocks in order, so that the result
  // does not depend on the number of threads.
  std::int64_t const width = x.dims.back();
  std::int64_t const rows = x.dims.rows();
  std::int64_t const block = std::max<std::int64_t>(64, (rows + 31) / 32);
  std::int64_t const blocks = (rows + block - 1) / block;
  scratch partial(2 * blocks * width);
  cpu_threading::parallel(blocks, row_grain(width) / block + 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t k = first; k < last; ++k) {
      std::int64_t const from = k * block;
      float* sums = partial.data() + 2 * k * width;
      std::fill(sums, sums + 2 * width, 0.0F);
      kernels().layer_norm_gradient(dx.wanted() ? dx.out.as<float>() + from * width : nullptr,
                                    dw.wanted() ? sums : nullptr, db.wanted() ? sums + width : nullptr,
                                    x.as<float>() + from * width, mean.as<float>() + from, rstd.as<float>() + from,
                                    w.as<float>(), dy.as<float>() + from * width, std::min(block, rows - from), width,
                                    dx.accumulate);
    }
  });
  auto gather = [&](destination const& d, std::int64_t offset) {
    if (!d.wanted()) return;
    for (std::int64_t k = 0; k < blocks; ++k)
      kernels().scale(d.out.as<float>(), partial.data() + 2 * k * width + offset, 1.0F, width, d.accumulate || k > 0);
  };
  gather(dw, 0);
  gather(db, width);
}

// Rows may be as short as the keys of a head: what is exponentiated is a run over all of them.
void cpu::softmax(view y, const_view x) {
  if (x.type != dtype::f32 || x.size() == 0) return reference::softmax(y, x);
  std::int64_t const width = x.dims.back();
  cpu_threading::parallel(x.dims.rows(), row_grain(width), [&](std::int64_t from, std::int64_t to) {
    float* const out = y.as<float>() + from * width;
    float const* const in = x.as<float>() + from * width;
    std::int64_t const size = (to - from) * width;
    for (std::int64_t r = 0; r < size; r += width) {
      float top = in[r];
      for (std::int64_t i = 1; i < width; ++i) top = std::max(top, in[r + i]);
      for (std::int64_t i = 0; i < width; ++i) out[r + i] = in[r + i] - top;
    }
    kernels().exp(out, out, size);
    for (std::int64_t r = 0; r < size; r += width) {
      float sum = 0;
      for (std::int64_t i = 0; i < width; ++i) sum += out[r + i];
      float const share = 1.0F / sum;
      for (std::int64_t i = 0; i < width; ++i) out[r + i] *= share;
    }
  });
}

void cpu::cross_entropy(view nll, const_view logits, const_view targets) {
  if (logits.type != dtype::f32 || logits.size() == 0) return reference::cross_entropy(nll, logits, targets);
  std::int64_t const width = logits.dims.back();
  cpu_threading::parallel(logits.dims.rows(), row_grain(width), [&](std::int64_t from, std::int64_t to) {
    std::vector<float> row(static_cast<std::size_t>(width));
    for (std::int64_t r = from; r < to; ++r) {
      auto const target = targets.as<std::int32_t>()[r];
      float const* x = logits.as<float>() + r * width;
      float& out = nll.as<float>()[r];
      out = 0;
      if (target < 0) continue;
      float const top = kernels().maximum(x, width);
      std::copy(x, x + width, row.begin());
      out = top - x[target] + std::log(kernels().exp_shifted(row.data(), 1.0F, top, width));
    }
  });
}

void cpu::cross_entropy_gradient(destination dlogits, const_view logits, const_view targets, const_view dnll) {
  if (!dlogits.wanted()) return;
  if (logits.type != dtype::f32 || logits.size() == 0)
    return reference::cross_entropy_gradient(dlogits, logits, targets, dnll);
  std::int64_t const width = logits.dims.back();
  cpu_threading::parallel(logits.dims.rows(), row_grain(width), [&](std::int64_t from, std::int64_t to) {
    std::vector<float> row(static_cast<std::size_t>(width));
    for (std::int64_t r = from; r < to; ++r) {
      auto const target = targets.as<std::int32_t>()[r];
      float const* x = logits.as<float>() + r * width;
      float* out = dlogits.out.as<float>() + r * width;
      if (target < 0) {
        if (!dlogits.accumulate) std::fill(out, out + width, 0.0F);
        continue;
      }
      float const g = dnll.as<float>()[r];
      std::copy(x, x + width, row.begin());
      float const sum = kernels().exp_shifted(row.data(), 1.0F, kernels().maximum(x, width), width);
      kernels().scale(out, row.data(), g / sum, width, dlogits.accumulate);
      out[target] -= g;
    }
  });
}

void cpu::gather_sum(view y, const_view table, const_view index, const_view addend) {
  if (y.type != dtype::f32 || y.size() == 0) return reference::gather_sum(y, table, index, addend);
  std::int64_t const columns = table.dims[2];
  std::int64_t const tables = table.dims[0];
  cpu_threading::parallel(index.dims[0], row_grain(columns * tables), [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t r = from; r < to; ++r) {
      float* out = y.as<float>() + r * columns;
      bool some = false;
      for (std::int64_t k = 0; k < tables; ++k) {
        auto const i = index.as<std::int32_t>()[r * tables + k];
        if (i < 0) continue;
        kernels().scale(out, table.as<float>() + (k * table.dims[1] + i) * columns, 1.0F, columns, some);
        some = true;
      }
      if (!some) std::fill(out, out + columns, 0.0F);
      if (!addend.empty()) kernels().scale(out, addend.as<float>(), 1.0F, columns, true);
    }
  });
}

void cpu::scatter_sum(destination dtable, const_view index, const_view dy) {
  if (!dtable.wanted()) return;
  if (dy.type != dtype::f32 || dy.size() == 0) return reference::scatter_sum(dtable, index, dy);
  if (!dtable.accumulate) fill(dtable.out, 0.0);
  std::int64_t const columns = dtable.out.dims[2];
  std::int64_t const tables = dtable.out.dims[0];
  std::int64_t const rows = index.dims[0];
  // Each thread owns columns, so that rows are added in order whatever the number of threads.
  cpu_threading::parallel(
      columns, std::max<std::int64_t>(32, 16384 / (rows * tables)), [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t k = 0; k < tables; ++k) {
            auto const i = index.as<std::int32_t>()[r * tables + k];
            if (i >= 0)
              kernels().scale(dtable.out.as<float>() + (k * dtable.out.dims[1] + i) * columns + from,
                              dy.as<float>() + r * columns + from, 1.0F, to - from, true);
          }
      });
}

namespace {
/// f(from, to) for columns that a thread owns.
template <class F>
void for_columns(const_view x, F const& f) {
  cpu_threading::parallel(x.dims.back(), std::max<std::int64_t>(16, 16384 / x.dims.rows()),
                          [&](std::int64_t from, std::int64_t to) { f(from, to); });
}
/// The mean and the biased variance of columns from … to − 1.
void moments_of(float* mean, float* variance, const_view x, std::int64_t from, std::int64_t to) {
  std::int64_t const width = x.dims.back();
  std::int64_t const rows = x.dims.rows();
  auto const n = static_cast<std::size_t>(to - from);
  float const* const p = x.as<float>() + from;
  std::vector<double> sum(n, 0.0);
  kernels().column_sums(sum.data(), p, width, rows, to - from);
  for (std::size_t c = 0; c < n; ++c) mean[c] = static_cast<float>(sum[c] / static_cast<double>(rows));
  std::fill(sum.begin(), sum.end(), 0.0);
  kernels().column_squares(sum.data(), p, width, mean, rows, to - from);
  for (std::size_t c = 0; c < n; ++c) variance[c] = static_cast<float>(sum[c] / static_cast<double>(rows));
}
}  // namespace

void cpu::column_moments(view mean, view variance, const_view x) {
  if (x.type != dtype::f32 || x.size() == 0) return reference::column_moments(mean, variance, x);
  for_columns(x, [&](std::int64_t from, std::int64_t to) {
    moments_of(mean.as<float>() + from, variance.as<float>() + from, x, from, to);
  });
}

void cpu::batch_norm(view y, view mean, view variance, const_view x, const_view w, const_view b, double eps) {
  if (x.type != dtype::f32 || x.size() == 0) return reference::batch_norm(y, mean, variance, x, w, b, eps);
  std::int64_t const width = x.dims.back();
  for_columns(x, [&](std::int64_t from, std::int64_t to) {
    auto const n = static_cast<std::size_t>(to - from);
    float* const mu = mean.as<float>() + from;
    float* const var = variance.as<float>() + from;
    moments_of(mu, var, x, from, to);
    std::vector<float> gain(n);
    for (std::size_t c = 0; c < n; ++c)
      gain[c] = w.as<float>()[static_cast<std::size_t>(from) + c] / std::sqrt(var[c] + static_cast<float>(eps));
    for (std::int64_t r = 0; r < x.dims.rows(); ++r) {
      float* const out = y.as<float>() + r * width + from;
      kernels().combine(static_cast<int>(binary::subtract), out, x.as<float>() + r * width + from, mu, to - from,
                        false);
      kernels().combine(static_cast<int>(binary::multiply), out, out, gain.data(), to - from, false);
      kernels().combine(static_cast<int>(binary::add), out, out, b.as<float>() + from, to - from, false);
    }
  });
}

void cpu::batch_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                              const_view variance, const_view w, const_view dy, double eps) {
  if (x.type != dtype::f32 || x.size() == 0)
    return reference::batch_norm_gradient(dx, dw, db, x, mean, variance, w, dy, eps);
  std::int64_t const width = x.dims.back();
  std::int64_t const rows = x.dims.rows();
  auto const* p = x.as<float>();
  auto const* g = dy.as<float>();
  for_columns(x, [&](std::int64_t from, std::int64_t to) {
    auto const n = static_cast<std::size_t>(to - from);
    std::vector<double> sum(n, 0.0);
    std::vector<double> dot(n, 0.0);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < n; ++c) {
        auto const at = from + static_cast<std::int64_t>(c);
        auto const up = static_cast<double>(g[r * width + at]);
        sum[c] += up;
        dot[c] += up * static_cast<double>(p[r * width + at] - mean.as<float>()[at]);
      }
    std::vector<float> gain(n);
    std::vector<float> base(n);
    std::vector<float> slope(n);
    for (std::size_t c = 0; c < n; ++c) {
      auto const at = from + static_cast<std::int64_t>(c);
      double const s = 1.0 / std::sqrt(static_cast<double>(variance.as<float>()[at]) + eps);
      double const scaled = dot[c] * s;
      auto give = [&](destination const& d, double value) {
        if (d.wanted())
          d.out.as<float>()[at] = static_cast<float>(value) + (d.accumulate ? d.out.as<float>()[at] : 0.0F);
      };
      give(dw, scaled);
      give(db, sum[c]);
      gain[c] = static_cast<float>(static_cast<double>(w.as<float>()[at]) * s);
      base[c] = static_cast<float>(sum[c] / static_cast<double>(rows));
      slope[c] = static_cast<float>(s * scaled / static_cast<double>(rows));
    }
    if (!dx.wanted()) return;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < n; ++c) {
        auto const at = r * width + from + static_cast<std::int64_t>(c);
        float const mu = mean.as<float>()[from + static_cast<std::int64_t>(c)];
        float const value = gain[c] * (g[at] - base[c] - (p[at] - mu) * slope[c]);
        float& out = dx.out.as<float>()[at];
        out = dx.accumulate ? out + value : value;
      }
  });
}

}  // namespace ouro
