// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A walk along a sequence, or back: a group of lanes carries a row of a state in its registers, a block has 16 of them. The
// operands of the next chunk are on their way to shared memory meanwhile.
#pragma once

#include <algorithm>

#include "scans.hpp"
#include "tensor_cores.hpp"

namespace ouro::cuda_kernels {

inline constexpr int walk_rows = 16;
inline constexpr int most_vectors = 5;
inline constexpr int most_scalars = 2;

/// What a walk reads: vectors of all keys, the value that each row of the state has, and scalars of the head. And what it
/// leaves; what is absent is not wanted.
template <class T>
struct walk_operands {
  scan_rows<T const> vectors[most_vectors] = {};
  index sharing = 1;  // heads that have the same run of columns of the vectors
  scan_rows<T const> values = {};
  scan_rows<T const> scalars[most_scalars] = {};
  T const* skip = nullptr;   // (H): the value times it is said too
  T const* start = nullptr;  // (B,H,V,K); absent: zero
  T* kept = nullptr;         // (B,H,chunks + 1,V,K): as it was before a chunk, and at the end
  scan_rows<T> said = {};
  T* end = nullptr;  // (B,H,V,K)
  bool end_adds = false;
  bool aligned = false;  // vectors lie at multiples of 16 bytes
};

/// Whether all `vectors` of `key` elements lie at multiples of 16 bytes.
template <class T>
bool vectors_are_aligned(walk_operands<T> const& p, int vectors, int key) {
  constexpr index together = 16 / sizeof(T);
  bool all = key % together == 0;
  for (int q = 0; q < vectors; ++q) {
    auto const& v = p.vectors[q];
    all = all && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0 && v.lane % together == 0 && v.row % together == 0;
  }
  return all;
}

/// Four neighbours.
template <class T>
struct alignas(16) walk_four {
  T at[4];
};

/// The shared memory of a walk: two stages of operands, and the parts of what the rows say.
template <class T, class Problem, int Lanes, int Each>
struct walk_room {
  static constexpr int keys = Lanes * Each;
  int length;

  [[nodiscard]] __host__ __device__ int stage() const {
    return length * (Problem::vectors * keys + walk_rows + (Problem::scalars + 3) / 4 * 4);
  }
  [[nodiscard]] __host__ __device__ int parts() const { return Problem::says ? length * walk_rows * Lanes : 0; }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(2 * stage() + parts()) * sizeof(T); }
};

/// The threads of a block as rows of a team each, for copies of rows that are `across` packs long.
struct copy_team {
  int size, down;     // threads of a team, and teams
  int member, first;  // of this thread; the first row is none where the threads do not make a whole team

  __device__ copy_team(int across, int threads)
      : size(across < threads ? across : threads),
        down(threads / size),
        member(static_cast<int>(threadIdx.x) % size),
        first(static_cast<int>(threadIdx.x) / size) {
    if (first >= down) first = 1 << 20;
  }
};

/// What a row of the sequence is to a thread.
template <class T, class Problem, int Each>
struct walk_row {
  T vectors[Problem::vectors][Each];
  T value;
  T scalars[Problem::scalars > 0 ? Problem::scalars : 1];
};

