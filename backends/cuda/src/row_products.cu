// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
#include "row_products.hpp"

#include "packs.hpp"

namespace ouro::cuda_kernels {
namespace {

constexpr int row_threads = 128;

/// What a kernel needs of c (+)= alpha · a b + bias: (B,M,K)(B,K,N), M at most few_rows.
template <class T, class W>
struct row_problem {
  T* c;
  T const* a;
  W const* b;
  T const* bias;
  index batches, rows, columns, inner;
  index c_batch, c_row, a_batch, a_row, b_batch, b_step;  // b_step: from a contiguous run of b to the next
  T alpha;
  bool accumulate;

  [[nodiscard]] index tiles(index each) const { return batches * divide_up(columns, each); }
  __device__ void finish(index batch, index row, index column, T sum) const {
    T const value = alpha * sum + (bias == nullptr ? T(0) : bias[column]);
    put(c[batch * c_batch + row * c_row + column], value, accumulate);
  }
};

/// Columns of b are contiguous, as those of a transposed weight: a warp for each of them. `Each` numbers at a time.
template <class T, class W, int Each>
__global__ void __launch_bounds__(row_threads) dot_columns(row_problem<T, W> p) {
  constexpr int warps = row_threads / warp_size;
  index const tiles = divide_up(p.columns, warps);
  index const batch = blockIdx.x / tiles;
  index const column = blockIdx.x % tiles * warps + static_cast<int>(threadIdx.x) / warp_size;
  int const lane = lane_number();
  T sum[few_rows] = {};
  if (column < p.columns) {
    T const* const a = p.a + batch * p.a_batch;
    W const* const b = p.b + batch * p.b_batch + column * p.b_step;
    OURO_UNROLL_BY_8
    for (index i = lane * Each; i < p.inner; i += warp_size * Each) {
      auto const w = load<Each>(b + i);
      OURO_UNROLL
      for (int r = 0; r < few_rows; ++r) {
        if (r >= p.rows) break;
        auto const x = load<Each>(a + r * p.a_row + i);
        OURO_UNROLL
        for (int e = 0; e < Each; ++e) sum[r] += x.values[e] * static_cast<T>(w.values[e]);
      }
    }
  }
  OURO_UNROLL
  for (int r = 0; r < few_rows; ++r) {
    if (r >= p.rows) break;
    T const total = warp_sum(sum[r]);
    if (lane == 0 && column < p.columns) p.finish(batch, r, column, total);
  }
}

/// Rows of b are contiguous: a thread for each column.
template <class T, class W>
__global__ void __launch_bounds__(row_threads) add_rows(row_problem<T, W> p) {
  index const tiles = divide_up(p.columns, row_threads);
  index const batch = blockIdx.x / tiles;
  index const column = blockIdx.x % tiles * row_threads + threadIdx.x;
  if (column >= p.columns) return;
  T const* const a = p.a + batch * p.a_batch;
  W const* const b = p.b + batch * p.b_batch + column;
  T sum[few_rows] = {};
  OURO_UNROLL_BY_8
  for (index i = 0; i < p.inner; ++i) {
    T const w = static_cast<T>(b[i * p.b_step]);
    OURO_UNROLL
    for (int r = 0; r < few_rows; ++r)
      if (r < p.rows) sum[r] += a[r * p.a_row + i] * w;
  }
  OURO_UNROLL
  for (int r = 0; r < few_rows; ++r)
    if (r < p.rows) p.finish(batch, r, column, sum[r]);
}

constexpr index longest_sum = 1024;  // of a single thread

bool by_columns(const_view const& b) { return b.steps[-2] == 1 || b.dims[-2] == 1; }
bool by_rows(const_view const& b) { return b.steps[-1] == 1 || b.dims[-1] == 1; }

template <class T, class W>
void multiply_rows(destination const& c, const_view const& a, const_view const& b, double alpha,
                   const_view const& bias) {
  bool const batched = a.dims.rank() == 3;
  auto first = [&](shape const& steps) { return batched ? steps[0] : 0; };
  bool const dots = by_columns(b);
  row_problem<T, W> const p{c.out.as<T>(),
                            a.as<T>(),
                            b.as<W>(),
                            dense_or_none<T>(bias),
                            batched ? a.dims[0] : 1,
                            a.dims[-2],
                            b.dims[-1],
                            a.dims[-1],
                            first(c.out.steps),
                            c.out.steps[-2],
                            first(a.steps),
                            a.steps[-2],
                            first(b.steps),
                            dots ? b.steps[-1] : b.steps[-2],
                            static_cast<T>(alpha),
                            c.accumulate};
  if (!dots) return launch("matmul of few rows", add_rows<T, W>, p.tiles(row_threads), row_threads, 0, p);
  constexpr int each = pack_width<T>;
  auto whole = [](index n) { return n % each == 0; };
  bool const wide = whole(p.inner) && whole(p.a_row) && whole(p.a_batch) && whole(p.b_step) && whole(p.b_batch) &&
                    aligned_for(p.a, each) && aligned_for(p.b, each);
  index const blocks = p.tiles(row_threads / warp_size);
  launch("matmul of few rows", wide ? dot_columns<T, W, each> : dot_columns<T, W, 1>, blocks, row_threads, 0, p);
}

}  // namespace

bool has_few_rows(const_view const& c, const_view const& a, const_view const& b) {
  bool const types = is_floating(a.type) && c.type == a.type && (b.type == a.type || b.type == dtype::bf16);
  bool const rows =
      a.dims[-2] <= few_rows && (a.steps[-1] == 1 || a.dims[-1] == 1) && (c.steps[-1] == 1 || c.dims[-1] == 1);
  return types && rows && (by_columns(b) || (by_rows(b) && a.dims[-1] <= longest_sum));
}

void row_products(destination const& c, const_view const& a, const_view const& b, double alpha,
                  const_view const& bias) {
  with_real(a.type, "matmul", [&]<class T>(std::type_identity<T>) {
    if (b.type == dtype::bf16) multiply_rows<T, bf16>(c, a, b, alpha, bias);
    else multiply_rows<T, T>(c, a, b, alpha, bias);
  });
}

}  // namespace ouro::cuda_kernels
