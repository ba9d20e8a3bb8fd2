// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The cuda backend: f32 and f64 on one GPU, by kernels of its own and cuBLAS products. Needs the library `ouro::cuda`.
// Calls return before their work is done, but for those that bring a value to the host; they are done in order.
#pragma once

#include <string>
#include <string_view>

#include <ouro/concepts/hormone_gate.hpp>
#include <ouro/concepts/hormone_networks.hpp>
#if defined(OURO_HAS_CUDA)  // defined by linking ouro::cuda
#include <ouro/concepts/backend.hpp>
#else
#include <ouro/backend/reference.hpp>
#endif

namespace ouro {

#if !defined(OURO_HAS_CUDA)

/// Another type than the backend itself: parts of one program may be linked with it, and others not.
inline namespace without_cuda {

/// A backend that this program is not linked with: its first allocation is an error (unavailable).
struct cuda : reference {
  static constexpr std::string_view name() { return "cuda"; }
  static void* allocate(std::size_t) {
    fail(errc::unavailable, "cuda", "this backend is not part of this program; link it with ouro::cuda");
  }
};

static_assert(Backend<cuda>);

inline constexpr bool has_cuda = false;
inline bool cuda_available() noexcept { return false; }
inline std::string cuda_description() { return "cuda is not part of this program"; }
inline std::size_t cuda_peak_memory() { return 0; }
inline void set_cuda_products(product_precision) { fail(errc::unavailable, "set_cuda_products", cuda_description()); }
inline void set_cuda_inner_values(dtype) { fail(errc::unavailable, "set_cuda_inner_values", cuda_description()); }
inline void set_cuda_graphs(bool) { fail(errc::unavailable, "set_cuda_graphs", cuda_description()); }

}  // namespace without_cuda

#else

/// A point in the device's work, for timing: made after the calls before it, passed when their work is done.
class cuda_mark {
 public:
  cuda_mark();
  cuda_mark(cuda_mark&& other) noexcept : event_(other.event_) { other.event_ = nullptr; }
  cuda_mark& operator=(cuda_mark&& other) noexcept;
  ~cuda_mark();
  /// Of the device's time; waits until this point is passed.
  [[nodiscard]] double seconds_since(cuda_mark const& earlier) const;

 private:
  void* event_ = nullptr;
};

/// Numbers that the device writes where the host sees them at once: in pinned memory of the host.
class cuda_early_values {
 public:
  /// Errors: unavailable where there is no device; std::bad_alloc where there is no such memory.
  explicit cuda_early_values(std::int64_t count);
  cuda_early_values(cuda_early_values const&) = delete;
  cuda_early_values& operator=(cuda_early_values const&) = delete;
  /// Waits for the device, which may be about to write.
  ~cuda_early_values();
  /// x i32 (1), not negative.
  void show(std::int64_t i, const_view x);
  /// Errors: those of calls before; what was never shown.
  [[nodiscard]] std::int32_t value(std::int64_t i);

 private:
  std::int32_t* numbers_ = nullptr;
};

struct cuda {
  using mark = cuda_mark;
  using early_values = cuda_early_values;
  static constexpr std::string_view name() { return "cuda"; }
  static constexpr bool runs_ahead = true;             ///< calls return before their work is done
  static dtype inner_values();                         ///< as set_cuda_inner_values() was told
  static product_precision products();                 ///< as set_cuda_products() was told
  static constexpr std::int64_t settled_rows = 20480;  ///< of an Actor's part: enough to keep a device busy
  /// Errors: unavailable where there is no device; std::bad_alloc where its memory is exhausted.
  static void* allocate(std::size_t bytes);
  static void deallocate(void* p, std::size_t bytes) noexcept;
  static void begin_branch() noexcept;
  static void end_branch() noexcept;
  static void join_branch() noexcept;
  static void fork_side_stream();
  static void begin_side_stream();
  static void end_side_stream() noexcept;
  static void join_side_stream();
  static void upload(view to, const_view host);
  static void download(view host, const_view from);

