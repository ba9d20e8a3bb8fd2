// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Backend: a type that names a device and provides the primitive operations.
//
// Purpose. Everything numerical goes through about thirty static functions on raw views. The operations of ops/ check
// shapes, allocate results and keep gradients; a backend only computes.
//
// Smallest model. `ouro::reference`: plain loops, header-only, and the oracle the other backends are tested against.
//
// Laws (tests/laws and tests/backend hold every model to them).
//   agreement    each primitive equals the reference in f64 within rounding, on every shape that an operation lets through,
//                including 0 and 1 extents
//   destination  a `destination` with accumulate adds to what is there: op(dst, true) = dst + op(fresh, false)
//   determinism  the same inputs give the same bits from run to run, whatever the scheduling of threads
//   randomness   number i of a draw is `random_draw`'s number i, on every backend
//
// Contracts common to all. f32 and f64 compute; all floating operands of a call have one dtype, but that bf16 may stand for
// f32 where the backend takes it. An empty optional
// destination is skipped. Outputs must not overlap inputs unless they are the same view of an elementwise primitive.
// "rows" means that the last axis is the row: contiguous views are read as (rows, width).
//
// What it is not. A backend knows no tape, no module and no model, checks no shapes, and keeps no state but
// its memory pool and its threads.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <ouro/concepts/scans.hpp>
#include <ouro/tensor/random.hpp>
#include <ouro/tensor/view.hpp>

namespace ouro {

/// Elementwise functions. The gradient of tanh, sigmoid, exp and square_root is computed from y, that of the others
/// from x.
enum class unary : std::uint8_t { gelu, tanh, sigmoid, silu, exp, square, square_root, softplus, log, relu };

constexpr bool gradient_from_result(unary f) {
  return f == unary::tanh || f == unary::sigmoid || f == unary::exp || f == unary::square_root;
}

enum class binary : std::uint8_t { add, subtract, multiply, divide };

/// Which keys a query row sees: always the first `count(i)` of them. Rows below `prefix` see the prefix; the next
/// `causal` rows see everything up to themselves; the rows after that see all. This covers dense (0, 0), causal
/// (0, T) and Ouro's Mem | Read | Input | Write order. Query row 0 is row `first` of that order.
struct visibility {
  std::int64_t prefix = 0;
  std::int64_t causal = 0;
  std::int64_t first = 0;

