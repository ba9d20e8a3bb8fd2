// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The recurrence of Mamba-2 (contract: ouro/concepts/scans.hpp): a walk row by row. Its gradient by chunks (Dao & Gu,
// "Transformers are SSMs", 2024, section 6). With l_t = Σ step · rate up to row t, X = step x and L_ts = exp(l_t − l_s) for s ≤ t:
//   Y = (L ⊙ C Bᵀ) X + exp(l) ⊙ (C Sᵀ) + skip x;  S ← exp(l_end) S + Xᵀ (exp(l_end − l) ⊙ B)
// Differences of l are never positive, and what is above the diagonal is selected away, so nothing overflows. l is kept in
// f64: after a long pause in the middle of a chunk the difference of two large sums must still be right.
#include "scan_chunk.hpp"
#include "scan_walk.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
struct ssd_problem {
  scan_shape s;
  index groups;
  scan_rows<T const> x, step, b, c;
  T const* rate;
  T const* skip;
  T const* state;

  explicit ssd_problem(ssd_operands const& in)
      : s(in.x.dims, in.state.dims),
        groups(in.b.dims[2] / in.state.dims[3]),
        x(scan_rows_of<T>(in.x)),
        step(scan_rows_of<T>(in.step)),
        b(scan_rows_of<T>(in.b)),
        c(scan_rows_of<T>(in.c)),
        rate(in.rate.as<T>()),
        skip(in.skip.as<T>()),
        state(in.state.as<T>()) {}

  /// Heads that see the same columns of b and c.
  [[nodiscard]] __host__ __device__ index sharing() const { return s.heads / groups; }
};

/// exp(step · rate).
template <class T>
struct rest_of {
  scan_rows<T const> step;
  T const* rate;
  __device__ T operator()(index n, index t, index h) const { return std::exp(*step.at(n, t, h) * rate[h]); }
};
template <class T>
made_rows<T> rests(char const* name, ssd_problem<T> const& p) {
  return {name, p.s, p.s.heads, rest_of<T>{p.step, p.rate}};
}

/// Row i of a state moves on: S ← exp(step · rate) S + step x_i b. It says S c.
template <bool Says>
struct ssd_forwards {
  enum : int { b, c, vectors };
  enum : int { rest, step, scalars };
  static constexpr bool backwards = false;
  static constexpr bool says = Says;

  template <int Lanes, class T, int Each>
  __device__ static T advance(T (&S)[Each], T const (&v)[vectors][Each], T x, T const* known) {
    T const value = known[step] * x;
    T said[2] = {};
    OURO_UNROLL
    for (int e = 0; e < Each; ++e) {
      S[e] = known[rest] * S[e] + value * v[b][e];
      if constexpr (Says) said[e % 2] += S[e] * v[c][e];
    }
    return said[0] + said[1];
  }
};
/// Row i of the gradient of a state moves back: G ← exp(step · rate) (G + dy_i c).
struct ssd_backwards {
  enum : int { c, vectors };
  enum : int { rest, scalars };
  static constexpr bool backwards = true;
  static constexpr bool says = false;

  template <int Lanes, class T, int Each>
  __device__ static T advance(T (&G)[Each], T const (&v)[vectors][Each], T slope, T const* known) {
    OURO_UNROLL
    for (int e = 0; e < Each; ++e) G[e] = known[rest] * (G[e] + slope * v[c][e]);
    return T(0);
  }
};

template <class T>
walk_operands<T> forwards(ssd_problem<T> const& p, scan_rows<T const> const& rest) {
  walk_operands<T> w{.vectors = {p.b, p.c}, .sharing = p.sharing()};
  w.values = p.x;
  w.scalars[0] = rest;
  w.scalars[1] = p.step;
  w.start = p.state;
  return w;
}

template <class T>
struct ssd_slopes {
  scan_rows<T const> dy;
  scan_rows<T> x, step;
  T* b;     // (B,T,H,N): each head's part
  T* c;     // (B,T,H,N)
  T* rate;  // (B,H,chunks): each chunk's part
  T* skip;  // (B,H,chunks)
};

