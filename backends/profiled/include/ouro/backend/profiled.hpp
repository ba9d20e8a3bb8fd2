// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A backend that times another one: `profiled<cpu>` computes what `cpu` does and keeps calls, seconds, floating-point
// operations and bytes of each primitive. For benchmarks; one thread calls. The calls of a device return before their work is
// done: a backend with marks is timed between marks in its own order of work, and nobody waits before profile() is read.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/concepts/backend.hpp>
#include <ouro/concepts/hormone_gate.hpp>
#include <ouro/concepts/hormone_networks.hpp>

namespace ouro {

struct primitive_profile {
  std::int64_t calls = 0;
  double seconds = 0;
  double operations = 0;  ///< of products and attention: multiplications and additions
  double bytes = 0;       ///< of operands and results, each once, however often they are really moved
};

namespace detail {
/// Points in time on the host, for backends whose calls return when they are done.
class host_mark {
 public:
  [[nodiscard]] double seconds_since(host_mark const& earlier) const {
    return std::chrono::duration<double>(at_ - earlier.at_).count();
  }

 private:
  std::chrono::steady_clock::time_point at_ = std::chrono::steady_clock::now();
};
template <class B>
struct mark_of {
  using type = host_mark;
};
template <class B>
requires requires { typename B::mark; }
struct mark_of<B> {
  using type = typename B::mark;
};
}  // namespace detail

template <Backend B>
struct profiled : B {
  static constexpr std::string_view name() { return B::name(); }
  /// What was measured since the program started, or since the table was cleared.
  static std::map<std::string, primitive_profile>& profile() {
    static std::map<std::string, primitive_profile> table;
    for (auto const& m : measured()) {
      auto& p = table[m.what];
      ++p.calls;
      p.seconds += m.end.seconds_since(m.start);
      p.operations += m.operations;
      p.bytes += m.bytes;
    }
    measured().clear();
    return table;
  }

  static void begin_side_stream() = delete;  // what runs at the same time as something else cannot be timed

