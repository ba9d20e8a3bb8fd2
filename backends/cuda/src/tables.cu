// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Table look-up, and its gradient without atomics: the rows of each table are put in the order of the entries that they
// name, stably; then that order is cut into runs of equal length, whose sums end where the entry changes, so that an entry
// that many rows name is the work of many threads.
#include "layout.hpp"
#include "packs.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <int W, class T>
struct gather_values {
  elements<stored_beside<T>, void> y;
  T const* table;
  std::int32_t const* at;
  T const* addend;  // (columns), or absent
  index tables;
  index entries;
  index columns;
  divider by_packs;
  __device__ void operator()(index i) const {
    index const r = by_packs(static_cast<std::uint32_t>(i));
    index const c = i * W - r * columns;
    pack<T, W> sum;
    constexpr int in_flight = 4;
    for (index from = 0; from < tables; from += in_flight) {
      pack<T, W> x[in_flight];
      OURO_UNROLL
      for (int u = 0; u < in_flight; ++u) {
        index const k = from + u;
        std::int32_t const entry = k < tables ? at[r * tables + k] : -1;
        if (entry >= 0 && entry < entries) x[u] = load<W>(table + (k * entries + entry) * columns + c);
        if (entry >= entries)
          for (int e = 0; e < W; ++e) x[u].values[e] = T(NAN);
      }
      OURO_UNROLL
      for (int u = 0; u < in_flight; ++u)
        for (int e = 0; e < W; ++e) sum.values[e] += x[u].values[e];
    }
    if (addend != nullptr) {
      auto const more = load<W>(addend + c);
      OURO_UNROLL
      for (int e = 0; e < W; ++e) sum.values[e] += more.values[e];
    }
    y.template store_reals<W>(i * W, sum);
  }
};

/// A row and the entry of a table that it names.
struct alignas(8) named_entry {
  std::int32_t row;
  std::int32_t entry;
};

/// The rows of every table in the order of their entries.
struct entry_order {
  index rows;
  index tables;
  index entries;
  index chunk;  // rows that one block counts and places
  index chunks;
  std::int32_t const* at;
  std::int32_t* before;  // (tables, chunks, entries): rows of the chunks before that name the entry
  std::int32_t* starts;  // (tables, entries + 1): where the rows of an entry begin in the order
  named_entry* order;    // (tables, rows)
};

inline constexpr int batch = 512;  // rows that a block looks at together

/// f(row) for the rows of a chunk that name `entry`, in their order; every thread of the block comes with its own entry.
template <class F>
__device__ void for_rows_of(entry_order const& o, index table, index chunk, index entry, F const& f) {
  alignas(16) __shared__ std::int32_t names[batch];
  index const end = (chunk + 1) * o.chunk < o.rows ? (chunk + 1) * o.chunk : o.rows;
  for (index from = chunk * o.chunk; from < end; from += batch) {
    __syncthreads();  // who is still reading the batch before
    for (int i = static_cast<int>(threadIdx.x); i < batch; i += static_cast<int>(blockDim.x))
      names[i] = from + i < end ? o.at[(from + i) * o.tables + table] : -1;
    __syncthreads();
    for (int i = 0; i < batch; i += 4) {
      pack<std::int32_t, 4> const four = load<4>(names + i);
      OURO_UNROLL
      for (int e = 0; e < 4; ++e)
        if (four.values[e] == entry) f(from + i + e);
    }
  }
}

/// The sum over the threads of a block up to and with this one, and over all; `sums` has room for one number a warp.
__device__ std::int32_t running_sum(std::int32_t x, std::int32_t* sums, std::int32_t& all) {
  int const lane = lane_number();
  for (int step = 1; step < warp_size; step *= 2) {
    std::int32_t const other = __shfl_sync(everybody, x, lane >= step ? lane - step : lane);
    if (lane >= step) x += other;
  }
  __syncthreads();  // who is still reading what was there before
  if (lane == warp_size - 1) sums[threadIdx.x / warp_size] = x;
  __syncthreads();
  all = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / warp_size; ++w) {
    if (w == static_cast<int>(threadIdx.x) / warp_size) x += all;
    all += sums[w];
  }
  return x;
}