/// The matrices of a chunk of L rows.
template <class T>
struct ssd_chunk {
  double* l;                       // (L + 1): before row 0, after row 0, …
  chunk_matrix<T> x, scaled;       // (L,V): x, step x
  chunk_matrix<T> up, dx;          // (L,V): dy; the gradient of step x
  chunk_matrix<T> b, c, db, dc;    // (L,K)
  chunk_matrix<T> mask, m;         // (L,L): L, L ⊙ C Bᵀ
  chunk_matrix<T> dcb, f;          // (L,L): L ⊙ dY Xᵀ, m ⊙ dY Xᵀ
  chunk_matrix<T> scalars, terms;  // (5,L); (1,threads)
  chunk_matrix<T> room;            // rows of a state

  enum : int { step, of_start, of_end, own, of_skip, all_scalars };

  template <class F>
  __host__ __device__ void share(scan_shape const& s, F& take) {
    int const L = s.length;
    take(x, L, s.value);
    take(scaled, L, s.value);
    take(up, L, s.value);
    take(dx, L, s.value);
    take(b, L, s.key);
    take(c, L, s.key);
    take(db, L, s.key);
    take(dc, L, s.key);
    take(mask, L, L);
    take(m, L, L);
    take(dcb, L, L);
    take(f, L, L);
    take(scalars, all_scalars, L);
    take(terms, 1, chunk_threads);
    take(room, state_rows_at_once(s.value), s.key);
  }
  static std::size_t bytes(scan_shape const& s) {
    return static_cast<std::size_t>(s.length + 1) * sizeof(double) + chunk_bytes<T, ssd_chunk>(s);
  }

  /// What is left at row t of the start, and at the end of row t.
  [[nodiscard]] __device__ T from_start(int t) const { return std::exp(static_cast<T>(l[t + 1])); }
  [[nodiscard]] __device__ T to_end(int t, int length) const { return std::exp(static_cast<T>(l[length] - l[t + 1])); }
};

/// Loads a chunk; rows behind its last have step 0: they change nothing.
template <class T>
__device__ void prepare(ssd_chunk<T> const& k, ssd_problem<T> const& p, ssd_slopes<T> const& to,
                        chunk_place<T> const& at) {
  constexpr double nothing_left = -1000;  // exp of it is 0 in any format
  scan_shape const& s = p.s;
  int const L = s.length;
  index const group = at.h / p.sharing() * s.key;
  load_chunk(k.x, L, s.value, p.x, at, at.h * s.value);
  load_chunk(k.up, L, s.value, to.dy, at, at.h * s.value);
  load_chunk(k.b, L, s.key, p.b, at, group);
  load_chunk(k.c, L, s.key, p.c, at, group);
  load_chunk(k.scalars.transposed(), L, 1, p.step, at, at.h);
  __syncthreads();
  if (threadIdx.x == 0) {
    k.l[0] = 0;
    for (int t = 0; t < L; ++t) {
      double const decay = static_cast<double>(k.scalars(k.step, t)) * static_cast<double>(p.rate[at.h]);
      k.l[t + 1] = k.l[t] + (decay > nothing_left ? decay : nothing_left);
    }
  }
  for_elements(L, s.value, [&](int t, int i) { k.scaled(t, i) = k.scalars(k.step, t) * k.x(t, i); });
  __syncthreads();
  for_elements(L, L,
               [&](int t, int j) { k.mask(t, j) = j > t ? T(0) : std::exp(static_cast<T>(k.l[t + 1] - k.l[j + 1])); });
  __syncthreads();
}