template <class T, class Problem, int Lanes, int Each>
__global__ void __launch_bounds__(walk_rows* Lanes) walk_kernel(scan_shape s, walk_operands<T> p) {
  using room_of = walk_room<T, Problem, Lanes, Each>;
  constexpr int keys = room_of::keys;
  constexpr int threads = walk_rows * Lanes;
  room_of const room{s.length};
  T* const memory = shared_memory<T>();
  int const thread = static_cast<int>(threadIdx.x);
  int const lane = thread % Lanes;
  int const row = thread / Lanes;
  index const blocks = divide_up(s.value, walk_rows);
  index const flat = blockIdx.x / blocks;
  index const h = flat % s.heads;
  index const n = flat / s.heads;
  int const first_row = static_cast<int>(blockIdx.x % blocks) * walk_rows;
  int const i = first_row + row;
  bool const there = i < s.value;
  index const chunks = s.chunks();

  auto chunk_at = [&](index step) { return Problem::backwards ? chunks - 1 - step : step; };
  auto vectors_of = [&](int stage) { return memory + stage * room.stage(); };
  auto values_of = [&](int stage) { return vectors_of(stage) + s.length * Problem::vectors * keys; };
  auto scalars_of = [&](int stage) { return values_of(stage) + s.length * walk_rows; };
  int const together = p.aligned ? 16 / static_cast<int>(sizeof(T)) : 1;
  int const across = s.key / together;
  copy_team const team(across, threads);
  T const* vectors[Problem::vectors];
  OURO_UNROLL
  for (int q = 0; q < Problem::vectors; ++q) vectors[q] = p.vectors[q].at(n, 0, h / p.sharing * s.key);
  T const* const own_values = p.values.at(n, 0, h * s.value + first_row);
  auto copy_rows = [&]<int Together>(std::integral_constant<int, Together>, T* to, index first, int rows) {
    for (int t = team.first; t < rows; t += team.down)
      for (int j = team.member; j < across; j += team.size) {
        OURO_UNROLL
        for (int q = 0; q < Problem::vectors; ++q)
          copy_later<Together * sizeof(T)>(to + (t * Problem::vectors + q) * keys + j * Together,
                                           vectors[q] + (first + t) * p.vectors[q].row + j * Together);
      }
  };
  auto load = [&](index step) {
    int const stage = static_cast<int>(step % 2);
    index const first = chunk_at(step) * s.length;
    int const rows = s.rows_of(chunk_at(step));
    if (p.aligned) copy_rows(std::integral_constant<int, 16 / sizeof(T)>{}, vectors_of(stage), first, rows);
    else copy_rows(std::integral_constant<int, 1>{}, vectors_of(stage), first, rows);
    int const of = thread % walk_rows;
    for (int t = thread / walk_rows; first_row + of < s.value && t < rows; t += threads / walk_rows)
      copy_later<sizeof(T)>(values_of(stage) + t * walk_rows + of, own_values + (first + t) * p.values.row + of);
    if constexpr (Problem::scalars > 0) {
      static_assert(most_chunk_rows * Problem::scalars <= threads);
      int const t = thread / Problem::scalars;
      if (t < rows)
        copy_later<sizeof(T)>(scalars_of(stage) + thread, p.scalars[thread % Problem::scalars].at(n, first + t, h));
    }
    close_loads();
  };
  // Four neighbours of a thread's keys lie together; the last ones may be none of the state's.
  auto key_of = [&](int e) { return 4 * (lane + Lanes * (e / 4)) + e % 4; };
  auto store_state = [&](T* to, T const(&X)[Each], bool accumulate) {
    if (!there) return;
    OURO_UNROLL
    for (int e = 0; e < Each; ++e)
      if (key_of(e) < s.key) put(to[index{i} * s.key + key_of(e)], X[e], accumulate);
  };

  for (int e = thread; e < 2 * room.stage(); e += threads) memory[e] = T(0);
  T X[Each];
  OURO_UNROLL
  for (int e = 0; e < Each; ++e) {
    bool const known = there && key_of(e) < s.key && p.start != nullptr;
    X[e] = known ? p.start[flat * s.state() + index{i} * s.key + key_of(e)] : T(0);
  }
  T const skip = p.skip != nullptr ? p.skip[h] : T(0);
  // The next row is read before one moves on.
  using row_type = walk_row<T, Problem, Each>;
  row_type even{};
  row_type uneven{};
  __syncthreads();  // the rooms are clear
  if (chunks > 0) load(0);
  for (index step = 0; step < chunks; ++step) {
    int const stage = static_cast<int>(step % 2);
    finish_loads();
    __syncthreads();  // this chunk is there, and nobody reads the one before
    if (step + 1 < chunks) load(step + 1);
    index const chunk = chunk_at(step);
    if (p.kept != nullptr) store_state(p.kept + (flat * (chunks + 1) + chunk) * s.state(), X, false);
    T const* const values = values_of(stage);
    T* const parts = memory + 2 * room.stage();
    int const rows = s.rows_of(chunk);
    auto row_of = [&](int turn) { return Problem::backwards ? rows - 1 - turn : turn; };
    auto read = [&](row_type& to, int turn) {
      if (turn >= rows) return;
      int const t = row_of(turn);
      T const* const from = vectors_of(stage) + t * Problem::vectors * keys + 4 * lane;
      OURO_UNROLL
      for (int e = 0; e < Problem::vectors * Each; e += 4) {
        auto const four = *reinterpret_cast<walk_four<T> const*>(from + e / Each * keys + e % Each * Lanes);
        OURO_UNROLL
        for (int c = 0; c < 4; ++c) to.vectors[e / Each][e % Each + c] = four.at[c];
      }
      to.value = values[t * walk_rows + row];
      OURO_UNROLL
      for (int q = 0; q < Problem::scalars; ++q) to.scalars[q] = scalars_of(stage)[t * Problem::scalars + q];
    };
    auto advance = [&](row_type const& x, int turn) {
      T const said = Problem::template advance<Lanes>(X, x.vectors, x.value, x.scalars);
      if constexpr (Problem::says) parts[(row_of(turn) * walk_rows + row) * Lanes + lane] = said;
    };
    read(even, 0);
    for (int turn = 0; turn < rows; turn += 2) {
      read(uneven, turn + 1);
      advance(even, turn);
      read(even, turn + 2);
      if (turn + 1 < rows) advance(uneven, turn + 1);
    }
    if constexpr (Problem::says) {
      if (p.said.data != nullptr) {
        __syncthreads();  // all parts are there
        int const of = thread % walk_rows;
        for (int t = thread / walk_rows; first_row + of < s.value && t < rows; t += threads / walk_rows) {
          int const e = t * walk_rows + of;
          T sum = skip * values[e];
          OURO_UNROLL
          for (int c = 0; c < Lanes; c += 4) {
            auto const four = *reinterpret_cast<walk_four<T> const*>(parts + e * Lanes + c);
            sum += (four.at[0] + four.at[1]) + (four.at[2] + four.at[3]);
          }
          p.said.put_at(n, chunk * s.length + t, h * s.value + first_row + of, sum);
        }
      }
    }
  }
  if (p.kept != nullptr && !Problem::backwards)
    store_state(p.kept + (flat * (chunks + 1) + chunks) * s.state(), X, false);
  if (p.end != nullptr) store_state(p.end + flat * s.state(), X, p.end_adds);
}