/// Makes the counts of each chunk those of the chunks before it; returns the sum.
__device__ std::int32_t add_up_chunks(std::int32_t* counts, index chunks, index step) {
  constexpr int in_flight = 8;
  std::int32_t sum = 0;
  for (index from = 0; from < chunks; from += in_flight) {
    std::int32_t here[in_flight] = {};
    OURO_UNROLL
    for (int u = 0; u < in_flight; ++u)
      if (from + u < chunks) here[u] = counts[(from + u) * step];
    OURO_UNROLL
    for (int u = 0; u < in_flight; ++u) {
      if (from + u < chunks) counts[(from + u) * step] = sum;
      sum += here[u];
    }
  }
  return sum;
}

/// A block for each table and chunk counts rows by entry; the last block of a table finds where entries begin.
__global__ void count_entries(entry_order o, unsigned* ticket) {
  __shared__ std::int32_t sums[warp_size];
  index const table = blockIdx.x / static_cast<unsigned>(o.chunks);
  index const chunk = blockIdx.x % static_cast<unsigned>(o.chunks);
  std::int32_t* const before = o.before + table * o.chunks * o.entries;
  for (index first = 0; first < o.entries; first += blockDim.x) {
    index const entry = first + threadIdx.x;
    std::int32_t count = 0;
    for_rows_of(o, table, chunk, entry, [&](index) { ++count; });
    if (entry < o.entries) before[chunk * o.entries + entry] = count;
  }
  if (!last_of(ticket + table, o.chunks)) return;
  std::int32_t* const starts = o.starts + table * (o.entries + 1);
  if (threadIdx.x == 0) starts[0] = 0;
  std::int32_t start = 0;
  for (index first = 0; first < o.entries; first += blockDim.x) {
    index const entry = first + threadIdx.x;
    std::int32_t const count = entry < o.entries ? add_up_chunks(before + entry, o.chunks, o.entries) : 0;
    std::int32_t all = 0;
    std::int32_t const end = start + running_sum(count, sums, all);
    if (entry < o.entries) starts[entry + 1] = end;
    start += all;
  }
}

__global__ void place_rows(entry_order o) {
  index const table = blockIdx.x / static_cast<unsigned>(o.chunks);
  index const chunk = blockIdx.x % static_cast<unsigned>(o.chunks);
  for (index first = 0; first < o.entries; first += blockDim.x) {
    index const entry = first + threadIdx.x;
    named_entry* to = o.order + table * o.rows;
    if (entry < o.entries)
      to += o.starts[table * (o.entries + 1) + entry] + o.before[(table * o.chunks + chunk) * o.entries + entry];
    for_rows_of(o, table, chunk, entry < o.entries ? entry : -2, [&](index row) {
      *to++ = {static_cast<std::int32_t>(row), static_cast<std::int32_t>(entry)};
    });
  }
}

/// Sums of runs of the order. An entry whose rows lie in one run is done there; others leave a part in each run, at its
/// front if rows of the entry come before, else at its back.
template <class T>
struct run_sums {
  static constexpr index run = 32;
  entry_order o;
  index runs;  // of a table
  index columns;
  T* parts;  // (tables, runs, 2, columns)
  T* dtable;
  bool accumulate;

  [[nodiscard]] __device__ T* part(index table, index number, bool back) const {
    return parts + ((table * runs + number) * 2 + (back ? 1 : 0)) * columns;
  }
  [[nodiscard]] __device__ T* sum_of_entry(index table, index entry) const {
    return dtable + (table * o.entries + entry) * columns;
  }
};

/// A thread for each run and pack of columns. Every table reads all of dy: the runs of all of them take one tile of its
/// columns before the next, which is still in the cache for most of them.
template <int W, class T>
struct sum_run {
  run_sums<T> s;
  elements<stored_beside<T>, void const> dy;
  index tile;  // packs
  divider by_tile;
  divider by_all_runs;
  divider by_runs;