/// A block for each chunk of each lane and head. `states` are those between chunks, `slopes` their gradients.
template <class T>
__global__ void __launch_bounds__(chunk_threads)
    ssd_chunk_kernel(ssd_problem<T> p, ssd_slopes<T> to, T const* states, T const* slopes) {
  scan_shape const& s = p.s;
  ssd_chunk<T> k;
  k.l = shared_memory<double>();
  chunk_shares<T> memory{reinterpret_cast<T*>(k.l + s.length + 1)};
  k.share(s, memory);
  chunk_place<T> const at(s, states, slopes);
  int const L = s.length;
  int const room_rows = state_rows_at_once(s.value);

  prepare(k, p, to, at);
  // Pairs of rows inside the chunk. What the mask hides may be infinite.
  for_products(L, L, s.key, k.c, k.b.transposed(),
               [&](int t, int j, T x) { k.m(t, j) = k.mask(t, j) == T(0) ? T(0) : k.mask(t, j) * x; });
  __syncthreads();
  for_products(L, L, s.value, k.up, k.scaled.transposed(), [&](int t, int j, T x) {
    bool const hidden = k.mask(t, j) == T(0);
    k.dcb(t, j) = hidden ? T(0) : k.mask(t, j) * x;
    k.f(t, j) = hidden ? T(0) : k.m(t, j) * x;
  });
  for_products(L, s.value, L, k.m.transposed(), k.up, [&](int t, int i, T x) { k.dx(t, i) = x; });

  // The gradients of C and B through the state come first, as the decay needs them alone.
  for_elements(L, s.key, [&](int t, int j) { k.dc(t, j) = k.db(t, j) = T(0); });
  for_state_rows(k.room, room_rows, s, at.start, [&](int i, int count, chunk_matrix<T> S) {
    for_products(L, s.key, count, k.up.from(0, i), S, [&](int t, int j, T x) { k.dc(t, j) += k.from_start(t) * x; });
  });
  T through = 0;
  for_state_rows(k.room, room_rows, s, at.slope, [&](int i, int count, chunk_matrix<T> G) {
    for_products(L, s.key, count, k.scaled.from(0, i), G, [&](int t, int j, T x) { k.db(t, j) += k.to_end(t, L) * x; });
    for_products(L, count, s.key, k.b, G.transposed(),
                 [&](int t, int v, T x) { k.dx(t, i + v) += k.to_end(t, L) * x; });
    for_elements(count, s.key, [&](int v, int j) { through += G(v, j) * at.start[index{i + v} * s.key + j]; });
  });
  k.terms(0, static_cast<int>(threadIdx.x)) = through;
  __syncthreads();
  // A warp for each sum of a row.
  int const warp = static_cast<int>(threadIdx.x) / warp_size;
  int const lane = lane_number();
  for (int t = warp; t < L; t += chunk_threads / warp_size) {
    T sum[4] = {};
    for (int j = lane; j < s.key; j += warp_size) {
      sum[0] += k.c(t, j) * k.dc(t, j);
      sum[1] += k.b(t, j) * k.db(t, j);
    }
    for (int i = lane; i < s.value; i += warp_size) {
      sum[2] += k.x(t, i) * k.dx(t, i);
      sum[3] += k.x(t, i) * k.up(t, i);
    }
    for (int q = 0; q < 4; ++q) {
      T const all = warp_sum(sum[q]);
      if (lane == 0) k.scalars(k.of_start + q, t) = all;
    }
  }
  __syncthreads();
  for_products(L, s.key, L, k.dcb, k.b, [&](int t, int j, T x) { k.dc(t, j) += x; });
  for_products(L, s.key, L, k.dcb.transposed(), k.c, [&](int t, int j, T x) { k.db(t, j) += x; });

  // d(step rate)_t sums, without any subtraction, what spans row t: pairs (i ≥ t, j < t), the start as seen by rows i ≥ t,
  // rows j < t as left at the end, and the start as left at the end.
  if (warp == 0) {
    double all = 0;
    for (int e = lane; e < chunk_threads; e += warp_size) all += static_cast<double>(k.terms(0, e));
    all = warp_sum(all) * static_cast<double>(k.from_start(L - 1));
    double of_rate = 0;
    double of_skip = 0;
    if (lane < at.rows) {
      int const t = lane;
      double sum = all;
      for (int j = 0; j < t; ++j) sum += static_cast<double>(k.scalars(k.of_end, j));
      for (int i = t; i < L; ++i) {
        sum += static_cast<double>(k.scalars(k.of_start, i));
        for (int j = 0; j < t; ++j) sum += static_cast<double>(k.f(i, j));
      }
      double const rate = static_cast<double>(p.rate[at.h]);
      to.step.put_at(at.n, at.first + t, at.h, static_cast<T>(static_cast<double>(k.scalars(k.own, t)) + rate * sum));
      of_rate = static_cast<double>(k.scalars(k.step, t)) * sum;
      of_skip = static_cast<double>(k.scalars(k.of_skip, t));
    }
    of_rate = warp_sum(of_rate);
    of_skip = warp_sum(of_skip);
    if (lane == 0) {
      to.rate[blockIdx.x] = static_cast<T>(of_rate);
      to.skip[blockIdx.x] = static_cast<T>(of_skip);
    }
  }
  __syncthreads();
  T const skip = p.skip[at.h];
  for_elements(at.rows, s.value, [&](int t, int i) {
    to.x.put_at(at.n, at.first + t, at.h * s.value + i, k.scalars(k.step, t) * k.dx(t, i) + skip * k.up(t, i));
  });
  for_elements(at.rows, s.key, [&](int t, int j) {
    index const place = ((at.n * s.rows + at.first + t) * s.heads + at.h) * s.key + j;
    to.b[place] = k.db(t, j);
    to.c[place] = k.dc(t, j);
  });
}