  static void fill(view v, double a) {
    timed(
        "fill", [&] { B::fill(v, a); }, 0, bytes(v));
  }
  static void copy(view v, const_view x, bool add) {
    timed(
        "copy", [&] { B::copy(v, x, add); }, 0, bytes(v, x));
  }
  static void scale(destination d, const_view x, double a) {
    timed(
        "scale", [&] { B::scale(d, x, a); }, 0, bytes(d, x));
  }
  static void map(unary f, view y, const_view x) {
    timed(
        unary_name(f), [&] { B::map(f, y, x); }, 0, bytes(y, x));
  }
  static void map_gradient(unary f, destination dx, const_view s, const_view dy) {
    timed(
        unary_name(f) + " gradient", [&] { B::map_gradient(f, dx, s, dy); }, 0, bytes(dx, s, dy));
  }
  static void combine(binary f, destination c, const_view a, const_view b) {
    timed(
        "combine", [&] { B::combine(f, c, a, b); }, 0, bytes(c, a, b));
  }
  static void reduce_sum(destination y, const_view x, double a) {
    timed(
        "reduce_sum", [&] { B::reduce_sum(y, x, a); }, 0, bytes(y, x));
  }
  static void matmul(destination c, const_view a, const_view b, double alpha) {
    timed(
        "matmul", [&] { B::matmul(c, a, b, alpha); }, 2.0 * static_cast<double>(c.out.size() * a.dims[-1]),
        bytes(c, a, b));
  }
  static void add_dropped(view y, const_view x, const_view f, double rate,
                          random_draw draw) requires AddDroppedBackend<B> {
    timed(
        "dropout", [&] { B::add_dropped(y, x, f, rate, draw); }, 0, bytes(y, x, f));
  }
  static void narrow(view const* places, const_view const* list, std::size_t count) requires NarrowBackend<B> {
    double moved = 0;
    for (std::size_t i = 0; i < count; ++i) moved += bytes(places[i], list[i]);
    timed(
        "narrow", [&] { B::narrow(places, list, count); }, 0, moved);
  }
  static void mix_rows(view y, const_view x, const_view before, const_view shares) requires MixBackend<B> {
    timed(
        "mix_rows", [&] { B::mix_rows(y, x, before, shares); }, 0, bytes(y, x, before));
  }
  static void mix_rows_gradient(destination dx, destination dbefore, destination dshares, const_view x,
                                const_view before, const_view shares, const_view dy) requires MixBackend<B> {
    timed(
        "mix_rows gradient", [&] { B::mix_rows_gradient(dx, dbefore, dshares, x, before, shares, dy); }, 0,
        bytes(dx, dbefore, x, before, dy));
  }
  static void affine(view c, const_view a, const_view b, const_view bias) requires AffineBackend<B> {
    timed(
        "matmul", [&] { B::affine(c, a, b, bias); }, 2.0 * static_cast<double>(c.size() * a.dims[-1]), bytes(c, a, b));
  }
  static void layer_norm(view y, view mean, view rstd, const_view x, const_view w, const_view b, double eps) {
    timed(
        "layer_norm", [&] { B::layer_norm(y, mean, rstd, x, w, b, eps); }, 0, bytes(y, x));
  }
  static void layer_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view rstd, const_view w, const_view dy) {
    timed(
        "layer_norm gradient", [&] { B::layer_norm_gradient(dx, dw, db, x, mean, rstd, w, dy); }, 0, bytes(dx, x, dy));
  }
  static void attention(view y, view lse, const_view q, const_view k, const_view v, attention_rule const& rule) {
    timed(
        "attention", [&] { B::attention(y, lse, q, k, v, rule); }, 4 * pairs(q, k, rule), bytes(y, q, k, v));
  }
  static void attention_gradient(destination dq, destination dk, destination dv, const_view q, const_view k,
                                 const_view v, const_view y, const_view lse, const_view dy,
                                 attention_rule const& rule) {
    timed(
        "attention gradient", [&] { B::attention_gradient(dq, dk, dv, q, k, v, y, lse, dy, rule); },
        10 * pairs(q, k, rule), bytes(dq, dk, dv, q, k, v, y, dy));
  }
  static void rwkv7_scan(view y, view last, rwkv7_operands const& in) {
    timed("rwkv7_scan", [&] { B::rwkv7_scan(y, last, in); });
  }
  static void rwkv7_scan_gradient(rwkv7_gradients const& to, rwkv7_operands const& in, const_view dy,
                                  const_view dlast) {
    timed("rwkv7_scan gradient", [&] { B::rwkv7_scan_gradient(to, in, dy, dlast); });
  }
  static void ssd_scan(view y, view last, ssd_operands const& in) {
    timed("ssd_scan", [&] { B::ssd_scan(y, last, in); });
  }
  static void ssd_scan_gradient(ssd_gradients const& to, ssd_operands const& in, const_view dy, const_view dlast) {
    timed("ssd_scan gradient", [&] { B::ssd_scan_gradient(to, in, dy, dlast); });
  }
  static void short_convolution(view y, short_convolution_operands const& in) {
    timed("short_convolution", [&] { B::short_convolution(y, in); });
  }
  static void short_convolution_gradient(short_convolution_gradients const& to, short_convolution_operands const& in,
                                         const_view dy) {
    timed("short_convolution gradient", [&] { B::short_convolution_gradient(to, in, dy); });
  }
  static void unit(view y, view norm, const_view x, double eps) {
    timed(
        "unit", [&] { B::unit(y, norm, x, eps); }, 0, bytes(y, x));
  }
  static void unit_gradient(destination dx, const_view y, const_view norm, const_view dy, double eps) {
    timed(
        "unit gradient", [&] { B::unit_gradient(dx, y, norm, dy, eps); }, 0, bytes(dx, y, dy));
  }
  static void softmax(view y, const_view x) {
    timed(
        "softmax", [&] { B::softmax(y, x); }, 0, bytes(y, x));
  }
  static void softmax_gradient(destination dx, const_view y, const_view dy) {
    timed(
        "softmax gradient", [&] { B::softmax_gradient(dx, y, dy); }, 0, bytes(dx, y, dy));
  }
  static void hormone_gate(hormone_gate_results const& to,
                           hormone_gate_operands const& in) requires HormoneGateBackend<B> {
    timed(
        "hormone_gate", [&] { B::hormone_gate(to, in); }, 0,
        bytes(to.y, to.folded, to.statistics, in.x, in.f, in.residual));
  }
  static void hormone_gate_gradient(hormone_gate_gradients const& to, hormone_gate_operands const& in,
                                    const_view statistics, const_view dy,
                                    const_view dfolded) requires HormoneGateBackend<B> {
    timed(
        "hormone_gate gradient", [&] { B::hormone_gate_gradient(to, in, statistics, dy, dfolded); }, 0,
        bytes(to.x, to.f, statistics, dy, dfolded, in.x, in.f));
  }
  static void hormone_networks(view y, view kept, const_view hormone, hormone_network_operands const* networks,
                               std::size_t count, double eps) requires HormoneNetworksBackend<B> {
    timed("hormone_networks", [&] { B::hormone_networks(y, kept, hormone, networks, count, eps); });
  }
  static void hormone_networks_gradient(destination dhormone, hormone_network_gradients const* gradients,
                                        const_view hormone, hormone_network_operands const* networks, std::size_t count,
                                        const_view kept, const_view dy) requires HormoneNetworksBackend<B> {
    timed("hormone_networks gradient",
          [&] { B::hormone_networks_gradient(dhormone, gradients, hormone, networks, count, kept, dy); });
  }
  static void cross_entropy(view nll, const_view logits, const_view targets) {
    timed(
        "cross_entropy", [&] { B::cross_entropy(nll, logits, targets); }, 0, bytes(nll, logits, targets));
  }
  static void cross_entropy_gradient(destination d, const_view logits, const_view targets, const_view dnll) {
    timed(
        "cross_entropy gradient", [&] { B::cross_entropy_gradient(d, logits, targets, dnll); }, 0, bytes(d, logits));
  }
  static void sample(view chosen, const_view logits, sampling_rule const& rule) {
    timed(
        "sample", [&] { B::sample(chosen, logits, rule); }, 0, bytes(chosen, logits));
  }
  static void gather_sum(view y, const_view table, const_view index, const_view addend) {
    timed(
        "gather_sum", [&] { B::gather_sum(y, table, index, addend); }, 0, bytes(y, table, index));
  }
  static void scatter_sum(destination d, const_view index, const_view dy) {
    timed(
        "scatter_sum", [&] { B::scatter_sum(d, index, dy); }, 0, bytes(d, index, dy));
  }
  static void column_moments(view mean, view variance, const_view x) {
    timed(
        "column_moments", [&] { B::column_moments(mean, variance, x); }, 0, bytes(x));
  }
  static void batch_norm(view y, view mean, view variance, const_view x, const_view w, const_view b, double eps) {
    timed(
        "batch_norm", [&] { B::batch_norm(y, mean, variance, x, w, b, eps); }, 0, bytes(y, x));
  }
  static void batch_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view variance, const_view w, const_view dy, double eps) {
    timed(
        "batch_norm gradient", [&] { B::batch_norm_gradient(dx, dw, db, x, mean, variance, w, dy, eps); }, 0,
        bytes(dx, x, dy));
  }
  static void dropout(destination y, const_view x, double rate, random_draw draw) {
    timed(
        "dropout", [&] { B::dropout(y, x, rate, draw); }, 0, bytes(y, x));
  }
  static void normal(view y, random_draw draw) {
    timed(
        "normal", [&] { B::normal(y, draw); }, 0, bytes(y));
  }
  static void uniform(view y, random_draw draw, double low, double high) {
    timed(
        "uniform", [&] { B::uniform(y, draw, low, high); }, 0, bytes(y));
  }
  static void scale_by(destination const* places, const_view const* list, std::size_t count, const_view factor) {
    double all = 0;
    for (std::size_t i = 0; i < count; ++i) all += bytes(list[i]) + bytes(places[i]);
    timed(
        "scale_by", [&] { B::scale_by(places, list, count, factor); }, 0, all);
  }
  static void sum_of_squares(view y, const_view const* list, std::size_t count) {
    double all = 0;
    for (auto const* x = list; x != list + count; ++x) all += bytes(*x);
    timed(
        "sum_of_squares", [&] { B::sum_of_squares(y, list, count); }, 0, all);
  }
  static void adamw(adamw_update const* updates, std::size_t count) {
    double all = 0;
    for (auto const* u = updates; u != updates + count; ++u)
      all += 7 * bytes(u->parameter);  // three are read and written
    timed(
        "adamw", [&] { B::adamw(updates, count); }, 0, all);
  }

 private:
  using mark = typename detail::mark_of<B>::type;
  struct measurement {
    std::string what;
    double operations;
    double bytes;
    mark start;
    mark end;
  };
  static std::vector<measurement>& measured() {
    static std::vector<measurement> list;
    return list;
  }
  template <class F>
  static void timed(std::string what, F&& f, double operations = 0, double bytes = 0) {
    mark start;
    f();
    measured().push_back({std::move(what), operations, bytes, std::move(start), mark()});
  }
  template <class Void>
  static double size(basic_view<Void> const& v) {
    return v.empty() ? 0 : static_cast<double>(v.size() * size_of(v.type));
  }
  static double size(destination const& d) { return size(d.out) * (d.accumulate ? 2 : 1); }
  template <class... Views>
  static double bytes(Views const&... views) {
    return (size(views) + ...);
  }
  static double pairs(const_view q, const_view k, attention_rule const& rule) {
    std::int64_t seen = 0;
    for (std::int64_t i = 0; i < q.dims[1]; ++i) seen += rule.sees.count(i, k.dims[1]);
    return static_cast<double>(seen * q.dims[0] * q.dims[2]);
  }
  static std::string unary_name(unary f) {
    constexpr char const* names[] = {"gelu", "tanh", "sigmoid", "silu", "exp", "square", "square_root", "softplus"};
    return names[static_cast<int>(f)];
  }
};

}  // namespace ouro