  __device__ void operator()(index i) const {
    std::uint32_t const tile_and_run = by_tile(static_cast<std::uint32_t>(i));
    std::uint32_t const tile_number = by_all_runs(tile_and_run);
    index const run = tile_and_run - tile_number * s.runs * s.o.tables;
    index const c = (tile_number * tile + i - tile_and_run * tile) * W;
    if (c >= s.columns) return;
    index const table = by_runs(static_cast<std::uint32_t>(run));
    index const number = run - table * s.runs;
    named_entry const* order = s.o.order + table * s.o.rows;
    index const rows = s.o.starts[table * (s.o.entries + 1) + s.o.entries];
    index const from = number * s.run;
    index const end = from + s.run < rows ? from + s.run : rows;
    if (from >= end) return;
    constexpr int in_flight = 8;
    double sum[W] = {};
    std::int32_t entry = order[from].entry;
    bool front = from > 0 && order[from - 1].entry == entry;
    auto finish = [&](bool back) {
      pack<T, W> result;
      OURO_UNROLL
      for (int e = 0; e < W; ++e) {
        result.values[e] = static_cast<T>(sum[e]);
        sum[e] = 0;
      }
      if (front || back) return store<W>(s.part(table, number, !front) + c, result);
      T* const to = s.sum_of_entry(table, entry) + c;
      if (s.accumulate) {
        pack<T, W> const old = load<W>(to);
        OURO_UNROLL
        for (int e = 0; e < W; ++e) result.values[e] += old.values[e];
      }
      store<W>(to, result);
    };
    for (index p = from; p < end; p += in_flight) {
      named_entry named[in_flight];
      typename elements<stored_beside<T>, void const>::template raw<W> x[in_flight];
      OURO_UNROLL
      for (int u = 0; u < in_flight; ++u)
        if (p + u < end) named[u] = order[p + u];
      OURO_UNROLL
      for (int u = 0; u < in_flight; ++u)
        if (p + u < end) x[u] = dy.template load_raw<W>(named[u].row * s.columns + c);
      OURO_UNROLL
      for (int u = 0; u < in_flight; ++u) {
        if (p + u >= end) break;
        if (named[u].entry != entry) {
          finish(false);
          entry = named[u].entry;
          front = false;
        }
        auto const terms = dy.template reals<W>(x[u]);
        OURO_UNROLL
        for (int e = 0; e < W; ++e) sum[e] += static_cast<double>(terms.values[e]);
      }
    }
    finish(end < rows && order[end].entry == entry);
  }
};

/// A block for each entry and tile of columns: nothing, where no row names the entry, or the parts of several runs.
template <int W, class T>
__global__ void finish_entries(run_sums<T> s) {
  auto const tiles = static_cast<unsigned>(divide_up(s.columns, warp_size * W));
  auto const entries = static_cast<unsigned>(s.o.entries);
  index const table = blockIdx.x / tiles / entries;
  index const entry = blockIdx.x / tiles % entries;
  index const c = (static_cast<index>(blockIdx.x % tiles) * warp_size + lane_number()) * W;
  std::int32_t const* starts = s.o.starts + table * (s.o.entries + 1) + entry;
  index const from = starts[0];
  index const end = starts[1];
  index const first = from / s.run;
  index const last = (end - 1) / s.run;
  bool const none = from == end;
  if (none ? s.accumulate : first == last) return;
  int const walkers = pack_threads / warp_size;
  int const walker = static_cast<int>(threadIdx.x) / warp_size;
  bool const mine = c < s.columns;
  double sum[W] = {};
  if (mine && !none)
    add_packs(sum, first + walker, last + 1, walkers,
              [&](index number) -> T const* { return s.part(table, number, number == first) + c; });
  index const tile = c - lane_number() * W;
  walkers_sum(sum, warp_size, [&](int lane, int e, double total) {
    index const at = tile + lane * W + e;
    if (at < s.columns) put(s.sum_of_entry(table, entry)[at], static_cast<T>(total), s.accumulate);
  });
}

/// Bytes of dy that stay in the cache, of 50 MB on an H100, until every table has read them.
#if defined(__CUDACC__)
inline constexpr index cached_bytes = index(20) << 20U;
#else
inline constexpr index cached_bytes = 1 << 14;  // that the tests see tiles
#endif

