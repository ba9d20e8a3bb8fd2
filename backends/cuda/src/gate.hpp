// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The hormone gate on the device (contract: ouro/concepts/hormone_gate.hpp): a block for each row. A thread keeps to its
// columns i of width D in every pass, with all their repetitions j.
#pragma once

#include "functions.hpp"
#include "kept_bits.hpp"
#include "row_queue.hpp"

namespace ouro::cuda_kernels {

/// The gates of a layer whose inner values are in bf16, each with a kernel that knows what it reads, computes and writes:
/// behind the layer norm, behind the inner product, and behind the outer one. The launch says it for any other.
enum class gate_kind { any, norm, inner, outer };

/// What operands are stored in, void where the launch says so; Y and Folded stand for their gradients too, and Old for what dx
/// is added to.
template <class X, class F, class Residual, class Y, class Folded, class Old>
struct gate_operand_types {
  using x = X;
  using f = F;
  using residual = Residual;
  using y = Y;
  using folded = Folded;
  using old = Old;
};
template <gate_kind>
struct gate_storage : gate_operand_types<void, void, void, void, void, nothing> {};
template <>
struct gate_storage<gate_kind::norm> : gate_operand_types<float, nothing, nothing, bf16, nothing, float> {};
template <>
struct gate_storage<gate_kind::inner> : gate_operand_types<bf16, bf16, nothing, bf16, bf16, nothing> {};
template <>
struct gate_storage<gate_kind::outer> : gate_operand_types<bf16, bf16, float, float, nothing, nothing> {};

/// The kind of gate that has these operands, with results in `behind` and their sum in `folded`, as far as its gradient needs to
/// know.
inline gate_kind kind_of(hormone_gate_operands const& in, dtype behind, const_view const& folded) {
  bool const feeds = in.x.type == dtype::f32 && in.f.empty() && behind == dtype::bf16;
  bool const between = in.x.type == dtype::bf16 && !in.f.empty() && in.f.type == dtype::bf16;
  bool const plain = !in.gelu && in.dropout == 0 && folded.empty();
  bool const folds = !folded.empty() && folded.type == dtype::bf16;
  if (feeds && plain) return gate_kind::norm;
  if (between && in.gelu && behind == dtype::bf16 && folds) return gate_kind::inner;
  if (between && plain && behind == dtype::f32) return gate_kind::outer;
  return gate_kind::any;
}

/// Functions of the gate; the rough ones, for what is stored in bf16 anyway, are good to 0.05 % or, where they are small, 3e-5.
template <bool Rough, class T>
struct gate_functions {
  static __device__ T tanh(T x) { return std::tanh(x); }
  static __device__ T gelu(T x) { return cuda_kernels::gelu(x); }
  static __device__ T gelu_slope(T x) { return cuda_kernels::gelu_slope(x); }
};
template <>
struct gate_functions<true, float> {
  static __device__ float tanh(float x) {
#if defined(__CUDACC__)
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return std::tanh(x);
#endif
  }
  static __device__ float gelu(float x) { return (x > 0 ? x : 0) - std::abs(x) * tail(x, bell(x)); }
  static __device__ float gelu_slope(float x) {
    float const height = bell(x);
    float const beyond = tail(x, height);
    return (x > 0 ? 1 - beyond : beyond) + x * 0.39894228F * height;
  }

 private:
  /// exp(-x²/2)
  static __device__ float bell(float x) { return power_of_two(x * x * -0.72134752F); }
  /// How much of the normal distribution lies beyond |x|: erfc(|x|/√2)/2, by 7.1.25 of Abramowitz and Stegun's Handbook of
  /// Mathematical Functions, erfc z = (a₁t + a₂t² + a₃t³) exp(-z²) ± 2.5e-5 with t = 1/(1 + 0.47047 z).
  static __device__ float tail(float x, float height) {
    float const t = inverse(1 + std::abs(x) * (0.47047F * 0.70710678F));
    float const sum = 0.5F * 0.3480242F + t * (0.5F * -0.0958798F + t * (0.5F * 0.7478556F));
    return t * sum * height;
  }
  static __device__ float inverse(float x) {
#if defined(__CUDACC__)
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return 1 / x;
#endif
  }
};

template <class T>
struct gate_operands {
  reals<T> x, f, residual;
  T const *h, *scale, *bias, *query_weight, *query_bias, *gate, *proj_weight, *proj_bias;
  index rows, lane_rows;
  int width, spread;
  bool gelu;
  T factor;  // of the dropout
  kept_bits kept;
  T epsilon;

