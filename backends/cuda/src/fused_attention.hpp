// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention in bf16 on the tensor cores, in kernels that keep the scores in registers (Dao, "FlashAttention-2", 2023). A
// warp has 16 rows of scores; a block has up to eight warps, and in shared memory tiles of 64 rows of the other sequence:
// those that it works on, and the next, which are on their way.
#pragma once

#include "attention.hpp"
#include "tensor_cores.hpp"

namespace ouro::cuda_kernels {

inline constexpr int warp_rows = 16;
inline constexpr int tile_rows = 64;
inline constexpr int most_warps = 8;
inline constexpr float log2_of_e = 1.44269504088896341F;

/// Whether these kernels are what attention of this width is computed by at present.
bool attention_is_fused(const_view const& q, attention_rule const& rule);

void fused_attention(view const& y, float* lse, const_view const& q, const_view const& k, const_view const& v,
                     attention_rule const& rule);
/// Whether a block has room for all keys of a head, and so makes all gradients at once.
bool fused_gradient_is_one_pass(destination const& dq, destination const& dk, destination const& dv,
                                const_view const& q, const_view const& k, attention_rule const& rule);
void fused_attention_gradient_in_one_pass(destination const& dq, destination const& dk, destination const& dv,
                                          const_view const& q, const_view const& k, const_view const& v,
                                          const_view const& y, float const* lse, const_view const& dy,
                                          attention_rule const& rule);
void fused_attention_gradient(destination const& dq, destination const& dk, destination const& dv, const_view const& q,
                              const_view const& k, const_view const& v, const_view const& y, float const* lse,
                              const_view const& dy, attention_rule const& rule);

/// Calls f(constant) with the width that a kernel for heads of this one is made for.
template <class F>
void with_fused_width(index width, F const& f) {
  if (width <= 32) return f(std::integral_constant<int, 32>{});
  if (width <= 64) return f(std::integral_constant<int, 64>{});
  f(std::integral_constant<int, 128>{});
}

/// Calls f(type_identity) with what queries, keys and values are stored in.
template <class F>
void with_fused_storage(dtype type, F const& f) {
  if (type == dtype::bf16) return f(std::type_identity<bf16>{});
  f(std::type_identity<float>{});
}

/// Pairs from a row of a tile to the next, so that eight rows lie in different banks.
template <int Width>
inline constexpr int tile_pitch = Width / 2 + 4;
/// Pairs of a tile.
template <int Width>
inline constexpr int tile_room = tile_rows* tile_pitch<Width>;

// Storage: what a tensor is stored in is known to these functions alone.

/// Neighbours in memory that are moved at once where they lie at a multiple of their size.
template <class S, int N>
struct alignas(sizeof(S) * N < 16 ? sizeof(S) * N : 16) neighbours {
  S at[N];
};
template <class S, int N>
__device__ neighbours<float, N> load_neighbours(S const* from, bool aligned) {
  neighbours<S, N> x;
  if (aligned) x = *reinterpret_cast<neighbours<S, N> const*>(from);
  else
    for (int i = 0; i < N; ++i) x.at[i] = from[i];
  neighbours<float, N> y;
  OURO_UNROLL
  for (int i = 0; i < N; ++i) y.at[i] = static_cast<float>(x.at[i]);
  return y;
}
__device__ inline neighbours<float, 2> rounded_to(float const*, float first, float second) { return {first, second}; }
__device__ inline neighbours<bf16, 2> rounded_to(bf16 const*, float first, float second) {
  return std::bit_cast<neighbours<bf16, 2>>(rounded_pair(first, second));
}
template <class S>
__device__ void store_neighbours(S* to, float first, float second, bool aligned, bool accumulate) {
  if (accumulate) {
    auto const there = load_neighbours<S, 2>(to, aligned);
    first += there.at[0];
    second += there.at[1];
  }
  auto const x = rounded_to(to, first, second);
  if (aligned) {
    *reinterpret_cast<neighbours<S, 2>*>(to) = x;
  } else {
    to[0] = x.at[0];
    to[1] = x.at[1];
  }
}

/// Whether sixteen bytes of any row may be moved at once.
inline bool rows_are_aligned(const_view const& v) {
  index const together = 16 / size_of(v.type);
  return reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0 && v.steps[0] % together == 0 && v.steps[1] % together == 0;
}
inline bool rows_are_aligned(destination const& d) { return !d.wanted() || rows_are_aligned(const_view(d.out)); }

template <class S>
struct fused_problem : attention_problem<S> {
  bool aligned;

