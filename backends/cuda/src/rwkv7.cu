// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The RWKV-7 recurrence (contract: ouro/concepts/scans.hpp): a walk row by row. Its gradient by chunks: within one the decays
// are taken out of the operands, so that all pairs of rows become products of small matrices (products of rank-one changes in
// the manner of Bischof & Van Loan, 1987; Yang et al., "Parallelizing linear transformers with the delta rule", 2024). With
// gamma_t = Σ log d up to row t, and Gamma = exp(gamma) at the end of the chunk:
//   A = a exp(gamma_{t−1}), R = r exp(gamma_t), K = k exp(−gamma_t), B = b exp(−gamma_t);  M = [A; R] [K; B]ᵀ, triangular
//   U = (1 − M_AB)⁻¹ (A Sᵀ + M_AK V);  Y = R Sᵀ + M_RK V + M_RB U
// As d > 0.545, exp(−gamma) is at most 16 400 and no exponent needs care.
#include "functions.hpp"
#include "scan_chunk.hpp"
#include "scan_walk.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

template <class T>
inline constexpr T decay_bound = T(0.60653065971263342);  // e^(−1/2)

template <class T>
struct rwkv7_problem {
  scan_shape s;
  scan_rows<T const> r, w, k, v, a, b;
  T const* state;

  explicit rwkv7_problem(rwkv7_operands const& in)
      : s(in.r.dims, in.state.dims),
        r(scan_rows_of<T>(in.r)),
        w(scan_rows_of<T>(in.w)),
        k(scan_rows_of<T>(in.k)),
        v(scan_rows_of<T>(in.v)),
        a(scan_rows_of<T>(in.a)),
        b(scan_rows_of<T>(in.b)),
        state(in.state.as<T>()) {}
};

template <class T>
struct decay_of {
  scan_rows<T const> w;
  __device__ T operator()(index n, index t, index column) const {
    return std::exp(-decay_bound<T> * sigmoid(*w.at(n, t, column)));
  }
};
template <class T>
made_rows<T> decays(char const* name, rwkv7_problem<T> const& p) {
  return {name, p.s, p.s.heads * p.s.key, decay_of<T>{p.w}};
}

/// Row i of a state moves on: u = S a, S ← S ⊙ d + u b + v_i k. It says S r.
template <bool Says>
struct rwkv7_forwards {
  enum : int { a, d, b, k, r, vectors };
  static constexpr int scalars = 0;
  static constexpr bool backwards = false;
  static constexpr bool says = Says;

  template <int Lanes, class T, int Each>
  __device__ static T advance(T (&S)[Each], T const (&x)[vectors][Each], T value, T const*) {
    T u[2] = {};
    OURO_UNROLL
    for (int e = 0; e < Each; ++e) u[e % 2] += S[e] * x[a][e];
    T const all = lanes_sum<Lanes>(u[0] + u[1]);
    T said[2] = {};
    OURO_UNROLL
    for (int e = 0; e < Each; ++e) {
      S[e] = S[e] * x[d][e] + value * x[k][e] + all * x[b][e];
      if constexpr (Says) said[e % 2] += S[e] * x[r][e];
    }
    return said[0] + said[1];
  }
};
/// Row i of the gradient of a state moves back: G ← G + dy_i r, then G ← G ⊙ d + (G b) a.
struct rwkv7_backwards {
  enum : int { r, b, d, a, vectors };
  static constexpr int scalars = 0;
  static constexpr bool backwards = true;
  static constexpr bool says = false;

  template <int Lanes, class T, int Each>
  __device__ static T advance(T (&G)[Each], T const (&x)[vectors][Each], T slope, T const*) {
    T du[2] = {};
    OURO_UNROLL
    for (int e = 0; e < Each; ++e) {
      G[e] += slope * x[r][e];
      du[e % 2] += G[e] * x[b][e];
    }
    T const all = lanes_sum<Lanes>(du[0] + du[1]);
    OURO_UNROLL
    for (int e = 0; e < Each; ++e) G[e] = G[e] * x[d][e] + all * x[a][e];
    return T(0);
  }
};

