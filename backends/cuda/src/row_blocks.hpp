// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Rows of a matrix, a block for each at a time. A thread owns four consecutive columns and keeps their numbers in registers
// from one pass over the row to the next; what is said of the whole row costs one barrier. Rows too wide for that are
// owned in several chunks of four.
#pragma once

#include "tensor_cores.hpp"

namespace ouro::cuda_kernels {

inline constexpr int own_width = 4;  // consecutive columns
// Of a block whose threads hold much. A multiprocessor has room for one such block at least, which leaves each thread 168
// registers: enough for all kernels, and narrower blocks share the rest.
inline constexpr int most_row_threads = 384;
inline constexpr int most_chunks = 16;

template <class T>
struct alignas(16) quad {
  T of[own_width];
  __device__ T& operator[](int v) { return of[v]; }
  __device__ T const& operator[](int v) const { return of[v]; }
};

/// Four numbers at once, from where a multiple of four begins; nobody writes them while the kernel reads them.
template <class T>
__device__ quad<T> load_quad(T const* from) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == sizeof(float)) {
    float4 const q = __ldg(reinterpret_cast<float4 const*>(from));
    return {{q.x, q.y, q.z, q.w}};
  } else {
    double2 const a = __ldg(reinterpret_cast<double2 const*>(from));
    double2 const b = __ldg(reinterpret_cast<double2 const*>(from) + 1);
    return {{a.x, a.y, b.x, b.y}};
  }
#else
  return {{from[0], from[1], from[2], from[3]}};
#endif
}
template <class T>
__device__ void store_quad(T* to, quad<T> q, bool accumulate) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == sizeof(float)) {
    auto* const place = reinterpret_cast<float4*>(to);
    if (accumulate) {
      float4 const old = *place;
      q = {{old.x + q[0], old.y + q[1], old.z + q[2], old.w + q[3]}};
    }
    *place = float4{q[0], q[1], q[2], q[3]};
  } else {
    auto* const place = reinterpret_cast<double2*>(to);
    if (accumulate) {
      double2 const old[2] = {place[0], place[1]};
      q = {{old[0].x + q[0], old[0].y + q[1], old[1].x + q[2], old[1].y + q[3]}};
    }
    place[0] = double2{q[0], q[1]};
    place[1] = double2{q[2], q[3]};
  }
#else
  for (int v = 0; v < own_width; ++v) put(to[v], q[v], accumulate);
#endif
}

/// Two pairs of bf16, which are four numbers.
struct alignas(8) pair_of_pairs {
  bf16_pair of[2];
};
__device__ inline pair_of_pairs load_pairs(void const* from) {
#if defined(__CUDACC__)
  uint2 const p = __ldg(static_cast<uint2 const*>(from));
  return {{p.x, p.y}};
#else
  return *static_cast<pair_of_pairs const*>(from);
#endif
}

/// The storage of an operand that a kernel's type says is not there.
struct nothing {};

/// Memory whose numbers are computed in T and stored in T or, where that is f32, also in bf16: the launch says which, and
/// all threads branch alike, unless S does: it is what they are stored in, if they are there, or nothing.
template <class T, class Void, class S>
struct stored_numbers {
  Void* data;
  bool halves;  // whether bf16

  explicit stored_numbers(basic_view<Void> const& v) : data(v.data), halves(v.type == dtype::bf16) {}
  /// The same memory, of which more is known.
  template <class U>
  requires(!std::is_same_v<U, S>) __device__ explicit stored_numbers(stored_numbers<T, Void, U> const& m)
      : data(m.data), halves(m.halves) {}

  [[nodiscard]] __device__ bool absent() const {
    if constexpr (std::is_void_v<S>) return data == nullptr;
    else return std::is_same_v<S, nothing>;
  }
  [[nodiscard]] __device__ bool narrow() const {
    if constexpr (std::is_void_v<S>) return std::is_same_v<T, float> && halves;
    else return std::is_same_v<S, bf16>;
  }
  template <class U>
  [[nodiscard]] __device__ auto* at(index i) const {
    return static_cast<std::conditional_t<std::is_const_v<Void>, U const, U>*>(data) + i;
  }
};

/// What a kernel reads.
template <class T, class S = void>
struct reals : stored_numbers<T, void const, S> {
  using number = T;
  static constexpr int stored_bytes = std::is_same_v<S, bf16> ? 2 : std::is_same_v<S, float> ? 4 : 0;
  using stored_numbers<T, void const, S>::stored_numbers;