/// Calls f(room) with the room of the kernel that has registers for a row of the state. Errors: a row is too long.
template <class T, class Problem, class F>
void with_walk(char const* name, scan_shape const& s, F const& f) {
  if (s.key <= 64) return f(walk_room<T, Problem, 8, 8>{s.length});
  if (s.key <= 256) return f(walk_room<T, Problem, 16, 16>{s.length});
  require(s.key <= 1024, errc::shape, name, "states have up to 1024 keys here, not ", s.key);
  f(walk_room<T, Problem, 32, 32>{s.length});
}
template <class T, class Problem>
std::size_t walk_bytes(char const* name, scan_shape const& s) {
  std::size_t bytes = 0;
  with_walk<T, Problem>(name, s, [&](auto const& room) { bytes = room.bytes(); });
  return bytes;
}
template <class T, class Problem>
void walk(char const* name, scan_shape const& s, walk_operands<T> p) {
  p.aligned = vectors_are_aligned(p, Problem::vectors, s.key);
  with_walk<T, Problem>(name, s, [&]<int Lanes, int Each>(walk_room<T, Problem, Lanes, Each> const& room) {
    launch(name, walk_kernel<T, Problem, Lanes, Each>, s.flats() * divide_up(s.value, walk_rows), walk_rows * Lanes,
           room.bytes(), s, p);
  });
}

/// Both walks of a gradient, and what they leave between chunks: the states, and their gradients.
template <class T, class Forwards, class Backwards>
class walked_both_ways {
 public:
  static std::size_t bytes(char const* name, scan_shape const& s) {
    return std::max(walk_bytes<T, Forwards>(name, s), walk_bytes<T, Backwards>(name, s));
  }
  /// `there` and `back` say what is read, but for the gradients: of what was said, of the last state, which may be absent, and
  /// where that of the first one goes.
  walked_both_ways(char const* name, scan_shape const& s, walk_operands<T> there, walk_operands<T> back,
                   const_view const& dy, const_view const& dlast, destination const& state)
      : states_(s.kept_states()), slopes_(s.kept_states()) {
    there.kept = states_.data();
    walk<T, Forwards>(name, s, there);
    back.values = scan_rows_of<T>(dy);
    back.start = dense_or_none<T>(dlast);
    back.kept = slopes_.data();
    back.end = dense_or_none<T>(state.out);
    back.end_adds = state.accumulate;
    walk<T, Backwards>(name, s, back);
  }
  [[nodiscard]] T const* states() const { return states_.data(); }
  [[nodiscard]] T const* slopes() const { return slopes_.data(); }

 private:
  device_array<T> states_;
  device_array<T> slopes_;
};

}  // namespace ouro::cuda_kernels