  static void fill(view v, double value);
  static void copy(view to, const_view from, bool accumulate);
  static void scale(destination y, const_view x, double factor);
  static void map(unary f, view y, const_view x);
  static void map_gradient(unary f, destination dx, const_view saved, const_view dy);
  static void combine(binary f, destination c, const_view a, const_view b);
  static void reduce_sum(destination y, const_view x, double factor);
  static void matmul(destination c, const_view a, const_view b, double alpha);
  static void affine(view c, const_view a, const_view b, const_view bias);
  static void layer_norm(view y, view mean, view rstd, const_view x, const_view w, const_view b, double eps);
  static void layer_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view rstd, const_view w, const_view dy);
  static void unit(view y, view norm, const_view x, double eps);
  static void unit_gradient(destination dx, const_view y, const_view norm, const_view dy, double eps);
  static void softmax(view y, const_view x);
  static void softmax_gradient(destination dx, const_view y, const_view dy);
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
  static bool has_hormone_gate(dtype type) { return is_floating(type); }
  static void hormone_gate(hormone_gate_results const& to, hormone_gate_operands const& in);
  static void hormone_gate_gradient(hormone_gate_gradients const& to, hormone_gate_operands const& in,
                                    const_view statistics, const_view dy, const_view dfolded);
  static bool has_hormone_networks(dtype type) { return is_floating(type); }
  static void hormone_networks(view y, view kept, const_view hormone, hormone_network_operands const* networks,
                               std::size_t count, double eps);
  static void hormone_networks_gradient(destination dhormone, hormone_network_gradients const* gradients,
                                        const_view hormone, hormone_network_operands const* networks, std::size_t count,
                                        const_view kept, const_view dy);
  static void cross_entropy(view nll, const_view logits, const_view targets);
  static void cross_entropy_gradient(destination dlogits, const_view logits, const_view targets, const_view dnll);
  static void sample(view chosen, const_view logits, sampling_rule const& rule);
  static void gather_sum(view y, const_view table, const_view index, const_view addend);
  static void scatter_sum(destination dtable, const_view index, const_view dy);
  static void column_moments(view mean, view variance, const_view x);
  static void batch_norm(view y, view mean, view variance, const_view x, const_view w, const_view b, double eps);
  static void batch_norm_gradient(destination dx, destination dw, destination db, const_view x, const_view mean,
                                  const_view variance, const_view w, const_view dy, double eps);
  static void dropout(destination y, const_view x, double rate, random_draw draw);
  static void add_dropped(view y, const_view x, const_view f, double rate, random_draw draw);
  static void mix_rows(view y, const_view x, const_view before, const_view shares);
  static void mix_rows_gradient(destination dx, destination dbefore, destination dshares, const_view x,
                                const_view before, const_view shares, const_view dy);
  static void normal(view y, random_draw draw);
  static void uniform(view y, random_draw draw, double low, double high);
  static void scale_by(destination const* places, const_view const* list, std::size_t count, const_view factor);
  static void adamw(adamw_update const* updates, std::size_t count);
  static void narrow(view const* places, const_view const* list, std::size_t count);
  static void sum_of_squares(view y, const_view const* list, std::size_t count);
};

static_assert(Backend<cuda> && AffineBackend<cuda> && AddDroppedBackend<cuda> && BranchBackend<cuda> &&
              SideStreamBackend<cuda> && EarlyBackend<cuda> && MixBackend<cuda> && NarrowBackend<cuda> &&
              HormoneGateBackend<cuda> && HormoneNetworksBackend<cuda>);

/// Whether this program is linked with ouro::cuda.
inline constexpr bool has_cuda = true;
/// Whether this machine has a driver and a device; without one the first allocation is an error (unavailable).
bool cuda_available() noexcept;
/// The device, in a line.
std::string cuda_description();
/// What f32 products round their factors to: f32, or tf32 or bf16 for the tensor cores. In bf16 small products are tf32.
product_precision cuda_products();
/// Sets it for the calls that follow.
void set_cuda_products(product_precision p);
/// What f32 values between the products of a layer are stored in while training: f32, or bf16, which is half as much memory
/// to keep, and to read and write. Weights, gradients of weights, sums, residuals and states are f32 in any case. Errors
/// (argument): another type.
void set_cuda_inner_values(dtype type);
/// Whether calls that come again in the same order are launched as CUDA graphs, from now on (the default): results are the
/// same, and the host has less to do.
void set_cuda_graphs(bool wanted);
/// The most device memory that was ever in use at once, in bytes.
std::size_t cuda_peak_memory();

#endif

}  // namespace ouro
