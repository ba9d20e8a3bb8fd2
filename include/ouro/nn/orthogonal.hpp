// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Random matrices that keep lengths, for initialisation.
#pragma once

#include <vector>

#include <ouro/nn/genesis.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// A random (rows,columns) matrix whose rows, or whose columns where there are more rows, are orthogonal and of length
/// `gain`: Gaussian vectors made orthonormal (Saxe, McClelland & Ganguli, 2014). Gram-Schmidt in f64 by panels: what a
/// panel shares with the rows before it is removed by products; inside it the rows go one by one.
template <Backend B>
tensor<B> orthogonal(genesis<B>& g, shape const& dims, double gain = 1.0) {
  if (g.blank) return g.zeros(dims);
  constexpr std::int64_t panel = 32;
  bool const tall = dims[0] > dims[1];
  std::int64_t const count = elementary::min(dims[0], dims[1]);
  std::int64_t const length = elementary::max(dims[0], dims[1]);
  auto q = ouro::normal<B>({count, length}, dtype::f64, g.random.next());
  view const all = q.write();
  for (std::int64_t start = 0; start < count; start += panel) {
    std::int64_t const rows = elementary::min(panel, count - start);
    view const now = all.slice(0, start, rows);
    const_view const before = all.slice(0, 0, start);
    if (start > 0) {
      tensor<B> shared({rows, start}, dtype::f64);
      B::matmul(shared.write(), now, before.transpose(0, 1), 1.0);
      B::matmul({now, true}, shared.read(), before, -1.0);
    }
    auto const n = static_cast<std::size_t>(length);
    std::vector<double> x(static_cast<std::size_t>(rows) * n);
    view const host(x.data(), dtype::f64, {rows, length});
    B::download(host, now);
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
      double* const row = x.data() + i * n;
      auto dot = [&](double const* other) {
        double sum = 0;
        for (std::size_t k = 0; k < n; ++k) sum += row[k] * other[k];
        return sum;
      };
      for (std::size_t j = 0; j < i; ++j) {
        double const* const other = x.data() + j * n;
        double const part = dot(other);
        for (std::size_t k = 0; k < n; ++k) row[k] -= part * other[k];
      }
      double const norm = elementary::sqrt(dot(row));
      for (std::size_t k = 0; k < n; ++k) row[k] /= norm;
    }
    B::upload(now, host);
  }
  tensor<B> result(dims, g.type);
  B::scale({all, false}, q.copy().read(), gain);
  B::copy(result.write(), tall ? const_view(all.transpose(0, 1)) : const_view(all), false);
  return result;
}

}  // namespace ouro