  fused_problem(const_view const& qs, const_view const& ks, const_view const& vs, attention_rule const& rule)
      : attention_problem<S>(qs, ks, vs, rule),
        aligned(rows_are_aligned(qs) && rows_are_aligned(ks) && rows_are_aligned(vs)) {}

  [[nodiscard]] index flats() const { return this->lanes * this->heads; }
  /// How many keys query `i` sees; none where there is no such query.
  [[nodiscard]] __device__ int count(int i) const {
    return i < this->queries ? static_cast<int>(this->sees.count(i, this->keys)) : 0;
  }
  /// Scores to powers of two.
  [[nodiscard]] __device__ float steepness() const { return this->scale * log2_of_e; }
};

/// How a sequence is cut among blocks: evenly, into tiles of 16 rows for each warp.
struct row_split {
  int warps;
  index tiles;

  /// For blocks of up to `most` warps, or of less, down to `fewest`, where those of the `flats` heads would not be enough
  /// for the device.
  row_split(index rows, index flats, int most, int fewest) {
    while (most > fewest && flats * divide_up(rows, most * warp_rows) < 3 * multiprocessors()) most /= 2;
    *this = whole(rows, most);
  }
  static row_split whole(index rows, int most = most_warps) {
    row_split split;
    split.warps = static_cast<int>(divide_up(divide_up(rows, divide_up(rows, most * warp_rows)), warp_rows));
    split.tiles = divide_up(rows, split.warps * warp_rows);
    return split;
  }

 private:
  row_split() = default;
};

/// Tiles of keys and of values in shared memory, `at_once` of them and as many that come next: the number of a tile says
/// where it lies.
template <int Width>
struct key_tiles {
  bf16_pair* memory = shared_memory<bf16_pair>();
  int at_once = 1;

  static constexpr std::size_t bytes(int at_once) {
    return static_cast<std::size_t>(4 * at_once * tile_room<Width>) * sizeof(bf16_pair);
  }
  [[nodiscard]] __device__ bf16_pair* k(int tile) const { return memory + tile % (2 * at_once) * 2 * tile_room<Width>; }
  [[nodiscard]] __device__ bf16_pair* v(int tile) const { return k(tile) + tile_room<Width>; }
};

/// The head that a block works on, and its tile of rows.
struct fused_place {
  int flat, lane, head, tile, tiles;

  template <class S>
  __device__ explicit fused_place(fused_problem<S> const& p) {
    int const heads = static_cast<int>(p.heads);
    int const flats = static_cast<int>(p.lanes) * heads;
    flat = static_cast<int>(blockIdx.x) % flats;
    lane = flat / heads;
    head = flat % heads;
    tile = static_cast<int>(blockIdx.x) / flats;
    tiles = static_cast<int>(gridDim.x) / flats;
  }
  template <class S>
  __device__ S* rows(head_rows<S> const& r, index width) const {
    return r.data + lane * r.lane + head * width;
  }
};

__device__ inline int smaller(int a, int b) { return a < b ? a : b; }
__device__ inline int fused_warp() { return static_cast<int>(threadIdx.x) / warp_size; }
__device__ inline int fused_warps() { return static_cast<int>(blockDim.x) / warp_size; }

/// What the warps of a block that have the same rows, `groups` of them, leave for the first of them.
template <int N>
struct shared_rows {
  tile_sums* room;
  int groups;
  int split = fused_warp() / groups;
  int splits = fused_warps() / groups;