/// How many packs of so many bytes of a row's columns to take together: those of all rows are to stay in the cache, and whole
/// lines of it are to be read.
index cached_packs(index rows, index packs, index bytes) {
  index const line = 128 / bytes;
  if (rows == 0 || packs <= line) return packs;
  index const most = cached_bytes / (bytes * rows) / line * line;
  return most >= packs ? packs : most < line ? line : most;
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::gather_sum(view y, const_view table, const_view at, const_view addend) {
  if (y.size() > most_located && y.dims[0] > 1) {
    cut const halves(shape{y.dims[0]});
    gather_sum(halves.front(y), table, halves.front(at), addend);
    return gather_sum(halves.rest(y), table, halves.rest(at), addend);
  }
  index const columns = table.dims[2];
  with_real(table.type, "gather_sum", [&]<class T>(std::type_identity<T>) {
    constexpr int width = pack_width<T>;
    elements<stored_beside<T>, void> const to(y);
    T const* const more = addend.empty() ? nullptr : addend.as<T>();
    bool const packed = columns % width == 0 && to.aligned(width) && packs_fit(table.as<T>(), more);
    with_width<T>(packed, [&]<int W>(width_of<W>) {
      index const packs = columns / W;
      for_count("gather_sum", at.dims[0] * packs,
                gather_values<W, T>{to, table.as<T>(), at.as<std::int32_t>(), more, table.dims[0], table.dims[1],
                                    columns, divider(packs)});
    });
  });
}

void cuda::scatter_sum(destination dtable, const_view at, const_view dy) {
  shape const& d = dtable.out.dims;
  index const rows = at.dims[0];
  if (dtable.out.size() == 0) return;
  if (rows > 1 && d[0] * dy.size() > most_located) {
    cut const halves(shape{rows});
    scatter_sum(dtable, halves.front(at), halves.front(dy));
    return scatter_sum({dtable.out, true}, halves.rest(at), halves.rest(dy));
  }
  // No more than 64 chunks: one block of a table adds them up.
  index const chunk = divide_up(divide_up(rows, 64), batch) * batch;
  index const chunks = rows > 0 ? divide_up(rows, chunk) : 1;
  device_array<std::int32_t> const before(d[0] * chunks * d[1]);
  device_array<std::int32_t> const starts(d[0] * (d[1] + 1));
  device_array<named_entry> const order(d[0] * rows);
  entry_order const o{rows,          d[0],          d[1],        chunk, chunks, at.as<std::int32_t>(),
                      before.data(), starts.data(), order.data()};
  index const warps = divide_up(d[1], warp_size);
  int const threads = warp_size * static_cast<int>(warps < 32 ? warps : 32);
  launch("scatter_sum", count_entries, d[0] * chunks, threads, 0, o, tickets(d[0]));
  launch("scatter_sum", place_rows, d[0] * chunks, threads, 0, o);
  with_real(dtable.out.type, "scatter_sum", [&]<class T>(std::type_identity<T>) {
    constexpr int width = pack_width<T>;
    elements<stored_beside<T>, void const> const from(dy);
    index const runs = divide_up(rows, run_sums<T>::run);
    device_array<T> const parts(d[0] * runs * 2 * d[2]);
    run_sums<T> const s{o, runs, d[2], parts.data(), dtable.out.as<T>(), dtable.accumulate};
    bool const packed = d[2] % width == 0 && aligned_for(s.dtable, width) && from.aligned(width);
    with_width<T>(packed, [&]<int W>(width_of<W>) {
      index const packs = d[2] / W;
      index const tile = cached_packs(rows, packs, W * size_of(dy.type));
      for_count("scatter_sum", divide_up(packs, tile) * d[0] * runs * tile,
                sum_run<W, T>{s, from, tile, divider(tile), divider(d[0] * runs), divider(runs)});
      launch("scatter_sum", finish_entries<W, T>, d[0] * d[1] * divide_up(d[2], warp_size * W), pack_threads, 0, s);
    });
  });
}

}  // namespace ouro