  [[nodiscard]] __device__ T operator[](index i) const {
    return this->narrow() ? static_cast<T>(*this->template at<bf16>(i)) : *this->template at<T>(i);
  }
  /// Four numbers, still to be widened: until then two bf16 lie in each of the first two, so that a thread has all its
  /// loads on their way before it waits for one.
  [[nodiscard]] __device__ quad<T> load(index i) const {
    if constexpr (std::is_same_v<T, float>)
      if (this->narrow()) {
        pair_of_pairs const p = load_pairs(this->template at<bf16>(i));
        return {{std::bit_cast<float>(p.of[0]), std::bit_cast<float>(p.of[1])}};
      }
    return load_quad(this->template at<T>(i));
  }
  __device__ void widen(quad<T>& q) const {
    if constexpr (std::is_same_v<T, float>)
      if (this->narrow()) {
        auto const a = std::bit_cast<bf16_pair>(q[0]);
        auto const b = std::bit_cast<bf16_pair>(q[1]);
        q = {{first_of(a), second_of(a), first_of(b), second_of(b)}};
      }
  }
  /// Four numbers to shared memory, and from there, still to be widened; where it is known what they are stored in.
  __device__ void copy_later(void* to, index i) const {
    cuda_kernels::copy_later<own_width * stored_bytes>(to, this->template at<S>(i));
  }
  [[nodiscard]] __device__ quad<T> load_copy(void const* from) const {
    if constexpr (std::is_same_v<S, bf16>) {
      auto const p = *static_cast<pair_of_pairs const*>(from);
      return {{std::bit_cast<float>(p.of[0]), std::bit_cast<float>(p.of[1])}};
    } else {
      return *static_cast<quad<T> const*>(from);
    }
  }
};

/// What a kernel writes or, if it `adds`, adds to; sums are rounded once.
template <class T, class S = void>
struct real_places : stored_numbers<T, void, S> {
  bool adds = false;

  explicit real_places(view const& v) : stored_numbers<T, void, S>(v) {}
  explicit real_places(destination const& d) : stored_numbers<T, void, S>(d.out), adds(d.accumulate) {}
  template <class U>
  requires(!std::is_same_v<U, S>) __device__ explicit real_places(real_places<T, U> const& p)
      : stored_numbers<T, void, S>(p), adds(p.adds) {}

  __device__ void store(index i, T x) const {
    if (this->narrow()) {
      bf16* const place = this->template at<bf16>(i);
      *place = bf16(adds ? static_cast<T>(*place) + x : x);
    } else {
      put(*this->template at<T>(i), x, adds);
    }
  }
  __device__ void store(index i, quad<T> q) const {
    if constexpr (std::is_same_v<T, float>)
      if (this->narrow()) {
        auto* const place = reinterpret_cast<pair_of_pairs*>(this->template at<bf16>(i));
        if (adds) {
          pair_of_pairs const old = *place;
          for (int p = 0; p < 2; ++p) {
            q[2 * p] += first_of(old.of[p]);
            q[2 * p + 1] += second_of(old.of[p]);
          }
        }
        *place = {{rounded_pair(q[0], q[1]), rounded_pair(q[2], q[3])}};
        return;
      }
    store_quad(this->template at<T>(i), q, adds);
  }
};

/// Whether four numbers at a time can be read from, or written to, this place on.
inline bool aligned(const_view const& v) {
  index const bytes = own_width * size_of(v.type);
  return reinterpret_cast<std::uintptr_t>(v.data) % static_cast<std::uintptr_t>(bytes < 16 ? bytes : 16) == 0;
}

/// The threads of a block for rows of this width, when each owns so many chunks.
inline int row_threads(index width, int chunks, int most) {
  index const warps = divide_up(divide_up(width, own_width * chunks), warp_size);
  return static_cast<int>(warps * warp_size < most ? warps * warp_size : most);
}

/// How the columns of a row lie among the threads: any number of them anywhere; in fours, each aligned, of which a thread
/// may have none; or in fours, of which every thread has as many as any other.
enum class row_cover { any, fours, full };

/// The columns of a thread: Chunks times four or, where they are any, up to so many.
template <int Chunks, row_cover Cover>
class own_columns {
  static constexpr bool whole = Cover != row_cover::any;

 public:
  static constexpr int count = Chunks;
  static constexpr bool full = Cover == row_cover::full;

  __device__ explicit own_columns(index width)
      : width_(static_cast<int>(width)),
        chunks_(whole ? Chunks : static_cast<int>(divide_up(width, own_width * static_cast<index>(blockDim.x)))) {}

  [[nodiscard]] __device__ int chunks() const { return whole ? Chunks : chunks_; }
  /// The first column of chunk k.
  [[nodiscard]] __device__ int first(int k) const {
    return own_width * static_cast<int>(threadIdx.x + static_cast<unsigned>(k) * blockDim.x);
  }
  /// Whether the row has column v of chunk k.
  [[nodiscard]] __device__ bool has(int k, int v) const { return full || first(k) + (whole ? 0 : v) < width_; }

