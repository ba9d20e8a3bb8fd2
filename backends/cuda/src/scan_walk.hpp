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

/// The vectors of a chunk on their way, `Together` elements at a time, by all threads of a block.
template <int Together, int Vectors, int Keys, class T>
__device__ void load_vectors(walk_operands<T> const& p, T* to, int key, index n, index first, int rows, index column) {
  int const across = key / Together;
  for (int e = static_cast<int>(threadIdx.x); e < rows * across; e += static_cast<int>(blockDim.x)) {
    int const t = e / across;
    int const j = (e - t * across) * Together;
    OURO_UNROLL
    for (int q = 0; q < Vectors; ++q)
      copy_later<Together * sizeof(T)>(to + (t * Vectors + q) * Keys + j, p.vectors[q].at(n, first + t, column + j));
  }
}

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
  auto load = [&](index step) {
    int const stage = static_cast<int>(step % 2);
    index const first = chunk_at(step) * s.length;
    int const rows = s.rows_of(chunk_at(step));
    index const column = h / p.sharing * s.key;
    T* const to = vectors_of(stage);
    if (p.aligned) load_vectors<16 / sizeof(T), Problem::vectors, keys>(p, to, s.key, n, first, rows, column);
    else load_vectors<1, Problem::vectors, keys>(p, to, s.key, n, first, rows, column);
    for (int e = thread; e < rows * walk_rows; e += threads) {
      int const t = e / walk_rows;
      int const of = first_row + e % walk_rows;
      if (of < s.value) copy_later<sizeof(T)>(values_of(stage) + e, p.values.at(n, first + t, h * s.value + of));
    }
    if constexpr (Problem::scalars > 0) {
      for (int e = thread; e < rows * Problem::scalars; e += threads)
        copy_later<sizeof(T)>(scalars_of(stage) + e,
                              p.scalars[e % Problem::scalars].at(n, first + e / Problem::scalars, h));
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
    auto read = [&](T(&vector)[Problem::vectors][Each], int turn) {
      if (turn >= rows) return;
      T const* const from = vectors_of(stage) + row_of(turn) * Problem::vectors * keys + 4 * lane;
      OURO_UNROLL
      for (int q = 0; q < Problem::vectors; ++q) {
        OURO_UNROLL
        for (int e = 0; e < Each; e += 4) {
          auto const four = *reinterpret_cast<walk_four<T> const*>(from + q * keys + e * Lanes);
          OURO_UNROLL
          for (int c = 0; c < 4; ++c) vector[q][e + c] = four.at[c];
        }
      }
    };
    auto advance = [&](T const(&vector)[Problem::vectors][Each], int turn) {
      int const t = row_of(turn);
      T const said = Problem::template advance<Lanes>(X, vector, values[t * walk_rows + row],
                                                      scalars_of(stage) + t * Problem::scalars);
      if constexpr (Problem::says) parts[(t * walk_rows + row) * Lanes + lane] = said;
    };
    // The vectors of the next row are read before a row moves on.
    T even[Problem::vectors][Each];
    T uneven[Problem::vectors][Each];
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
        for (int e = thread; e < rows * walk_rows; e += threads) {
          int const of = first_row + e % walk_rows;
          if (of >= s.value) continue;
          T sum = skip * values[e];
          OURO_UNROLL
          for (int c = 0; c < Lanes; ++c) sum += parts[e * Lanes + c];
          p.said.put_at(n, chunk * s.length + e / walk_rows, h * s.value + of, sum);
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
