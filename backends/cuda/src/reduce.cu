// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Sums over axes, in f64: by threads that take elements in a fixed order. Where there is much to sum blocks take parts of
// it, and the last one to end adds up the parts in their order, so that the bits are the same from run to run.
#include "layout.hpp"
#include "packs.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// A sum over axes as kept elements times summed ones: places in packs of neighbours, which are kept ones or summed ones.
struct reduction {
  layout<2> kept;    // offsets in y and in x
  layout<1> summed;  // more offsets in x
  index chunk = 0;   // summed places of a part
  index parts = 1;
  int team = 0;  // neighbouring threads that take neighbouring places

  void cut(index most) {
    parts = most > 1 ? most : 1;
    chunk = divide_up(summed.size, parts);
    if (chunk > 0) parts = divide_up(summed.size, chunk);
  }
  [[nodiscard]] __device__ index from(index part) const { return part * chunk; }
  [[nodiscard]] __device__ index end(index part) const {
    return from(part) + chunk < summed.size ? from(part) + chunk : summed.size;
  }
};

/// Where sums go: the factor times them to y.
template <class T>
struct sum_place {
  elements<T, void> y;
  double factor;
  bool accumulate;
  __device__ void operator()(index at, double sum) const {
    using real = real_of<T>;
    pack<real, 1> result;
    if (accumulate) result = y.template reals<1>(y.template load_raw<1>(at));
    put(result.values[0], static_cast<real>(factor * sum), accumulate);
    y.template store_reals<1>(at, result);
  }
};

/// What a sum over elements of T is written as: as f64, or as any type that is computed in f32.
template <class T>
using sum_type = std::conditional_t<std::is_same_v<T, double>, double, inner>;

/// The places of x that belong to a kept one.
template <class T>
struct summed_places {
  layout<1> const& summed;
  T const* x;
  __device__ T const* operator()(index i) const {
    index at[1];
    summed.locate(i, at);
    return x + at[0];
  }
};

/// Neighbouring threads take neighbouring kept elements, `team` at a time.
template <int W, class T>
__global__ void __launch_bounds__(pack_threads, 3)
    sum_columns(reduction r, T const* x, sum_place<sum_type<T>> to, double* part, unsigned* ticket) {
  unsigned const tile = blockIdx.x / static_cast<unsigned>(r.parts);
  index const number = blockIdx.x % static_cast<unsigned>(r.parts);
  int const walker = static_cast<int>(threadIdx.x) / r.team;
  int const walkers = pack_threads / r.team;
  index const first = static_cast<index>(tile) * r.team;
  index const column = first + static_cast<int>(threadIdx.x) % r.team;
  bool const mine = column < r.kept.size;
  index at[2] = {};
  if (mine) r.kept.locate(column, at);
  double sum[W] = {};
  if (mine) add_packs(sum, r.from(number) + walker, r.end(number), walkers, summed_places<T>{r.summed, x + at[1]});
  auto finish = [&](int lane, int e, double total) {
    if (first + lane >= r.kept.size) return;
    index place[2];
    r.kept.locate(first + lane, place);
    to(place[0] + e * (r.kept.innermost(0) / W), total);
  };
  if (r.parts == 1) return walkers_sum(sum, r.team, finish);
  index const step = r.kept.size * W;
  walkers_sum(sum, r.team, [&](int lane, int e, double total) {
    if (first + lane < r.kept.size) part[number * step + (first + lane) * W + e] = total;
  });
  if (!last_of(ticket + tile, r.parts)) return;
  double all[W] = {};
  if (mine) add_packs(all, walker, r.parts, walkers, [&](index p) { return part + (p * step + column * W); });
  walkers_sum(all, r.team, finish);
}

/// Neighbouring threads take neighbouring summed elements: a team, which is a warp or a block, for each kept element and
/// part.
template <int W, class T>
__global__ void sum_rows(reduction r, T const* x, sum_place<sum_type<T>> to, double* part, unsigned* ticket) {
  __shared__ double sums[warp_size];
  auto const team = static_cast<unsigned>(r.team);
  unsigned const sum_and_part = blockIdx.x * (blockDim.x / team) + threadIdx.x / team;
  unsigned const element = sum_and_part / static_cast<unsigned>(r.parts);
  index const number = sum_and_part % static_cast<unsigned>(r.parts);
  int const place = static_cast<int>(threadIdx.x) % r.team;
  bool const mine = element < r.kept.size;
  auto team_sum = [&](double term) { return r.team == warp_size ? warp_sum(term) : block_sum(term, sums); };
  index at[2] = {};
  double terms[W] = {};
  if (mine) {
    r.kept.locate(element, at);
    add_packs(terms, r.from(number) + place, r.end(number), r.team, summed_places<T>{r.summed, x + at[1]});
  }
  double sum = 0;
  for (int e = 0; e < W; ++e) sum += terms[e];
  sum = team_sum(sum);
  if (r.parts > 1) {
    double* const parts = part + element * r.parts;
    if (place == 0) parts[number] = sum;
    if (!last_of(ticket + element, r.parts)) return;
    double more[1] = {};
    add_packs(more, place, r.parts, r.team, [&](index p) { return parts + p; });
    sum = team_sum(more[0]);
  }
  if (mine && place == 0) to(at[0], sum);
}