template <class T>
walk_operands<T> forwards(rwkv7_problem<T> const& p, scan_rows<T const> const& d) {
  walk_operands<T> w{.vectors = {p.a, d, p.b, p.k, p.r}};
  w.values = p.v;
  w.start = p.state;
  return w;
}

template <class T>
struct rwkv7_slopes {
  scan_rows<T const> dy;
  scan_rows<T> r, w, k, v, a, b;
};

/// The matrices of a chunk of L rows. [x; y]: x over y.
template <class T>
struct rwkv7_chunk {
  chunk_matrix<T> ar, kb, dar, dkb;  // (2L,K): [A; R], [K; B], and their gradients
  chunk_matrix<T> decay, gate;       // (L + 1,K): exp(gamma) before row 0, after row 0, …; (L,K): sigmoid(w)
  chunk_matrix<T> vu, zy, dvu;       // (2L,V): [V; U], [dZ; dY] with dZ that of U's right side, the gradient of [V; U]
  chunk_matrix<T> m, dm;             // (2L,2L)
  chunk_matrix<T> of_decay;          // (parts,K)
  chunk_matrix<T> room;              // rows of a state
  int parts;

  template <class F>
  __host__ __device__ void share(scan_shape const& s, F& take) {
    int const wide = 2 * s.length;
    parts = s.key < chunk_threads ? chunk_threads / s.key : 1;
    take(ar, wide, s.key);
    take(kb, wide, s.key);
    take(dar, wide, s.key);
    take(dkb, wide, s.key);
    take(decay, s.length + 1, s.key);
    take(gate, s.length, s.key);
    take(vu, wide, s.value);
    take(zy, wide, s.value);
    take(dvu, wide, s.value);
    take(m, wide, wide);
    take(dm, wide, wide);
    take(of_decay, parts, s.key);
    take(room, state_rows_at_once(s.value), s.key);
  }
  static std::size_t bytes(scan_shape const& s) { return chunk_bytes<T, rwkv7_chunk>(s); }
};

/// What M and its gradient have above the triangles is zero: U sees rows before its own, Y also its own.
__device__ inline bool in_triangle(int i, int j, int length) {
  int const column = j < length ? j : j - length;
  return i < length ? column < i : column <= i - length;
}

/// x ← (1 − M)⁻¹ x for a strictly lower triangular M, a thread for each column.
template <class T>
__device__ void solve(chunk_matrix<T> m, chunk_matrix<T> x, int length, int columns) {
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += chunk_threads)
    for (int t = 1; t < length; ++t) {
      T sum = x(t, i);
      for (int c = 0; c < t; ++c) sum += m(t, c) * x(c, i);
      x(t, i) = sum;
    }
}
/// x ← (1 − Mᵀ)⁻¹ x.
template <class T>
__device__ void solve_transposed(chunk_matrix<T> m, chunk_matrix<T> x, int length, int columns) {
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += chunk_threads)
    for (int t = length - 2; t >= 0; --t) {
      T sum = x(t, i);
      for (int c = t + 1; c < length; ++c) sum += m(c, t) * x(c, i);
      x(t, i) = sum;
    }
}

/// The operands of a chunk with the decays taken out. Rows behind its last are zero and do not decay.
template <class T>
__device__ void prepare(rwkv7_chunk<T> const& c, rwkv7_problem<T> const& p, rwkv7_slopes<T> const& to,
                        chunk_place<T> const& at) {
  scan_shape const& s = p.s;
  int const L = s.length;
  for_elements(L, s.key, [&](int t, int j) {
    index const column = at.h * s.key + j;
    bool const there = t < at.rows;
    c.gate(t, j) = there ? sigmoid(*p.w.at(at.n, at.first + t, column)) : T(0);
    c.ar(t, j) = there ? *p.a.at(at.n, at.first + t, column) : T(0);
    c.ar(L + t, j) = there ? *p.r.at(at.n, at.first + t, column) : T(0);
    c.kb(t, j) = there ? *p.k.at(at.n, at.first + t, column) : T(0);
    c.kb(L + t, j) = there ? *p.b.at(at.n, at.first + t, column) : T(0);
  });
  load_chunk(c.vu, L, s.value, p.v, at, at.h * s.value);
  load_chunk(c.zy.from(L), L, s.value, to.dy, at, at.h * s.value);
  __syncthreads();
  for (int j = static_cast<int>(threadIdx.x); j < s.key; j += chunk_threads) {
    T gamma = 0;
    c.decay(0, j) = T(1);
    for (int t = 0; t < L; ++t) {
      gamma -= decay_bound<T> * c.gate(t, j);
      c.decay(t + 1, j) = std::exp(gamma);
    }
  }
  __syncthreads();
  for_elements(L, s.key, [&](int t, int j) {
    T const inverse = T(1) / c.decay(t + 1, j);
    c.ar(t, j) *= c.decay(t, j);
    c.ar(L + t, j) *= c.decay(t + 1, j);
    c.kb(t, j) *= inverse;
    c.kb(L + t, j) *= inverse;
  });
  __syncthreads();
}