  [[nodiscard]] constexpr std::int64_t count(std::int64_t query, std::int64_t keys) const {
    std::int64_t const row = first + query;
    if (row < prefix) return prefix < keys ? prefix : keys;
    if (row < prefix + causal) return row + 1 < keys ? row + 1 : keys;
    return keys;
  }
};

/// What a backend rounds the factors of an f32 product to; sums stay f32, and so does everything else. A setting of a
/// backend, not of a life: f32 unless a program sets another.
enum class product_precision : std::uint8_t {
  f32,
  tf32,  ///< 10 bits of mantissa, the range of f32
  bf16,  ///< 7 bits of mantissa, the range of f32
};

/// How an attention is computed: softmax(scale · q kᵀ) over the visible keys, dropout on the weights, times v.
struct attention_rule {
  std::int64_t heads = 1;
  double scale = 1.0;
  visibility sees;
  double dropout = 0.0;  ///< probability that a weight is dropped
  random_draw draw;  ///< weight (n, head, i, j) is element ((n · heads + head) · Tq + i) · ⌈Tk/32⌉·32 + j of the mask
};

/// How a class is chosen from logits: at random by softmax(logits / temperature) over the k most probable.
struct sampling_rule {
  double temperature = 1;  ///< 0: always the most probable; of several the one with the lowest number
  std::int64_t top_k = 0;  ///< 0: all
  random_draw draw = {};
  std::uint64_t first = 0;  ///< row r takes number first + r of the draw
};

/// One AdamW update of one tensor (Loshchilov & Hutter, "Decoupled weight decay regularization", 2019).
struct adamw_step {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double correction1 = 1;     ///< 1 − β₁ᵗ
  double correction2 = 1;     ///< 1 − β₂ᵗ
  double gradient_scale = 1;  ///< clipping factor
};
/// What it moves, and by which step.
struct adamw_update {
  view parameter;
  view first;   ///< moment
  view second;  ///< moment
  const_view gradient;
  adamw_step step;
};

// clang-format off
template <class B>
concept Backend = requires(view v, const_view x, destination d, double a, std::size_t n, void* p, random_draw r,
                           attention_rule rule, sampling_rule sampling, adamw_update const* updates,
                           const_view const* list, destination const* places, rwkv7_operands rwkv7, rwkv7_gradients drwkv7, ssd_operands ssd,
                           ssd_gradients dssd, short_convolution_operands convolution,
                           short_convolution_gradients dconvolution) {
  { B::name() } -> std::convertible_to<std::string_view>;
  { B::allocate(n) } -> std::same_as<void*>;
  { B::deallocate(p, n) } noexcept;
  B::upload(v, x);                         // host → device, converting dtypes
  B::download(v, x);                       // device → host, converting dtypes
  B::fill(v, a);
  B::copy(v, x, true);                     // v (+)= x; any strides and dtypes
  B::scale(d, x, a);                       // d = a·x
  B::map(unary::gelu, v, x);
  B::map_gradient(unary::gelu, d, x, x);   // (dx, saved, dy)
  B::combine(binary::add, d, x, x);        // operands expanded to d's shape by stride 0
  B::reduce_sum(d, x, a);                  // d = a · Σ over the axes where d has extent 1 and x has not
  B::matmul(d, x, x, a);                   // (M,K)(K,N) or batches of them; transposes are strides. In f32 the second
                                           // factor may be stored in bf16
  B::layer_norm(v, v, v, x, x, x, a);      // (y, mean, 1/σ, x, weight, bias, eps) by rows
  B::layer_norm_gradient(d, d, d, x, x, x, x, x);         // (dx, dweight, dbias, x, mean, 1/σ, weight, dy)
  B::unit(v, v, x, a);                     // (y, ‖x‖, x, eps): y = x / max(‖x‖, eps) by rows
  B::unit_gradient(d, x, x, x, a);         // (dx, y, ‖x‖, dy, eps)
  B::softmax(v, x);
  B::softmax_gradient(d, x, x);            // (dx, y, dy)
  B::attention(v, v, x, x, x, rule);       // (y, log-sum-exp (N,H,Tq), q (N,Tq,D), k (N,Tk,D), v (N,Tk,D))
  B::attention_gradient(d, d, d, x, x, x, x, x, x, rule);  // (dq, dk, dv, q, k, v, y, lse, dy); q, k, v and their
                                           // gradients may be strided by row and lane
  B::rwkv7_scan(v, v, rwkv7);              // (y, last state, operands)
  B::rwkv7_scan_gradient(drwkv7, rwkv7, x, x);            // (gradients, operands, dy, dlast or empty)
  B::ssd_scan(v, v, ssd);                  // (y, last state, operands)
  B::ssd_scan_gradient(dssd, ssd, x, x);   // (gradients, operands, dy, dlast or empty)
  B::short_convolution(v, convolution);    // (y, operands)
  B::short_convolution_gradient(dconvolution, convolution, x);  // (gradients, operands, dy)
  B::cross_entropy(v, x, x);               // (nll (R), logits (R,V), targets i32 (R)); a negative target gives 0
  B::cross_entropy_gradient(d, x, x, x);   // (dlogits, logits, targets, dnll); dlogits may be where the logits are, if it
                                           // does not add
  B::sample(v, x, sampling);               // (chosen i32 (R), logits (R,V), rule); a logit that is NaN is never chosen; -1 if the largest is not finite
  B::gather_sum(v, x, x, x);               // (y (R,C), table (K,V,C), index i32 (R,K), addend (C) or empty):
                                           // y_r = Σ_k table[k, index_rk] + addend
  B::scatter_sum(d, x, x);                 // (dtable, index, dy); a negative index is nothing in both
  B::column_moments(v, v, x);              // (mean, biased variance, x (R,C)) by columns
  B::batch_norm(v, v, v, x, x, x, a);      // (y, mean, biased variance, x (R,C), weight, bias, eps) by columns
  B::batch_norm_gradient(d, d, d, x, x, x, x, x, a);  // (dx, dweight, dbias, x, mean, variance, weight, dy, eps)
  B::dropout(d, x, a, r);                  // element i as dropout_mask keeps it
  B::normal(v, r);                         // standard normal, element i = standard_normal(r, i)
  B::uniform(v, r, a, a);                  // uniform in (low, high)
  B::scale_by(places, list, n, x);         // place_i (+)= f·x_i for n pairs, all contiguous and apart; f (1) is on the device
  B::adamw(updates, n);                    // n tensors, all contiguous
  B::sum_of_squares(v, list, n);           // (Σ x² (1) in f64, n contiguous tensors); finite exactly when all elements are
};
// clang-format on

/// Whether a backend computes on a device, so that its calls return before their work is done. There work is cheap and moving
/// memory is not; on a cpu it is the other way round.
template <class B>
inline constexpr bool on_device = [] {
  if constexpr (requires { B::runs_ahead; }) return B::runs_ahead;
  else return false;
}();

/// A backend that has the optional primitive c = a b + bias, where the bias (N) is the same for every row.
template <class B>
concept AffineBackend = requires(view c, const_view x) {
  B::affine(c, x, x, x);  // (c, a, b, bias)
};

/// A backend that has the optional primitive y = x + dropout(f).
template <class B>
concept AddDroppedBackend = requires(view y, const_view x, double rate, random_draw draw) {
  B::add_dropped(y, x, x, rate, draw);  // (y, x, f, rate, draw), all contiguous and of one shape
};

/// A backend whose calls can leave their order for a branch: those between begin_branch() and end_branch() of one thread come
/// behind all that were made before and one after another, but what is made after them waits for them only from join_branch()
/// on. Until then nothing else may read or write what they write. (What only the end of a backward pass reads need not hold
/// up the rest of it.)
template <class B>
concept BranchBackend = requires {
  B::begin_branch();
  B::end_branch();
  B::join_branch();
};
/// Calls are on the branch as long as it lives, if that is wanted and the backend has one.
template <class B>
class branch_scope {
 public:
  explicit branch_scope([[maybe_unused]] bool wanted = true) {
    if constexpr (BranchBackend<B>)
      if ((open_ = wanted)) B::begin_branch();
  }
  branch_scope(branch_scope const&) = delete;
  branch_scope& operator=(branch_scope const&) = delete;
  ~branch_scope() {
    if constexpr (BranchBackend<B>)
      if (open_) B::end_branch();
  }