  __device__ shared_rows(tile_sums* block_room, int group_count) : room(block_room), groups(group_count) {}
  /// The n-th sums that the warp of number `s` has left for this one.
  [[nodiscard]] __device__ tile_sums& left(int s, int n) const {
    return room[(((s - 1) * groups + fused_warp() % groups) * N + n) * warp_size + lane_number()];
  }
  /// The whole block takes part; what was in the room is lost.
  __device__ void leave(tile_sums const (&sums)[N]) const {
    __syncthreads();
    OURO_UNROLL
    for (int n = 0; n < N; ++n)
      if (split > 0) left(split, n) = sums[n];
    __syncthreads();
  }
};

/// The queries of a block and of one of its warps, which has those of number `group`; blocks of those who see the most begin.
struct query_rows {
  int block_first, block_rows;  // how many there are
  int first;                    // of the warp
  int block_sees, warp_sees;    // keys, of which any query sees each

  template <class S>
  __device__ query_rows(fused_problem<S> const& p, fused_place const& at, int groups, int group) {
    int const queries = static_cast<int>(p.queries);
    int const most = groups * warp_rows;
    block_first = (at.tiles - 1 - at.tile) * most;
    block_rows = smaller(queries - block_first, most);
    first = block_first + group * warp_rows;
    block_sees = p.count(smaller(block_first + most, queries) - 1);
    warp_sees = first < queries ? p.count(smaller(first + warp_rows, queries) - 1) : 0;
  }
};

// Rows to a tile in shared memory, where they are after finish_loads and a barrier. Up to the next multiple of 16 rows and
// from `width` on they are zero.

/// In f32: rounded on the way.
template <int Width>
__device__ void load_tile(bf16_pair* to, float const* from, index step, int rows, int width, bool aligned) {
  constexpr int across = Width / 4;
  constexpr int at_once = 4;  // loads on their way
  int const padded = (rows + warp_rows - 1) / warp_rows * warp_rows;
  int const stride = static_cast<int>(blockDim.x) / across;
  int const column = static_cast<int>(threadIdx.x) % across * 4;
  for (int first = static_cast<int>(threadIdx.x) / across; first < padded; first += at_once * stride) {
    float const* line = from + first * step + column;
    neighbours<float, 4> x[at_once];
    OURO_UNROLL
    for (int i = 0; i < at_once; ++i) {
      bool const there = first + i * stride < rows && column < width;
      x[i] = there ? load_neighbours<float, 4>(line, aligned) : neighbours<float, 4>{};
      line += stride * step;  // the same column: a block's threads are whole rows
    }
    OURO_UNROLL
    for (int i = 0; i < at_once; ++i) {
      int const row = first + i * stride;
      if (row >= padded) break;
      *reinterpret_cast<neighbours<bf16_pair, 2>*>(to + row * tile_pitch<Width> + column / 2) = {
          rounded_pair(x[i].at[0], x[i].at[1]), rounded_pair(x[i].at[2], x[i].at[3])};
    }
  }
}

/// In bf16: copied by the device on its own.
template <int Width>
__device__ void load_tile(bf16_pair* to, bf16 const* from, index step, int rows, int width, bool aligned) {
  constexpr int across = Width / 8;
  int const padded = (rows + warp_rows - 1) / warp_rows * warp_rows;
  int const stride = static_cast<int>(blockDim.x) / across;
  int const column = static_cast<int>(threadIdx.x) % across * 8;
  int const first = static_cast<int>(threadIdx.x) / across;
  int const there = column < width ? rows : 0;
  bf16 const* line = from + first * step + column;
  bf16_pair* place = to + first * tile_pitch<Width> + column / 2;
  step *= stride;
  if (aligned) {
    for (int row = first; row < padded; row += stride) {
      load_later(place, line, row < there);
      line += step;
      place += stride * tile_pitch<Width>;
    }
    return;
  }
  for (int row = first; row < padded; row += stride) {
    OURO_UNROLL
    for (int i = 0; i < 4; ++i)
      place[i] = row < there ? line[2 * i].bits | static_cast<bf16_pair>(line[2 * i + 1].bits) << 16U : 0;
    line += step;
    place += stride * tile_pitch<Width>;
  }
}

/// Keys and values from number `key` on, as the tiles of that number.
template <int Width, class S>
__device__ void load_keys(key_tiles<Width> const& tiles, fused_problem<S> const& p, fused_place const& at, int key) {
  int const rows = smaller(static_cast<int>(p.keys) - key, tile_rows);
  int const width = static_cast<int>(p.width);
  int const tile = key / tile_rows;
  load_tile<Width>(tiles.k(tile), at.rows(p.k, p.width) + key * p.k.row, p.k.row, rows, width, p.aligned);
  load_tile<Width>(tiles.v(tile), at.rows(p.v, p.width) + key * p.v.row, p.v.row, rows, width, p.aligned);
}

/// 16 rows of a tile as a left factor.
template <int Width>
__device__ void load_left(fragment (&to)[Width / 16], bf16_pair const* rows) {
  rows += squares_down(tile_pitch<Width>);
  OURO_UNROLL
  for (int c = 0; c < Width / 16; ++c) to[c] = load_squares(rows + 8 * c);
}

/// products = left (16 rows) · right (16 rows of a tile)ᵀ.
template <int Width>
__device__ void multiply_rows(tile_sums (&products)[2], fragment const (&left)[Width / 16], bf16_pair const* right) {
  products[0] = products[1] = tile_sums{};
  right += squares_across(tile_pitch<Width>);
  OURO_UNROLL
  for (int c = 0; c < Width / 16; ++c) {
    fragment const f = load_squares(right + 8 * c);
    multiply_add(products[0], left[c], f.square[0], f.square[1]);
    multiply_add(products[1], left[c], f.square[2], f.square[3]);
  }
}

/// sums += left (16 by 16) · right (16 rows of a tile).
template <int Columns, int Pitch>
__device__ void add_product(tile_sums (&sums)[Columns / 8], fragment const& left, bf16_pair const* right) {
  right += squares_down(Pitch);
  OURO_UNROLL
  for (int c = 0; c < Columns / 16; ++c) {
    fragment const f = load_squares_transposed(right + 8 * c);
    multiply_add(sums[2 * c], left, f.square[0], f.square[1]);
    multiply_add(sums[2 * c + 1], left, f.square[2], f.square[3]);
  }
}

/// A product of 16 rows and columns, rounded, as a left factor: what a thread has of both is the same.
__device__ inline fragment rounded_left(tile_sums const (&x)[2]) {
  return {{rounded_pair(x[0].at[0], x[0].at[1]), rounded_pair(x[0].at[2], x[0].at[3]),
           rounded_pair(x[1].at[0], x[1].at[1]), rounded_pair(x[1].at[2], x[1].at[3])}};
}

template <int N>
__device__ void clear(tile_sums (&sums)[N]) {
  OURO_UNROLL
  for (int n = 0; n < N; ++n) sums[n] = tile_sums{};
}

/// Pairs of four lanes that have the same row: what was pair i of the t-th of them is pair t of the i-th.
__device__ inline neighbours<bf16_pair, 4> exchange_pairs(neighbours<bf16_pair, 4> x) {
  OURO_UNROLL
  for (int step = 1; step <= 2; step *= 2) {
    bool const upper = (lane_number() & step) != 0;
    OURO_UNROLL
    for (int i = 0; i < 4; ++i) {
      if ((i & step) != 0) continue;
      bf16_pair const other = __shfl_xor_sync(everybody, upper ? x.at[i] : x.at[i + step], step);
      if (upper) x.at[i] = other;
      else x.at[i + step] = other;
    }
  }
  return x;
}
/// The thread's row of 16, the upper or the lower, in bf16 at multiples of 16 bytes: a lane stores eight columns of 32.
template <int Columns>
__device__ void store_eights(bf16* line, bool there, int width, tile_sums const (&sums)[Columns / 8], int lower,
                             float factor) {
  OURO_UNROLL
  for (int first = 0; first < Columns / 8; first += 4) {
    neighbours<bf16_pair, 4> x;
    OURO_UNROLL
    for (int n = 0; n < 4; ++n)
      x.at[n] = rounded_pair(sums[first + n].at[2 * lower] * factor, sums[first + n].at[2 * lower + 1] * factor);
    x = exchange_pairs(x);
    int const column = 8 * (first + lane_number() % 4);
    if (there && column < width)
      *reinterpret_cast<neighbours<bf16, 8>*>(line + column) = std::bit_cast<neighbours<bf16, 8>>(x);
  }
}

/// 16 rows of a result, each times a factor: `upper` for the first eight, `lower` for the rest.
template <int Columns, class S>
__device__ void store_rows(S* to, index step, int rows, int width, tile_sums const (&sums)[Columns / 8], float upper,
                           float lower, bool aligned, bool accumulate) {
  OURO_UNROLL
  for (int h = 0; h < 2; ++h) {
    int const row = fragment_line() + 8 * h;
    float const factor = h == 0 ? upper : lower;
    if constexpr (std::is_same_v<S, bf16>) {
      if (aligned && !accumulate) {
        store_eights<Columns>(to + row * step, row < rows, width, sums, h, factor);
        continue;
      }
    }
    S* const line = to + row * step + fragment_column();
    if (row >= rows) continue;
    OURO_UNROLL
    for (int n = 0; n < Columns / 8; ++n)
      if (8 * n < width)
        store_neighbours(line + 8 * n, sums[n].at[2 * h] * factor, sums[n].at[2 * h + 1] * factor, aligned, accumulate);
  }
}

/// What a dropout keeps of whole tiles of queries and keys, in memory: a word for 32 keys, of 64 neighbouring queries each.
struct mask_words {
  std::uint32_t* words = nullptr;
  int queries = 0;  // those that no tile of 64 is without
  int groups = 0;   // of keys, likewise