  /// f(k, v) for every column.
  template <class F>
  __device__ void each(F const& f) const {
    for (int k = 0; k < chunks(); ++k) {
      OURO_UNROLL
      for (int v = 0; v < own_width; ++v)
        if (has(k, v)) f(k, v);
    }
  }
  /// The numbers of chunk k in the row that begins at element `row`; zero where the row has none.
  template <class T>
  [[nodiscard]] __device__ quad<T> load(T const* from, int row, int k) const {
    quad<T> q{};
    int const own = row + first(k);
    if constexpr (whole) {
      if (has(k, 0)) q = load_quad(from + own);
    } else {
      for (int v = 0; v < own_width; ++v)
        if (has(k, v)) q[v] = from[own + v];
    }
    return q;
  }
  /// Likewise, to be widened before use.
  template <class T, class S>
  [[nodiscard]] __device__ quad<T> fetch(reals<T, S> const& from, index row, int k) const {
    quad<T> q{};
    index const own = row + first(k);
    if constexpr (whole) {
      if (has(k, 0)) q = from.load(own);
    } else {
      for (int v = 0; v < own_width; ++v)
        if (has(k, v)) q[v] = from[own + v];
    }
    return q;
  }
  template <class T, class S>
  __device__ void widen(reals<T, S> const& from, quad<T>& fetched) const {
    if constexpr (whole) from.widen(fetched);
  }
  template <class T, class S>
  [[nodiscard]] __device__ quad<T> load(reals<T, S> const& from, index row, int k) const {
    quad<T> q = fetch(from, row, k);
    widen(from, q);
    return q;
  }
  template <class T>
  __device__ void store(T* to, int row, int k, quad<T> q, bool accumulate = false) const {
    T* const own = to + (row + first(k));
    if constexpr (whole) {
      if (has(k, 0)) store_quad(own, q, accumulate);
    } else {
      for (int v = 0; v < own_width; ++v)
        if (has(k, v)) put(own[v], q[v], accumulate);
    }
  }
  template <class T, class S>
  __device__ void store(real_places<T, S> const& to, index row, int k, quad<T> const& q) const {
    index const own = row + first(k);
    if constexpr (whole) {
      if (has(k, 0)) to.store(own, q);
    } else {
      for (int v = 0; v < own_width; ++v)
        if (has(k, v)) to.store(own + v, q[v]);
    }
  }
  /// How many of the row's columns the threads of this warp own.
  template <class T>
  [[nodiscard]] __device__ T columns_of_warp() const {
    T mine = 0;
    each([&](int, int) { mine += T(1); });
    return warp_sum(mine);
  }

 private:
  int width_;
  int chunks_;
};

/// The numbers that a thread owns in E rows one after another, held in registers, and zeroes where there are none; without
/// E, read whenever asked for. They are asked for at once and can be used when they have arrived.
template <int E, class Own, class Reals>
class wide_numbers {
  using T = typename Reals::number;

 public:
  __device__ wide_numbers(Own const& own, Reals const& from, index row, int width) : own_(own), from_(from) {
    OURO_UNROLL
    for (int j = 0; j < E; ++j) {
      OURO_UNROLL
      for (int k = 0; k < Own::count; ++k)
        held_[j][k] = from.absent() ? quad<T>{} : own.fetch(from, row + j * width, k);
    }
  }
  /// Zeroes, to be replaced by what comes from elsewhere.
  __device__ wide_numbers(Own const& own, Reals const& from) : own_(own), from_(from) {}
  [[nodiscard]] __device__ quad<T>& raw(int j, int k) { return held_[j][k]; }
  __device__ void arrive() {
    OURO_UNROLL
    for (int j = 0; j < E; ++j) {
      OURO_UNROLL
      for (int k = 0; k < Own::count; ++k) own_.widen(from_, held_[j][k]);
    }
  }
  __device__ quad<T> const& operator()(int j, int k) const { return held_[j][k]; }

 private:
  Own const& own_;
  Reals const& from_;
  quad<T> held_[E][Own::count] = {};
};
template <class Own, class Reals>
class wide_numbers<0, Own, Reals> {
  using T = typename Reals::number;

 public:
  __device__ wide_numbers(Own const& own, Reals const& from, index row, int width)
      : own_(own), from_(from), row_(row), width_(width) {}
  __device__ void arrive() {}
  __device__ quad<T> operator()(int j, int k) const {
    return from_.absent() ? quad<T>{} : own_.load(from_, row_ + j * width_, k);
  }

 private:
  Own const& own_;
  Reals const& from_;
  index row_;
  int width_;
};

