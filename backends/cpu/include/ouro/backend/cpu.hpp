// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The cpu backend: f32 by vector kernels and oneDNN on several threads. Everything else, f64 above all, is the
// reference's loops with faster products. Needs the library `ouro::cpu`.
#pragma once

#include <string>
#include <string_view>

#include <ouro/backend/reference.hpp>
#include <ouro/concepts/hormone_gate.hpp>

namespace ouro {

#if !defined(OURO_HAS_CPU)  // defined by linking ouro::cpu

/// Another type than the backend itself: parts of one program may be linked with it, and others not.
inline namespace without_cpu {

/// A backend that this program is not linked with: its first allocation is an error (unavailable).
struct cpu : reference {
  static constexpr std::string_view name() { return "cpu"; }
  static void* allocate(std::size_t) {
    fail(errc::unavailable, "cpu", "this backend is not part of this program; link it with ouro::cpu");
  }
};

static_assert(Backend<cpu>);

inline constexpr bool has_cpu = false;
inline std::string cpu_description() { return "cpu is not part of this program"; }
inline int cpu_threads() { return 1; }
inline void set_cpu_threads(int) { fail(errc::unavailable, "set_cpu_threads", cpu_description()); }
inline product_precision cpu_products() { return product_precision::f32; }
inline bool cpu_has_products(product_precision) { return false; }
inline void set_cpu_products(product_precision) { fail(errc::unavailable, "set_cpu_products", cpu_description()); }

}  // namespace without_cpu

#else

struct cpu : reference {
  static constexpr std::string_view name() { return "cpu"; }
  static product_precision products();  ///< as set_cpu_products() was told

  static void upload(view to, const_view host) { copy(to, host, false); }
  static void download(view host, const_view from) { copy(host, from, false); }
  static void fill(view v, double value);
  static void copy(view to, const_view from, bool accumulate);
  static void scale(destination y, const_view x, double factor);
  static void map(unary f, view y, const_view x);
  static void map_gradient(unary f, destination dx, const_view saved, const_view dy);
  static void combine(binary f, destination c, const_view a, const_view b);
  static void reduce_sum(destination y, const_view x, double factor);
  static void matmul(destination c, const_view a, const_view b, double alpha);
  static void layer_norm(view y, view mean, view rstd, const_view x, const_view w, const_view b, double eps);
  static void layer_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view rstd, const_view w, const_view dy);
  static void softmax(view y, const_view x);
  static void attention(view y, view lse, const_view q, const_view k, const_view v, attention_rule const& rule);
  static void attention_gradient(destination dq, destination dk, destination dv, const_view q, const_view k,
                                 const_view v, const_view y, const_view lse, const_view dy, attention_rule const& rule);
  static void rwkv7_scan(view y, view last, rwkv7_operands const& in);
  static void rwkv7_scan_gradient(rwkv7_gradients const& to, rwkv7_operands const& in, const_view dy, const_view dlast);
  static void ssd_scan(view y, view last, ssd_operands const& in);
  static void ssd_scan_gradient(ssd_gradients const& to, ssd_operands const& in, const_view dy, const_view dlast);
  static void short_convolution(view y, short_convolution_operands const& in);
  static void short_convolution_gradient(short_convolution_gradients const& to, short_convolution_operands const& in,
                                         const_view dy);
  static bool has_hormone_gate(dtype type) { return type == dtype::f32; }
  static void hormone_gate(hormone_gate_results const& to, hormone_gate_operands const& in);
  static void hormone_gate_gradient(hormone_gate_gradients const& to, hormone_gate_operands const& in,
                                    const_view statistics, const_view dy, const_view dfolded);
  static void cross_entropy(view nll, const_view logits, const_view targets);
  static void cross_entropy_gradient(destination dlogits, const_view logits, const_view targets, const_view dnll);
  static void gather_sum(view y, const_view table, const_view index, const_view addend);
  static void scatter_sum(destination dtable, const_view index, const_view dy);
  static void column_moments(view mean, view variance, const_view x);
  static void batch_norm(view y, view mean, view variance, const_view x, const_view w, const_view b, double eps);
  static void batch_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view variance, const_view w, const_view dy, double eps);
  static void dropout(destination y, const_view x, double rate, random_draw draw);
  static void add_dropped(view y, const_view x, const_view f, double rate, random_draw draw);
  static void normal(view y, random_draw draw);
  static void uniform(view y, random_draw draw, double low, double high);
  static void adamw(adamw_update const* updates, std::size_t count);
  static void scale_by(destination const* places, const_view const* list, std::size_t count, const_view factor);
  static void sum_of_squares(view y, const_view const* list, std::size_t count);
};

static_assert(Backend<cpu> && AddDroppedBackend<cpu> && HormoneGateBackend<cpu>);

inline constexpr bool has_cpu = true;

/// The number of threads: OURO_THREADS from the environment, else one for each processor. Errors (argument), also of the first
/// call that computes: OURO_THREADS is no number in 1..1024.
int cpu_threads();
/// Sets it for the calls that follow. Results do not depend on timing at any number. Errors (argument): n is not in 1..1024.
void set_cpu_threads(int n);
/// What f32 products of at least 16 rows, columns and terms round their factors to, and those of attention to more than 64
/// keys.
product_precision cpu_products();
/// Whether this processor can: f32 always, bf16 with AVX-512 BF16, tf32 never.
bool cpu_has_products(product_precision p);
/// Sets it for the calls that follow. Errors (unavailable): this processor cannot.
void set_cpu_products(product_precision p);
/// Instruction set, product library and threads, in a line.
std::string cpu_description();

#endif

}  // namespace ouro