  mask_words() = default;
  template <class S>
  explicit mask_words(fused_problem<S> const& p)
      : queries(static_cast<int>(divide_up(p.queries, tile_rows)) * tile_rows),
        groups(static_cast<int>(divide_up(p.keys, tile_rows)) * (tile_rows / 32)) {}
  [[nodiscard]] index size(index flats) const { return flats * groups * queries; }
  [[nodiscard]] __device__ std::uint32_t* of(int flat, int group, int query) const {
    return words + (static_cast<index>(flat * groups + group) * queries + query);
  }
};

/// What the dropout keeps of 16 queries and a tile of keys: element e of the thread's n-th product of 8 keys.
struct kept_by_rows {
  // A byte for n mod 4: of the first 32 keys and of the last, for the upper rows, then the lower.
  std::uint32_t bits = everybody;

  /// Drawn by the warp, and left for others if there are words for it.
  template <class S>
  __device__ kept_by_rows(fused_problem<S> const& p, int flat, int query, int key, mask_words const& left = {}) {
    if (p.kept.all()) return;
    int const row = query + lane_number() % 16;
    int const group = key / 32 + lane_number() / 16;
    std::uint32_t const mine = p.keeps(flat, row, group);
    if (left.words != nullptr) *left.of(flat, group, row) = mine;
    bits = 0;
    OURO_UNROLL
    for (int s = 0; s < 4; ++s) {
      int const lane = s / 2 * 16 + s % 2 * 8 + fragment_line();
      bits |= (__shfl_sync(everybody, mine, lane) >> fragment_column() & 0x03030303U) << (2 * s);
    }
  }
  [[nodiscard]] __device__ bool keeps(int n, int e) const {
    return (bits >> (n % 4 * 8 + n / 4 * 4 + e / 2 * 2 + e % 2) & 1U) != 0;
  }
  /// The same from the m-th 16 keys on, for n < 2.
  [[nodiscard]] __device__ kept_by_rows from(int m) const {
    kept_by_rows rest = *this;
    rest.bits >>= m % 2 * 16 + m / 2 * 4;
    return rest;
  }
};

__device__ inline float quad_max(float x) {
  for (int step = 1; step <= 2; step *= 2) x = std::fmax(x, __shfl_xor_sync(everybody, x, step));
  return x;
}

}  // namespace ouro::cuda_kernels
