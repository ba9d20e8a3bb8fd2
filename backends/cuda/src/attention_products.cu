// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention of long sequences by products of cuBLAS, which has the tensor cores: the scores of as many queries as fit are
// written out, turned into weights by one pass over their rows, and multiplied with the values. Runs of queries end where
// the kind of what they see changes, so that little is computed that nobody sees.
#include "attention_products.hpp"

#include "rows.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

/// Calls f(first query, queries, keys that any of them sees) for runs of queries.
template <class F>
void for_runs(attention_rule const& rule, index queries, index keys, index bytes, F&& f) {
  index const room = score_bytes / (rule.heads * keys * bytes);
  for (index first = 0; first < queries;) {
    index const row = rule.sees.first + first;
    index end = queries;
    index most = room > 1 ? room : 1;
    auto ends_at = [&](index r) {
      index const query = r - rule.sees.first;
      if (query > first && query < end) end = query;
    };
    ends_at(rule.sees.prefix);
    ends_at(rule.sees.prefix + rule.sees.causal);
    if (row >= rule.sees.prefix && row < rule.sees.prefix + rule.sees.causal && most > causal_run) most = causal_run;
    if (end - first > most) end = first + most;
    f(first, end - first, rule.sees.count(end - 1, keys));
    first = end;
  }
}

/// The heads of one lane, rows `first` and on, as a batch of matrices.
template <class View>
View heads_of(View const& v, index heads, index lane, index first, index count) {
  index const width = v.dims[2] / heads;
  View const rows = v.slice(0, lane, 1).slice(1, first, count);
  return {rows.data, v.type, {heads, count, width}, {width, v.steps[1], 1}};
}

/// Scores of a run, (heads, rows, keys), each row at a multiple of 32 bytes.
template <class T>
class score_table {
 public:
  score_table(index heads, index rows, index keys)
      : pitch_(divide_up(keys, 8) * 8),
        memory_(heads * rows * pitch_),
        view_(memory_.data(), dtype_of<T>, {heads, rows, keys}, {rows * pitch_, pitch_, 1}) {}
  [[nodiscard]] view const& all() const { return view_; }
  [[nodiscard]] T* data() const { return memory_.data(); }
  [[nodiscard]] index pitch() const { return pitch_; }

 private:
  index pitch_;
  device_array<T> memory_;
  view view_;
};

/// The run of queries that a pass over rows works on: row r of the scores is query first + r mod rows of its head.
template <class T>
struct score_rows {
  attention_problem<T> p;
  index flat;  // the number of the lane's first head among all
  index first;
  index rows;
  index keys;
  index pitch;

  struct place {
    index head;  // among all
    index query;
    index count;  // keys that it sees
    index row;    // among the queries of all heads
  };
  __device__ place at(index r) const {
    index const head = flat + r / rows;
    index const query = first + r % rows;
    return {head, query, p.sees.count(query, p.keys), head * p.queries + query};
  }
  /// f(key, factor of the dropout) for the keys that this lane has.
  template <class F>
  __device__ void for_keys(place const& x, int lane, F const& f) const {
    for (index from = 0; from < keys; from += warp_size * warp_size) {
      std::uint32_t mine = everybody;  // each lane draws for 32 keys, of which all lanes have one
      if (!p.kept.all()) mine = p.keeps(x.head, x.query, from / warp_size + lane);
      for (int group = 0; group < warp_size && from + group * warp_size < keys; ++group) {
        std::uint32_t const kept = __shfl_sync(everybody, mine, group);
        index const j = from + group * warp_size + lane;
        if (j < keys) f(j, (kept >> lane & 1U) != 0 ? p.factor : T(0));
      }
    }
  }
};

/// Scores to weights after the dropout.
template <class T>
struct weigh_scores {
  score_rows<T> run;
  T* s;
  T* lse;
  __device__ void operator()(index r, int lane) const {
    auto const x = run.at(r);
    T* const row = s + r * run.pitch;
    T const sum = row_log_sum_exp<T>(row, x.count, lane);
    if (lane == 0) lse[x.row] = sum;
    run.for_keys(x, lane, [&](index j, T keep) { row[j] = j < x.count ? std::exp(row[j] - sum) * keep : T(0); });
  }
};