/// The gradient of b or c: the sum over the heads of a group.
template <class T>
struct sum_heads {
  scan_rows<T> to;
  T const* parts;
  scan_shape s;
  index groups;
  __device__ void operator()(index at) const {
    index const j = at % s.key;
    index const group = at / s.key % groups;
    index const row = at / s.key / groups;
    index const heads = s.heads / groups;
    T sum = 0;
    for (index h = group * heads; h < (group + 1) * heads; ++h) sum += parts[(row * s.heads + h) * s.key + j];
    to.put_at(row / s.rows, row % s.rows, group * s.key + j, sum);
  }
};
/// The gradient of rate or skip: the sum over lanes and chunks.
template <class T>
struct sum_chunks {
  T* to;
  bool accumulate;
  T const* parts;
  scan_shape s;
  __device__ void operator()(index h) const {
    double sum = 0;
    for (index n = 0; n < s.lanes; ++n)
      for (index c = 0; c < s.chunks(); ++c) sum += static_cast<double>(parts[(n * s.heads + h) * s.chunks() + c]);
    put(to[h], static_cast<T>(sum), accumulate);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::ssd_scan(view y, view last, ssd_operands const& in) {
  constexpr auto name = "ssd_scan";
  with_real(in.x.type, name, [&]<class T>(std::type_identity<T>) {
    ssd_problem<T> p(in);
    shorten(p.s, name, [&] { return walk_bytes<T, ssd_forwards<true>>(name, p.s); });
    auto const rest = rests(name, p);
    auto w = forwards(p, rest.get());
    w.skip = p.skip;
    w.said = scan_rows_of<T>(destination(y));
    w.end = last.as<T>();
    walk<T, ssd_forwards<true>>(name, p.s, w);
  });
}

void cuda::ssd_scan_gradient(ssd_gradients const& to, ssd_operands const& in, const_view dy, const_view dlast) {
  constexpr auto name = "ssd_scan_gradient";
  with_real(in.x.type, name, [&]<class T>(std::type_identity<T>) {
    ssd_problem<T> p(in);
    using walks = walked_both_ways<T, ssd_forwards<false>, ssd_backwards>;
    shorten(p.s, name, [&] { return std::max(walks::bytes(name, p.s), ssd_chunk<T>::bytes(p.s)); });
    auto const rest = rests(name, p);
    walk_operands<T> const back{.vectors = {p.c}, .sharing = p.sharing(), .scalars = {rest.get()}};
    walks const w(name, p.s, forwards(p, rest.get()), back, dy, dlast, to.state);

    index const blocks = p.s.flats() * p.s.chunks();
    index const columns = p.s.flats() * p.s.rows * p.s.key;
    device_array<T> const parts(2 * columns + 2 * blocks);
    T* const scalars = parts.data() + 2 * columns;
    launch(name, ssd_chunk_kernel<T>, blocks, chunk_threads, ssd_chunk<T>::bytes(p.s), p,
           ssd_slopes<T>{scan_rows_of<T>(dy), scan_rows_of<T>(to.x), scan_rows_of<T>(to.step), parts.data(),
                         parts.data() + columns, scalars, scalars + blocks},
           w.states(), w.slopes());
    index const shared = p.s.lanes * p.s.rows * p.groups * p.s.key;
    if (to.b.wanted()) for_count(name, shared, sum_heads<T>{scan_rows_of<T>(to.b), parts.data(), p.s, p.groups});
    if (to.c.wanted())
      for_count(name, shared, sum_heads<T>{scan_rows_of<T>(to.c), parts.data() + columns, p.s, p.groups});
    if (to.rate.wanted())
      for_count(name, p.s.heads, sum_chunks<T>{to.rate.out.as<T>(), to.rate.accumulate, scalars, p.s});
    if (to.skip.wanted())
      for_count(name, p.s.heads, sum_chunks<T>{to.skip.out.as<T>(), to.skip.accumulate, scalars + blocks, p.s});
  });
}

}  // namespace ouro