  explicit gate_operands(hormone_gate_operands const& in)
      : x(in.x),
        f(in.f),
        residual(in.residual),
        h(dense_or_none<T>(in.h)),
        scale(dense_or_none<T>(in.scale)),
        bias(dense_or_none<T>(in.bias)),
        query_weight(dense_or_none<T>(in.query_weight)),
        query_bias(dense_or_none<T>(in.query_bias)),
        gate(dense_or_none<T>(in.gate)),
        proj_weight(dense_or_none<T>(in.proj_weight)),
        proj_bias(dense_or_none<T>(in.proj_bias)),
        rows(in.x.dims[0]),
        lane_rows(in.x.dims[0] / in.h.dims[0]),
        width(static_cast<int>(in.gate.dims[1])),
        spread(static_cast<int>(in.gate.dims[0])),
        gelu(in.gelu),
        factor(static_cast<T>(dropout_mask(in.dropout).factor)),
        kept(dropout_mask(in.dropout), in.draw),
        epsilon(static_cast<T>(in.epsilon)) {}

  /// The columns of a result.
  [[nodiscard]] __device__ __host__ int wide() const { return width * spread; }
};

/// Which elements of a row the dropout keeps, if the gate has one. Eight lanes own the 32 elements of a group, where rows begin
/// with one: then half of a warp draws for a row, and the other half for the next.
template <bool Drops, class T, int E, class Own>
class kept_columns {
 public:
  __device__ kept_columns(gate_operands<T> const& g, Own const& own)
      : g_(g), own_(own), shared_(Own::full || g.width % 32 == 0) {}
  /// The row that begins at element `row`; with stage 0 and 1 in turns, `next` is where the next one begins.
  __device__ void take(index row, index next, int stage) {
    if (!Drops || g_.kept.all()) return;
    int const lane = lane_number();
    if (shared_ && stage == 0) {
      int const away = lane % 4 * 8 - lane;  // where the group's first lane is from this one
      index const first = (lane < 16 ? row : next) + place(lane / 4 % 4) + own_width * away;
      mine_ = ~g_.kept.of(static_cast<std::uint64_t>(first) / 32);
    }
    OURO_UNROLL
    for (int m = 0; m < quads; ++m) {
      auto const first = static_cast<std::uint64_t>(row + place(m));
      if (shared_) dropped_[m] = __shfl_sync(everybody, mine_, 16 * stage + 4 * m + lane / 8) >> lane % 8 * 4;
      else dropped_[m] = ~g_.kept.of(first / 32) >> first % 32;
    }
  }
  __device__ bool operator()(int j, int k, int v) const { return (dropped_[j * Own::count + k] >> v & 1U) == 0; }

 private:
  static constexpr int quads = E * Own::count;
  static_assert(quads <= 4);
  /// Where quad m of this lane begins in a row.
  [[nodiscard]] __device__ int place(int m) const { return m / Own::count * g_.width + own_.first(m % Own::count); }

  gate_operands<T> const& g_;
  Own const& own_;
  bool shared_;
  std::uint32_t mine_ = 0;  // what is dropped of the group that this lane draws for
  std::uint32_t dropped_[quads] = {};
};
template <class T, class Own>
class kept_columns<true, T, 0, Own> {
 public:
  __device__ kept_columns(gate_operands<T> const& g, Own const& own) : g_(g), own_(own) {}
  __device__ void take(index row, index, int) { row_ = row; }
  __device__ bool operator()(int j, int k, int v) {
    if (g_.kept.all()) return true;
    auto const i = static_cast<std::uint64_t>(row_ + j * g_.width + own_.first(k) + v);
    if (i / 32 != group_) {
      group_ = i / 32;
      bits_ = g_.kept.of(group_);
    }
    return (bits_ >> i % 32 & 1U) != 0;
  }