/// The gradients of the operands themselves, last row first. That of log d_t is that of every later pair that spans it: with
/// Q = R dR − K dK − B dB, P = A dA and c that of the state after the chunk, dg_t = c + Σ Q from row t on + Σ P after it.
template <class T>
__device__ void finish(rwkv7_chunk<T> const& c, scan_shape const& s, rwkv7_slopes<T> const& to,
                       chunk_place<T> const& at) {
  int const L = s.length;
  for (int j = static_cast<int>(threadIdx.x); j < s.key; j += chunk_threads) {
    index const column = at.h * s.key + j;
    T rest = 0;
    for (int q = 0; q < c.parts; ++q) rest += c.of_decay(q, j);
    for (int t = at.rows - 1; t >= 0; --t) {
      rest += c.ar(L + t, j) * c.dar(L + t, j) - c.kb(t, j) * c.dkb(t, j) - c.kb(L + t, j) * c.dkb(L + t, j);
      T const gate = c.gate(t, j);
      to.w.put_at(at.n, at.first + t, column, rest * -decay_bound<T> * gate * (T(1) - gate));
      rest += c.ar(t, j) * c.dar(t, j);
    }
  }
  for_elements(at.rows, s.key, [&](int t, int j) {
    index const column = at.h * s.key + j;
    T const inverse = T(1) / c.decay(t + 1, j);
    to.a.put_at(at.n, at.first + t, column, c.dar(t, j) * c.decay(t, j));
    to.r.put_at(at.n, at.first + t, column, c.dar(L + t, j) * c.decay(t + 1, j));
    to.k.put_at(at.n, at.first + t, column, c.dkb(t, j) * inverse);
    to.b.put_at(at.n, at.first + t, column, c.dkb(L + t, j) * inverse);
  });
  store_chunk(c.dvu, s.value, to.v, at, at.h * s.value);
}

