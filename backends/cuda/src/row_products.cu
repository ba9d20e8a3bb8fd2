// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
#include "row_products.hpp"

#include "packs.hpp"

namespace ouro::cuda_kernels {
namespace {

constexpr int row_threads = 128;
constexpr int most_walking_threads = 512;
constexpr int in_flight = 8;  // packs of b that a thread has on their way at a time

/// Every `apart`th pack of the `left` numbers or rows that there still are, all on their way at once; zeroes behind the
/// last of them. They lie `step` apart in memory.
template <int Each, class S>
__device__ void load_run(pack<S, Each> (&x)[in_flight], S const* from, index step, index left, index apart) {
  OURO_UNROLL
  for (int u = 0; u < in_flight; ++u) x[u] = u * apart < left ? load<Each>(from + u * step) : pack<S, Each>{};
}

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
    constexpr int apart = warp_size * Each;
    for (index i = lane * Each; i < p.inner; i += in_flight * apart) {
      pack<W, Each> w[in_flight];
      load_run(w, b + i, apart, p.inner - i, apart);
      OURO_UNROLL
      for (int r = 0; r < few_rows; ++r) {
        if (r >= p.rows) break;
        pack<T, Each> x[in_flight];
        load_run(x, a + r * p.a_row + i, apart, p.inner - i, apart);
        OURO_UNROLL
        for (int u = 0; u < in_flight; ++u) {
          OURO_UNROLL
          for (int e = 0; e < Each; ++e) sum[r] += x[u].values[e] * static_cast<T>(w[u].values[e]);
        }
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

/// How many threads take a row of b's numbers in a tile, which is as wide as a warp.
template <int Each>
constexpr int tile_lanes = warp_size / Each;

/// Rows of b are contiguous: a block for each tile of them, whose walkers take a row each at a time. It has at least as
/// many warps as c has rows.
template <class T, class W, int Each>
__global__ void __launch_bounds__(most_walking_threads) add_rows(row_problem<T, W> p) {
  __shared__ T sums[most_walking_threads / warp_size][few_rows][warp_size];
  constexpr int lanes = tile_lanes<Each>;
  int const warps = static_cast<int>(blockDim.x) / warp_size;
  int const warp = static_cast<int>(threadIdx.x) / warp_size;
  int const walkers = static_cast<int>(blockDim.x) / lanes;
  index const tiles = divide_up(p.columns, warp_size);
  index const batch = blockIdx.x / tiles;
  index const first = blockIdx.x % tiles * warp_size;
  int const place = static_cast<int>(threadIdx.x) % lanes * Each;
  T sum[few_rows][Each] = {};
  if (first + place < p.columns) {
    T const* const a = p.a + batch * p.a_batch;
    W const* const b = p.b + batch * p.b_batch + first + place;
    for (index i = static_cast<int>(threadIdx.x) / lanes; i < p.inner; i += in_flight * walkers) {
      pack<W, Each> w[in_flight];
      load_run(w, b + i * p.b_step, walkers * p.b_step, p.inner - i, walkers);
      OURO_UNROLL
      for (int r = 0; r < few_rows; ++r) {
        if (r >= p.rows) break;
        pack<T, 1> x[in_flight];
        load_run(x, a + r * p.a_row + i, walkers, p.inner - i, walkers);
        OURO_UNROLL
        for (int u = 0; u < in_flight; ++u) {
          OURO_UNROLL
          for (int e = 0; e < Each; ++e) sum[r][e] += x[u].values[0] * static_cast<T>(w[u].values[e]);
        }
      }
    }
  }
  OURO_UNROLL
  for (int r = 0; r < few_rows; ++r) {
    if (r >= p.rows) break;
    OURO_UNROLL
    for (int e = 0; e < Each; ++e) {
      for (int step = lanes; step < warp_size; step *= 2) sum[r][e] += __shfl_xor_sync(everybody, sum[r][e], step);
      if (lane_number() < lanes) sums[warp][r][place + e] = sum[r][e];
    }
  }
  __syncthreads();
  index const column = first + lane_number();
  if (warp >= p.rows || column >= p.columns) return;
  T total = 0;
  for (int other = 0; other < warps; ++other) total += sums[other][warp][lane_number()];
  p.finish(batch, warp, column, total);
}

constexpr index longest_sum = 2048;  // of a block's walkers: a library cuts longer ones into parts

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
  constexpr int each = pack_width<T>;
  auto whole = [](index n) { return n % each == 0; };
  bool const aligned = whole(p.b_step) && whole(p.b_batch) && aligned_for(p.b, each);
  if (dots) {
    bool const wide = aligned && whole(p.inner) && whole(p.a_row) && whole(p.a_batch) && aligned_for(p.a, each);
    index const blocks = p.tiles(row_threads / warp_size);
    return launch("matmul of few rows", wide ? dot_columns<T, W, each> : dot_columns<T, W, 1>, blocks, row_threads, 0,
                  p);
  }
  bool const wide = aligned && whole(p.columns);
  int const lanes = wide ? tile_lanes<each> : tile_lanes<1>;
  int threads = row_threads;
  while (threads < most_walking_threads && threads / lanes * in_flight < p.inner) threads *= 2;
  launch("matmul of few rows", wide ? add_rows<T, W, each> : add_rows<T, W, 1>, p.tiles(warp_size), threads, 0, p);
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