 private:
  gate_operands<T> const& g_;
  Own const& own_;
  index row_ = 0;
  std::uint64_t group_ = ~std::uint64_t{};
  std::uint32_t bits_ = 0;  // of the group
};

/// The lane of a row from which `step` rows are gone ahead at a time, without a division for each.
class lane_of_row {
 public:
  __device__ lane_of_row(index row, index step, index lane_rows)
      : lane_rows_(static_cast<std::uint32_t>(lane_rows)),
        lane_(static_cast<std::uint32_t>(row) / lane_rows_),
        row_(static_cast<std::uint32_t>(row) % lane_rows_),
        lanes_(static_cast<std::uint32_t>(step) / lane_rows_),
        rows_(static_cast<std::uint32_t>(step) % lane_rows_) {}
  [[nodiscard]] __device__ index lane() const { return lane_; }
  __device__ void go_ahead() {
    lane_ += lanes_;
    row_ += rows_;
    if (row_ < lane_rows_) return;
    row_ -= lane_rows_;
    ++lane_;
  }

 private:
  std::uint32_t lane_rows_;
  std::uint32_t lane_;
  std::uint32_t row_;  // of the lane
  std::uint32_t lanes_;
  std::uint32_t rows_;
};

/// Columns of the statistics.
enum : int { query_mean, query_rstd, proj_mean, proj_rstd, norm_mean, norm_rstd };

/// The statistics of a row, which a warp asks for ahead, as a row_queue does.
template <class T, bool Ahead>
class statistics_queue {
  static constexpr int row_bytes = static_cast<int>(hormone_gate_statistics * sizeof(T));
  static constexpr int stage_bytes = (row_bytes + 15) / 16 * 16;

 public:
  static constexpr int bytes = Ahead ? 2 * stage_bytes / warp_size : 0;  // of a thread
  __device__ statistics_queue(T const* rows, char*& room)
      : rows_(rows), mine_(room + static_cast<int>(threadIdx.x) / warp_size * 2 * stage_bytes) {
    room += bytes * static_cast<int>(blockDim.x);
  }
  __device__ void ask(index row, int stage) const {
    __syncwarp();  // other lanes have read what was there before
    constexpr int piece = 8;
    int const lane = lane_number();
    if (lane < row_bytes / piece)
      copy_later<piece>(mine_ + stage * stage_bytes + lane * piece,
                        reinterpret_cast<char const*>(rows_) + row * row_bytes + lane * piece);
  }
  /// Those of the row that was asked for as this stage's.
  [[nodiscard]] __device__ T const* take(index row, int stage) const {
    if constexpr (!Ahead) return rows_ + row * hormone_gate_statistics;
    __syncwarp();  // other lanes have copied them
    return reinterpret_cast<T const*>(mine_ + stage * stage_bytes);
  }

 private:
  T const* rows_;
  char* mine_;
};

/// What the kernel of a gate knows when it is compiled. Chunks: of a thread; Spread: repetitions that registers hold, 0
/// where they do not.
template <class T, int Chunks, int Spread, row_cover Cover, gate_kind Kind>
struct gate_form {
  using number = T;
  using own_type = own_columns<Chunks, Cover>;
  using functions = gate_functions<Kind != gate_kind::any, T>;
  using storage = gate_storage<Kind>;
  static constexpr gate_kind kind = Kind;
  static constexpr int chunks = Chunks;
  static constexpr int spread = Spread;
  static constexpr bool ahead = Kind != gate_kind::any;  // whether rows are asked for ahead
  static constexpr bool drops = Kind == gate_kind::any || Kind == gate_kind::inner;
  static constexpr bool remains = !std::is_same_v<typename storage::residual, nothing>;  // a residual, perhaps
  static constexpr bool folds = !std::is_same_v<typename storage::folded, nothing>;  // the sum is asked for, perhaps
  /// Whether a thread may own fewer columns of a chunk than there are.
  static constexpr bool ragged = Cover == row_cover::any;

  /// On their way to a thread: what is as wide as x, and what is as wide as a result.
  template <class S>
  using narrow_queue = row_queue<(Spread == 0 ? 0 : 1), own_type, reals<T, S>, ahead>;
  using x_queue = narrow_queue<typename storage::x>;
  using dfolded_queue = narrow_queue<typename storage::folded>;
  template <class S>
  using wide_queue = row_queue<Spread, own_type, reals<T, S>, ahead>;
  using f_queue = wide_queue<typename storage::f>;
  using residual_queue = wide_queue<typename storage::residual>;
  using dy_queue = wide_queue<typename storage::y>;
  using old_queue = wide_queue<typename storage::old>;
  using numbers_queue = statistics_queue<T, ahead>;
  using kept_type = kept_columns<drops, T, Spread, own_type>;