/// A block for each chunk of each lane and head. `states` are those between chunks, `slopes` their gradients.
template <class T>
__global__ void __launch_bounds__(chunk_threads)
    rwkv7_chunk_kernel(rwkv7_problem<T> p, rwkv7_slopes<T> to, T const* states, T const* slopes) {
  scan_shape const& s = p.s;
  rwkv7_chunk<T> c;
  chunk_shares<T> memory{shared_memory<T>()};
  c.share(s, memory);
  chunk_place<T> const at(s, states, slopes);
  int const L = s.length;
  int const wide = 2 * L;
  int const room_rows = state_rows_at_once(s.value);
  auto const u = c.vu.from(L);
  auto const dz = c.zy.from(0);
  auto const m_ab = c.m.from(0, L);

  prepare(c, p, to, at);
  for_products(wide, wide, s.key, c.ar, c.kb.transposed(),
               [&](int i, int j, T x) { c.m(i, j) = in_triangle(i, j, L) ? x : T(0); });
  for_state_rows(c.room, room_rows, s, at.start, [&](int i, int count, chunk_matrix<T> S) {
    for_products(L, count, s.key, c.ar, S.transposed(), [&](int t, int v, T x) { u(t, i + v) = x; });
  });
  __syncthreads();
  for_products(L, s.value, L, c.m, c.vu, [&](int t, int v, T x) { u(t, v) += x; });
  __syncthreads();
  solve(m_ab, u, L, s.value);

  // dV and dU from Y and from the state after; then through U's equations.
  for_products(wide, s.value, L, c.m.from(L).transposed(), c.zy.from(L), [&](int t, int v, T x) { c.dvu(t, v) = x; });
  for_state_rows(c.room, room_rows, s, at.slope, [&](int i, int count, chunk_matrix<T> G) {
    for_elements(count, s.key, [&](int v, int j) { G(v, j) *= c.decay(L, j); });
    __syncthreads();
    for_products(wide, count, s.key, c.kb, G.transposed(), [&](int t, int v, T x) { c.dvu(t, i + v) += x; });
  });
  __syncthreads();
  for_elements(L, s.value, [&](int t, int v) { dz(t, v) = c.dvu(L + t, v); });
  __syncthreads();
  solve_transposed(m_ab, dz, L, s.value);
  __syncthreads();
  for_products(L, s.value, L, c.m.from(0).transposed(), dz, [&](int t, int v, T x) { c.dvu(t, v) += x; });
  for_products(wide, wide, s.value, c.zy, c.vu.transposed(),
               [&](int i, int j, T x) { c.dm(i, j) = in_triangle(i, j, L) ? x : T(0); });
  __syncthreads();

  for_products(wide, s.key, wide, c.dm, c.kb, [&](int t, int j, T x) { c.dar(t, j) = x; });
  for_products(wide, s.key, wide, c.dm.transposed(), c.ar, [&](int t, int j, T x) { c.dkb(t, j) = x; });
  for_state_rows(c.room, room_rows, s, at.start, [&](int i, int count, chunk_matrix<T> S) {
    for_products(wide, s.key, count, c.zy.from(0, i), S, [&](int t, int j, T x) { c.dar(t, j) += x; });
  });
  for_elements(c.parts, s.key, [&](int q, int j) { c.of_decay(q, j) = 0; });
  for_state_rows(c.room, room_rows, s, at.slope, [&](int i, int count, chunk_matrix<T> G) {
    for_products(wide, s.key, count, c.vu.from(0, i), G, [&](int t, int j, T x) { c.dkb(t, j) += x * c.decay(L, j); });
    for_elements(c.parts, s.key, [&](int q, int j) {
      T sum = 0;
      for (int v = q; v < count; v += c.parts) sum += G(v, j) * at.after[index{i + v} * s.key + j];
      c.of_decay(q, j) += sum;
    });
  });
  __syncthreads();
  finish(c, s, to, at);
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::rwkv7_scan(view y, view last, rwkv7_operands const& in) {
  constexpr auto name = "rwkv7_scan";
  with_real(in.r.type, name, [&]<class T>(std::type_identity<T>) {
    rwkv7_problem<T> p(in);
    shorten(p.s, name, [&] { return walk_bytes<T, rwkv7_forwards<true>>(name, p.s); });
    auto const d = decays(name, p);
    auto w = forwards(p, d.get());
    w.said = scan_rows_of<T>(destination(y));
    w.end = last.as<T>();
    walk<T, rwkv7_forwards<true>>(name, p.s, w);
  });
}

void cuda::rwkv7_scan_gradient(rwkv7_gradients const& to, rwkv7_operands const& in, const_view dy, const_view dlast) {
  constexpr auto name = "rwkv7_scan_gradient";
  with_real(in.r.type, name, [&]<class T>(std::type_identity<T>) {
    rwkv7_problem<T> p(in);
    using walks = walked_both_ways<T, rwkv7_forwards<false>, rwkv7_backwards>;
    shorten(p.s, name, [&] { return std::max(walks::bytes(name, p.s), rwkv7_chunk<T>::bytes(p.s)); });
    auto const d = decays(name, p);
    walks const w(name, p.s, forwards(p, d.get()), {.vectors = {p.r, p.b, d.get(), p.a}}, dy, dlast, to.state);
    launch(name, rwkv7_chunk_kernel<T>, p.s.flats() * p.s.chunks(), chunk_threads, rwkv7_chunk<T>::bytes(p.s), p,
           rwkv7_slopes<T>{scan_rows_of<T>(dy), scan_rows_of<T>(to.r), scan_rows_of<T>(to.w), scan_rows_of<T>(to.k),
                           scan_rows_of<T>(to.v), scan_rows_of<T>(to.a), scan_rows_of<T>(to.b)},
           w.states(), w.slopes());
  });
}

}  // namespace ouro
