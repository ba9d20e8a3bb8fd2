// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Table look-up, and its gradient without atomics.
#include "layout.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct gather_values {
  T* y;
  T const* table;
  std::int32_t const* at;
  index tables;
  index entries;
  index columns;
  __device__ void operator()(index i) const {
    index const r = i / columns;
    index const c = i % columns;
    T sum = 0;
    for (index k = 0; k < tables; ++k) {
      std::int32_t const entry = at[r * tables + k];
      if (entry >= 0) sum += table[(k * entries + entry) * columns + c];
    }
    y[i] = sum;
  }
};

inline constexpr int scatter_threads = 256;

/// A block for each entry of a table and each run of columns: it looks for the rows that name the entry, and each thread
/// adds up its column of them in their order.
template <class T>
__global__ void scatter_kernel(T* dtable, std::int32_t const* at, T const* dy, index rows, index tables, index entries,
                               index columns, bool accumulate) {
  __shared__ bool names[scatter_threads];
  index const tiles = divide_up(columns, scatter_threads);
  index const row_of_table = blockIdx.x / tiles;  // k · entries + entry
  index const k = row_of_table / entries;
  index const entry = row_of_table % entries;
  index const c = blockIdx.x % tiles * scatter_threads + threadIdx.x;
  T sum = 0;
  for (index from = 0; from < rows; from += scatter_threads) {
    index const mine = from + threadIdx.x;
    bool const found = mine < rows && at[mine * tables + k] == entry;
    names[threadIdx.x] = found;
    if (__syncthreads_or(found ? 1 : 0) != 0 && c < columns)
      for (index r = from; r < rows && r < from + scatter_threads; ++r)
        if (names[r - from]) sum += dy[r * columns + c];
    __syncthreads();
  }
  if (c < columns) put(dtable[row_of_table * columns + c], sum, accumulate);
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::gather_sum(view y, const_view table, const_view at) {
  with_real(y.type, "gather_sum", [&]<class T>(std::type_identity<T>) {
    for_count(
        "gather_sum", at.dims[0] * table.dims[2],
        gather_values<T>{y.as<T>(), table.as<T>(), at.as<std::int32_t>(), table.dims[0], table.dims[1], table.dims[2]});
  });
}

void cuda::scatter_sum(destination dtable, const_view at, const_view dy) {
  shape const& d = dtable.out.dims;
  index const blocks = d[0] * d[1] * divide_up(d[2], scatter_threads);
  with_real(dy.type, "scatter_sum", [&]<class T>(std::type_identity<T>) {
    launch("scatter_sum", scatter_kernel<T>, blocks, scatter_threads, 0, dtable.out.as<T>(), at.as<std::int32_t>(),
           dy.as<T>(), at.dims[0], d[0], d[1], d[2], dtable.accumulate);
  });
}

}  // namespace ouro