/// Threads that take neighbouring columns: as few as there are; no more than a warp, unless there are so few rows that
/// nobody would be left to take them.
int columns_team(index columns, index rows) {
  int team = pack_threads;
  while (team > 1 && (team / 2 >= columns || (team > warp_size && rows * team > 8 * pack_threads))) team /= 2;
  return team;
}

/// How many parts to cut the rows of a tile of columns into. A walker's time goes with its rows of a part, and then, for the
/// last block, with its share of the parts: both are short where there are as many parts as rows in each.
index balanced_parts(index rows, int walkers) {
  auto const balanced = static_cast<index>(std::sqrt(static_cast<double>(rows)));
  index const most = rows / (4 * walkers);  // four loads on their way for each walker
  return balanced < most ? balanced : most;
}

/// Sums over elements of T at places that have 32 bits.
template <class T>
void sum_elements(destination const& y, const_view const& x, double factor, reduction r) {
  bool const by_column = r.kept.innermost(1) == 1;
  constexpr int width = pack_width<T>;
  auto const* from = x.as<T>();
  auto whole_packs = [&](auto const& own, int n, auto const& other, int m) {
    return own.dense(n, width) && own.row() % width == 0 && other.multiples(m, width) && aligned_for(from, width);
  };
  bool const packed = by_column ? whole_packs(r.kept, 1, r.summed, 0) : whole_packs(r.summed, 0, r.kept, 1);
  with_width<T>(packed, [&]<int W>(width_of<W>) {
    if (by_column) r.kept = r.kept.in_packs(W);
    else r.summed = r.summed.in_packs(W);
    // A team for each tile of columns or each row; where there are few, parts of enough places to be worth a block.
    bool const warps = r.summed.size <= 16 * warp_size || r.kept.size >= busy_blocks();
    r.team = by_column ? columns_team(r.kept.size, r.summed.size) : warps ? warp_size : pack_threads;
    index const sums = by_column ? divide_up(r.kept.size, r.team) : r.kept.size;
    index const most = by_column ? balanced_parts(r.summed.size, pack_threads / r.team)
                                 : (warps ? 1 : divide_up(r.summed.size, 8 * pack_threads));
    static index const at_once = resident_blocks(sum_columns<W, T>, pack_threads);  // a second wave would be short
    index const blocks = by_column ? at_once : busy_blocks();
    r.cut(most * sums < blocks ? most : blocks / sums);
    device_array<double> const part(r.parts > 1 ? r.kept.size * r.parts * (by_column ? W : 1) : 0);
    index const teams_of_block = by_column ? 1 : pack_threads / r.team;
    launch("reduce_sum", by_column ? sum_columns<W, T> : sum_rows<W, T>, divide_up(sums * r.parts, teams_of_block),
           pack_threads, 0, r, from, sum_place<sum_type<T>>{elements<sum_type<T>, void>(y.out), factor, y.accumulate},
           part.data(), tickets(r.parts > 1 ? sums : 0));
  });
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::reduce_sum(destination y, const_view x, double factor) {
  shape summed = x.dims;
  for (int i = 0; i < x.dims.rank(); ++i)
    if (y.out.dims[i] != 1 || x.dims[i] == 1) summed[i] = 1;
  if (x.size() > most_located) {
    cut const halves(x.dims);
    bool const is_kept = summed[halves.axis] == 1;
    reduce_sum({is_kept ? halves.front(y.out) : y.out, y.accumulate}, halves.front(x), factor);
    reduce_sum({is_kept ? halves.rest(y.out) : y.out, y.accumulate || !is_kept}, halves.rest(x), factor);
    return;
  }
  reduction const r{{y.out.dims, {&y.out.steps, &x.steps}}, {summed, {&x.steps}}};
  if (r.kept.size == 0) return;
  if (x.type == dtype::bf16) return sum_elements<bf16>(y, x, factor, r);
  with_real(x.type, "reduce_sum", [&]<class T>(std::type_identity<T>) { sum_elements<T>(y, x, factor, r); });
}

}  // namespace ouro
