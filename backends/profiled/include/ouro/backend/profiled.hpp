// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A backend that times another one: `profiled<cpu>` computes what `cpu` does and keeps calls, seconds and floating-point
// operations of each primitive. For benchmarks; the host waits for each call, and one thread calls.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <string_view>

#include <ouro/concepts/backend.hpp>
#include <ouro/concepts/hormone_gate.hpp>

namespace ouro {

struct primitive_profile {
  std::int64_t calls = 0;
  double seconds = 0;
  double operations = 0;  ///< of products and attention: multiplications and additions
};

template <Backend B>
struct profiled : B {
  static constexpr std::string_view name() { return B::name(); }
  static std::map<std::string, primitive_profile>& profile() {
    static std::map<std::string, primitive_profile> table;
    return table;
  }

  static void fill(view v, double a) {
    timed("fill", [&] { B::fill(v, a); });
  }
  static void copy(view v, const_view x, bool add) {
    timed("copy", [&] { B::copy(v, x, add); });
  }
  static void scale(destination d, const_view x, double a) {
    timed("scale", [&] { B::scale(d, x, a); });
  }
  static void map(unary f, view y, const_view x) {
    timed(unary_name(f), [&] { B::map(f, y, x); });
  }
  static void map_gradient(unary f, destination dx, const_view s, const_view dy) {
    timed(unary_name(f) + " gradient", [&] { B::map_gradient(f, dx, s, dy); });
  }
  static void combine(binary f, destination c, const_view a, const_view b) {
    timed("combine", [&] { B::combine(f, c, a, b); });
  }
  static void reduce_sum(destination y, const_view x, double a) {
    timed("reduce_sum", [&] { B::reduce_sum(y, x, a); });
  }
  static void matmul(destination c, const_view a, const_view b, double alpha) {
    timed(
        "matmul", [&] { B::matmul(c, a, b, alpha); }, 2.0 * static_cast<double>(c.out.size() * a.dims[-1]));
  }
  static void layer_norm(view y, view mean, view rstd, const_view x, const_view w, const_view b, double eps) {
    timed("layer_norm", [&] { B::layer_norm(y, mean, rstd, x, w, b, eps); });
  }
  static void layer_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view rstd, const_view w, const_view dy) {
    timed("layer_norm gradient", [&] { B::layer_norm_gradient(dx, dw, db, x, mean, rstd, w, dy); });
  }
  static void attention(view y, view lse, const_view q, const_view k, const_view v, attention_rule const& rule) {
    timed(
        "attention", [&] { B::attention(y, lse, q, k, v, rule); }, 4 * pairs(q, k, rule));
  }
  static void attention_gradient(destination dq, destination dk, destination dv, const_view q, const_view k,
                                 const_view v, const_view y, const_view lse, const_view dy,
                                 attention_rule const& rule) {
    timed(
        "attention gradient", [&] { B::attention_gradient(dq, dk, dv, q, k, v, y, lse, dy, rule); },
        10 * pairs(q, k, rule));
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
    timed("unit", [&] { B::unit(y, norm, x, eps); });
  }
  static void unit_gradient(destination dx, const_view y, const_view norm, const_view dy, double eps) {
    timed("unit gradient", [&] { B::unit_gradient(dx, y, norm, dy, eps); });
  }
  static void softmax(view y, const_view x) {
    timed("softmax", [&] { B::softmax(y, x); });
  }
  static void softmax_gradient(destination dx, const_view y, const_view dy) {
    timed("softmax gradient", [&] { B::softmax_gradient(dx, y, dy); });
  }
  static void hormone_gate(view y, view statistics, hormone_gate_operands const& in) requires HormoneGateBackend<B> {
    timed("hormone_gate", [&] { B::hormone_gate(y, statistics, in); });
  }
  static void hormone_gate_gradient(hormone_gate_gradients const& to, hormone_gate_operands const& in,
                                    const_view statistics, const_view dy) requires HormoneGateBackend<B> {
    timed("hormone_gate gradient", [&] { B::hormone_gate_gradient(to, in, statistics, dy); });
  }
  static void cross_entropy(view nll, const_view logits, const_view targets) {
    timed("cross_entropy", [&] { B::cross_entropy(nll, logits, targets); });
  }
  static void cross_entropy_gradient(destination d, const_view logits, const_view targets, const_view dnll) {
    timed("cross_entropy gradient", [&] { B::cross_entropy_gradient(d, logits, targets, dnll); });
  }
  static void gather_sum(view y, const_view table, const_view index) {
    timed("gather_sum", [&] { B::gather_sum(y, table, index); });
  }
  static void scatter_sum(destination d, const_view index, const_view dy) {
    timed("scatter_sum", [&] { B::scatter_sum(d, index, dy); });
  }
  static void batch_norm(view y, view mean, view variance, const_view x, const_view w, const_view b, double eps) {
    timed("batch_norm", [&] { B::batch_norm(y, mean, variance, x, w, b, eps); });
  }
  static void batch_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view variance, const_view w, const_view dy, double eps) {
    timed("batch_norm gradient", [&] { B::batch_norm_gradient(dx, dw, db, x, mean, variance, w, dy, eps); });
  }
  static void dropout(destination y, const_view x, double rate, random_draw draw) {
    timed("dropout", [&] { B::dropout(y, x, rate, draw); });
  }
  static void normal(view y, random_draw draw) {
    timed("normal", [&] { B::normal(y, draw); });
  }
  static void uniform(view y, random_draw draw, double low, double high) {
    timed("uniform", [&] { B::uniform(y, draw, low, high); });
  }
  static void sum_of_squares(view y, const_view const* list, std::size_t count) {
    timed("sum_of_squares", [&] { B::sum_of_squares(y, list, count); });
  }
  static void adamw(adamw_update const* updates, std::size_t count) {
    timed("adamw", [&] { B::adamw(updates, count); });
  }

 private:
  template <class F>
  static void timed(std::string const& what, F&& f, double operations = 0) {
    auto const start = std::chrono::steady_clock::now();
    f();
    auto& p = profile()[what];
    ++p.calls;
    p.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    p.operations += operations;
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