  static __device__ bool has_norm(gate_operands<T> const& g) { return ahead ? Kind == gate_kind::norm : g.f.absent(); }
  static __device__ bool has_gelu(gate_operands<T> const& g) { return ahead ? Kind == gate_kind::inner : g.gelu; }
  static int threads(index width) {
    return row_threads(width, Cover == row_cover::full ? Chunks : 1, most_row_threads);
  }
};
/// Shared memory of a block for these queues, and what else a thread keeps there.
template <class... Queues>
std::size_t queue_room(int threads) {
  return static_cast<std::size_t>((Queues::bytes + ...) * threads);
}

/// f.operator()<Chunks>() for how many chunks a thread has of so many rows of this width: the more, the less it costs what is
/// said of the whole row; but no thread should be without its last, nor should rows that are few be long in few hands.
template <int MostChunks, class F>
void with_chunks(index rows, index width, F const& f) {
  constexpr index enough = 896;  // threads of a multiprocessor
  auto suit = [&](index chunks) {
    index const threads = rows * width / (own_width * chunks);
    return width % (chunks * own_width * warp_size) == 0 && threads >= enough * multiprocessors();
  };
  if constexpr (MostChunks >= 4)
    if (suit(4)) return f.template operator()<4>();
  if constexpr (MostChunks >= 3)
    if (suit(3)) return f.template operator()<3>();
  if (suit(2)) return f.template operator()<2>();
  f.template operator()<1>();
}
/// f.operator()<gate_form>() for the kernel that a call needs: registers hold rows of up to 1536 columns, f32, and four
/// repetitions; what is larger or lies unaligned is read and added up in memory.
/// Errors: a dtype that is not real, and rows too wide for both.
template <int MostChunks, class F>
void with_gate_form(char const* name, hormone_gate_operands const& in, bool whole, gate_kind kind, F const& f) {
  index const width = in.gate.dims[1];
  index const spread = in.gate.dims[0];
  require(width <= most_chunks * own_width * most_row_threads, errc::shape, name, "rows of ", width,
          " columns are too wide");
  with_real(in.gate.type, name, [&]<class T>(std::type_identity<T>) {
    if constexpr (std::is_same_v<T, float>)
      if (whole && width <= own_width * most_row_threads && spread <= 4) {
        using enum gate_kind;
        constexpr auto fours = row_cover::fours;
        constexpr auto full = row_cover::full;
        bool const fills = width % (own_width * warp_size) == 0;
        if (fills && spread == 1)
          return with_chunks<MostChunks>(in.x.dims[0], width, [&]<int Chunks>() {
            if (kind == norm) return f.template operator()<gate_form<float, Chunks, 1, full, norm>>();
            if (kind == outer) return f.template operator()<gate_form<float, Chunks, 1, full, outer>>();
            f.template operator()<gate_form<float, Chunks, 1, full, any>>();
          });
        if (fills && spread == 4 && kind == inner) return f.template operator()<gate_form<float, 1, 4, full, inner>>();
        if (spread == 1) return f.template operator()<gate_form<float, 1, 1, fours, any>>();
        if (spread == 2) return f.template operator()<gate_form<float, 1, 2, fours, any>>();
        if (spread == 3) return f.template operator()<gate_form<float, 1, 3, fours, any>>();
        return f.template operator()<gate_form<float, 1, 4, fours, any>>();
      }
    f.template operator()<gate_form<T, most_chunks, 0, row_cover::any, gate_kind::any>>();
  });
}

/// Whether rows of all operands that are there can be read four numbers at a time.
inline bool reads_whole(hormone_gate_operands const& in) {
  if (in.gate.dims[1] % own_width != 0) return false;
  for (auto const* v : {&in.x, &in.h, &in.f, &in.scale, &in.bias, &in.query_weight, &in.query_bias, &in.gate,
                        &in.proj_weight, &in.proj_bias, &in.residual})
    if (!aligned(*v)) return false;
  return true;
}

}  // namespace ouro::cuda_kernels