 private:
  bool open_ = false;
};
/// What comes next is behind the calls on the branch, too.
template <class B>
void join_branch() {
  if constexpr (BranchBackend<B>) B::join_branch();
}

/// A backend that can do two things at once: the calls of a thread from begin_side_stream() to end_side_stream() are behind all
/// that were made before, or if fork_side_stream() was called since the last of them, behind those made before it; what else
/// is made from there on may run at the same time until join_side_stream(). Until then nothing else may read or write what
/// they write, nor write what they read.
template <class B>
concept SideStreamBackend = requires {
  B::fork_side_stream();
  B::begin_side_stream();
  B::end_side_stream();
  B::join_side_stream();
};
/// What the side stream gets next is behind the calls until here.
template <class B>
void fork_side_stream() {
  if constexpr (SideStreamBackend<B>) B::fork_side_stream();
}
/// Calls go to the side stream as long as it lives, if that is wanted and the backend has one.
template <class B>
class side_stream_scope {
 public:
  explicit side_stream_scope([[maybe_unused]] bool wanted = true) {
    if constexpr (SideStreamBackend<B>) {
      if (wanted) B::begin_side_stream();
      open_ = wanted;
    }
  }
  side_stream_scope(side_stream_scope const&) = delete;
  side_stream_scope& operator=(side_stream_scope const&) = delete;
  ~side_stream_scope() {
    if constexpr (SideStreamBackend<B>)
      if (open_) B::end_side_stream();
  }

 private:
  bool open_ = false;
};
/// What comes next is behind the calls of the side stream, too.
template <class B>
void join_side_stream() {
  if constexpr (SideStreamBackend<B>) B::join_side_stream();
}

/// A backend that has numbers the host can see before all is done that was asked for: an early_values(count) has so many.
/// show() is a call like others, behind those before it; value() waits until number i has been shown and no longer. It may be
/// shown again when all was waited for.
template <class B>
concept EarlyBackend = requires(typename B::early_values& early, const_view x, std::int64_t i) {
  early.show(i, x);  // x i32 (1), not negative
  { early.value(i) } -> std::same_as<std::int32_t>;
};

/// A backend that has the optional primitive y_i = x_i for n pairs of contiguous tensors, in bf16 and in f32.
template <class B>
concept NarrowBackend = requires(view const* places, const_view const* list, std::size_t n) {
  B::narrow(places, list, n);
};

/// A backend that has the optional primitive y_q = x + (before − x) ⊙ share_q, where x and before (…,D), shares (Q,D) and y
/// (Q,…,D) are contiguous, and its gradient, which has up to eight shares.
template <class B>
concept MixBackend = requires(view y, const_view x, destination d) {
  B::mix_rows(y, x, x, x);                    // (y, x, before, shares)
  B::mix_rows_gradient(d, d, d, x, x, x, x);  // (dx, dbefore, dshares, x, before, shares, dy)
};

}  // namespace ouro
