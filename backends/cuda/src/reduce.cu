// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Sums over axes, in f64: where there is much to sum parts first, by threads that take elements in a fixed order, then the
// parts, so that the bits are the same from run to run.
#include "layout.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// A sum over axes as kept elements times summed ones.
struct reduction {
  layout<2> kept;    // offsets in y and in x
  layout<1> summed;  // more offsets in x
  index chunk;       // summed elements of a part
  index parts;
};

/// Where sums go: a sum of one part to its place in y, others to the parts.
template <class T>
struct sum_place {
  layout<2> kept;
  double* part;
  index parts;
  T* y;
  double factor;
  bool accumulate;
  __device__ void store(index element, double sum) const {
    index at[2];
    kept.locate(element, at);
    put(y[at[0]], static_cast<T>(factor * sum), accumulate);
  }
  __device__ void take(index element, index number, double sum) const {
    if (parts == 1) store(element, sum);
    else part[element * parts + number] = sum;
  }
  /// The sum of an element's parts.
  __device__ void operator()(index element) const {
    double sum = 0;
    for (index p = 0; p < parts; ++p) sum += part[element * parts + p];
    store(element, sum);
  }
};

/// A block for each kept element and part: neighbouring threads take neighbouring summed elements.
template <class T>
__global__ void sum_rows(reduction r, T const* x, sum_place<T> to) {
  __shared__ double sums[warp_size];
  index const element = blockIdx.x / r.parts;
  index const from = blockIdx.x % r.parts * r.chunk;
  index const end = from + r.chunk < r.summed.size ? from + r.chunk : r.summed.size;
  index at[2];
  r.kept.locate(element, at);
  double sum = 0;
  for (index i = from + threadIdx.x; i < end; i += blockDim.x) {
    index more[1];
    r.summed.locate(i, more);
    sum += static_cast<double>(x[at[1] + more[0]]);
  }
  sum = block_sum(sum, sums);
  if (threadIdx.x == 0) to.take(element, blockIdx.x % r.parts, sum);
}

/// A thread for each kept element and part: neighbouring threads take neighbouring kept elements.
template <class T>
__global__ void sum_columns(reduction r, T const* x, sum_place<T> to) {
  for (index i = thread_number(); i < r.kept.size * r.parts; i += thread_count()) {
    index const element = i % r.kept.size;
    index const from = i / r.kept.size * r.chunk;
    index const end = from + r.chunk < r.summed.size ? from + r.chunk : r.summed.size;
    index at[2];
    r.kept.locate(element, at);
    double sum = 0;
    for (index j = from; j < end; ++j) {
      index more[1];
      r.summed.locate(j, more);
      sum += static_cast<double>(x[at[1] + more[0]]);
    }
    to.take(element, i / r.kept.size, sum);
  }
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::reduce_sum(destination y, const_view x, double factor) {
  shape inner = x.dims;
  for (int i = 0; i < x.dims.rank(); ++i)
    if (y.out.dims[i] != 1 || x.dims[i] == 1) inner[i] = 1;
  reduction r{{y.out.dims, {&y.out.steps, &x.steps}}, {inner, {&x.steps}}, 0, 1};
  if (r.kept.size == 0) return;
  bool const by_column = r.kept.rank > 0 && r.kept.innermost(1) == 1 && r.kept.size >= warp_size;
  // Enough parts to keep the device busy, each of enough elements to be worth its place.
  index const threads = by_column ? r.kept.size : r.kept.size * each_threads;
  index const wanted = divide_up(busy_blocks() * each_threads, threads);
  index const most = divide_up(r.summed.size, by_column ? 16 : 4 * each_threads);
  r.chunk = divide_up(r.summed.size, wanted < most ? wanted : most > 0 ? most : 1);
  r.parts = r.chunk > 0 ? divide_up(r.summed.size, r.chunk) : 1;
  device_array<double> const part(r.parts > 1 ? r.kept.size * r.parts : 0);
  with_real(x.type, "reduce_sum", [&]<class T>(std::type_identity<T>) {
    sum_place<T> const to{r.kept, part.data(), r.parts, y.out.as<T>(), factor, y.accumulate};
    index const sums = r.kept.size * r.parts;
    if (by_column)
      launch("reduce_sum", sum_columns<T>, divide_up(sums, each_threads), each_threads, 0, r, x.as<T>(), to);
    else launch("reduce_sum", sum_rows<T>, sums, each_threads, 0, r, x.as<T>(), to);
    if (r.parts > 1) for_count("reduce_sum", r.kept.size, to);
  });
}

}  // namespace ouro