/// f(p) for what each warp has left, p = 0 of as many as there are warps in a block; two are read at a time.
template <class P, class F>
__device__ void each_warps_part(P const* left, int warps, F const& f) {
  int w = 0;
  OURO_ROLLED
  for (; w + 2 <= warps; w += 2) {
    P const first = left[w];
    P const second = left[w + 1];
    f(first);
    f(second);
  }
  if (w < warps) f(left[w]);
}

template <class T, int N>
struct alignas(N % 2 == 0 ? 2 * sizeof(T) : sizeof(T)) numbers_of_warp {
  T of[N];
};
/// The sums over the threads of a block, in every thread. Of two calls in a row the slots, 0 or 1, must differ: then the
/// second's barrier tells that everybody has read what the first one left.
template <class T, int N>
__device__ void block_sums(T (&x)[N], int slot) {
  __shared__ numbers_of_warp<T, N> left[2][32];
  int const warps = static_cast<int>(blockDim.x) / warp_size;
  OURO_UNROLL
  for (int n = 0; n < N; ++n) x[n] = warp_sum(x[n]);
  if (warps == 1) return;
  if (lane_number() == 0)
    for (int n = 0; n < N; ++n) left[slot][threadIdx.x / warp_size].of[n] = x[n];
  __syncthreads();
  OURO_UNROLL
  for (int n = 0; n < N; ++n) x[n] = 0;
  each_warps_part(left[slot], warps, [&](numbers_of_warp<T, N> const& part) {
    OURO_UNROLL
    for (int n = 0; n < N; ++n) x[n] += part.of[n];
  });
}

template <class T>
__device__ T inverse_root(T x) {
#if defined(__CUDACC__)
  return rsqrt(x);
#else
  return T(1) / std::sqrt(x);
#endif
}

template <class T>
struct moments {
  T mean;
  T rstd;
};
/// How many numbers, their mean, and the sum of the squares of what differs from it.
template <class T>
struct alignas(4 * sizeof(T)) scatter {
  T count;
  T mean;
  T squares;
};
/// How many numbers, and the inverse of that: a division costs as much as what it is for.
template <class T>
struct amount {
  T count;
  T inverse;
  __device__ explicit amount(T n) : count(n), inverse(T(1) / n) {}
};
/// Of the numbers of a warp: each(f) calls f with every number of a thread.
template <class T, class Each>
__device__ scatter<T> warp_scatter(amount<T> const& n, Each const& each) {
  T sum = 0;
  each([&](T x) { sum += x; });
  T const mean = warp_sum(sum) * n.inverse;
  T squares = 0;
  each([&](T x) { squares += (x - mean) * (x - mean); });
  return {n.count, mean, warp_sum(squares)};
}
/// The same from what a thread has of their sum and of the sum of their squares: a mean that is large beside what varies costs
/// digits.
template <class T>
__device__ scatter<T> warp_scatter(amount<T> const& n, T sum, T squares) {
  sum = warp_sum(sum);
  T const mean = sum * n.inverse;
  T const apart = warp_sum(squares) - sum * mean;
  return {n.count, mean, apart > T(0) ? apart : T(0)};
}
/// Mean and 1/σ of a row's numbers, from those of the warps: two passes within a warp, and one barrier. Slots as above.
template <class T, int N>
__device__ void block_moments(moments<T> (&m)[N], scatter<T> const (&own)[N], amount<T> const& all, T eps, int slot) {
  __shared__ scatter<T> left[2][N][32];
  int const warps = static_cast<int>(blockDim.x) / warp_size;
  if (warps == 1) {
    for (int i = 0; i < N; ++i) m[i] = {own[i].mean, inverse_root(own[i].squares * all.inverse + eps)};
    return;
  }
  if (lane_number() == 0)
    for (int i = 0; i < N; ++i) left[slot][i][threadIdx.x / warp_size] = own[i];
  __syncthreads();
  OURO_UNROLL
  for (int i = 0; i < N; ++i) {
    // Means are taken from the first warp's, for they differ little.
    T const origin = left[slot][i][0].mean;
    T sum = 0;
    T squares = 0;
    each_warps_part(left[slot][i], warps, [&](scatter<T> const& part) {
      T const apart = part.mean - origin;
      sum += part.count * apart;
      squares += part.squares + part.count * apart * apart;
    });
    T const mean = sum * all.inverse;
    m[i] = {origin + mean, inverse_root((squares - sum * mean) * all.inverse + eps)};
  }
}

/// Blocks that take any number of rows each.
template <class... P>
index row_blocks(void (*kernel)(P...), index rows, int threads, std::size_t shared_bytes = 0) {
  return rows <= multiprocessors() ? rows : grid_of(rows, 1, resident_blocks(kernel, threads, shared_bytes));
}

}  // namespace ouro::cuda_kernels