/// Scores to weights after the dropout, and gradients of these to gradients of the scaled scores.
template <class T>
struct weigh_slopes {
  score_rows<T> run;
  T* s;
  T* ds;
  T const* lse;
  T const* dots;
  __device__ void operator()(index r, int lane) const {
    auto const x = run.at(r);
    T* const row = s + r * run.pitch;
    T* const slope = ds + r * run.pitch;
    T const sum = lse[x.row];
    T const dot = dots[x.row];
    run.for_keys(x, lane, [&](index j, T keep) {
      T const weight = j < x.count ? std::exp(row[j] - sum) : T(0);
      slope[j] = j < x.count ? weight * (slope[j] * keep - dot) : T(0);
      row[j] = weight * keep;
    });
  }
};

}  // namespace

bool attention_is_long(const_view const& q, const_view const& k) {
  return q.dims[1] >= long_attention && k.dims[1] >= long_attention;
}

template <class T>
void attention_by_products(view const& y, T* lse, const_view const& q, const_view const& k, const_view const& v,
                           attention_rule const& rule) {
  attention_problem<T> const p(q, k, v, rule);
  for (index lane = 0; lane < p.lanes; ++lane)
    for_runs(rule, p.queries, p.keys, sizeof(T), [&](index first, index rows, index keys) {
      auto part = [&](auto const& x, index from, index n) { return heads_of(x, p.heads, lane, from, n); };
      score_table<T> const s(p.heads, rows, keys);
      cuda::matmul(s.all(), part(q, first, rows), part(k, 0, keys).transpose(1, 2), rule.scale);
      score_rows<T> const run{p, lane * p.heads, first, rows, keys, s.pitch()};
      for_rows("attention", p.heads * rows, weigh_scores<T>{run, s.data(), lse});
      cuda::matmul(part(y, first, rows), s.all(), part(v, 0, keys), 1.0);
    });
}

template <class T>
void attention_gradient_by_products(destination const& dq, destination const& dk, destination const& dv,
                                    const_view const& q, const_view const& k, const_view const& v, T const* lse,
                                    T const* dots, const_view const& dy, attention_rule const& rule) {
  attention_problem<T> const p(q, k, v, rule);
  for (auto const* d : {&dk, &dv})
    if (d->wanted() && !d->accumulate) cuda::fill(d->out, 0.0);
  for (index lane = 0; lane < p.lanes; ++lane)
    for_runs(rule, p.queries, p.keys, 2 * sizeof(T), [&](index first, index rows, index keys) {
      auto part = [&](auto const& x, index from, index n) { return heads_of(x, p.heads, lane, from, n); };
      score_table<T> const s(p.heads, rows, keys);
      score_table<T> const ds(p.heads, rows, keys);
      auto const queries = part(q, first, rows);
      auto const seen = part(k, 0, keys);
      auto const slopes = part(dy, first, rows);
      cuda::matmul(s.all(), queries, seen.transpose(1, 2), rule.scale);
      cuda::matmul(ds.all(), slopes, part(v, 0, keys).transpose(1, 2), 1.0);
      score_rows<T> const run{p, lane * p.heads, first, rows, keys, s.pitch()};
      for_rows("attention_gradient", p.heads * rows, weigh_slopes<T>{run, s.data(), ds.data(), lse, dots});
      if (dv.wanted()) cuda::matmul({part(dv.out, 0, keys), true}, s.all().transpose(1, 2), slopes, 1.0);
      if (dq.wanted()) cuda::matmul({part(dq.out, first, rows), dq.accumulate}, ds.all(), seen, rule.scale);
      if (dk.wanted()) cuda::matmul({part(dk.out, 0, keys), true}, ds.all().transpose(1, 2), queries, rule.scale);
    });
}

template void attention_by_products(view const&, float*, const_view const&, const_view const&, const_view const&,
                                    attention_rule const&);
template void attention_by_products(view const&, double*, const_view const&, const_view const&, const_view const&,
                                    attention_rule const&);
template void attention_gradient_by_products(destination const&, destination const&, destination const&,
                                             const_view const&, const_view const&, const_view const&, float const*,
                                             float const*, const_view const&, attention_rule const&);
template void attention_gradient_by_products(destination const&, destination const&, destination const&,
                                             const_view const&, const_view const&, const_view const&, double const*,
                                             double const*, const_view const&, attention_rule const&);

}  // namespace cuda_kernels
}  // namespace ouro
