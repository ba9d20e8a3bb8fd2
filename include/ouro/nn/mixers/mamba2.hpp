// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Mamba-2 as a SequenceMixer (Dao & Gu, "Transformers are SSMs", 2024): a matrix state per head with one decay chosen by
// the input, behind a short convolution and a gate. Plain causal over all rows, unless the row_policy of its place says
// otherwise.
#pragma once

#include <limits>
#include <utility>
#include <vector>

#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/nn/mixers/row_runs.hpp>
#include <ouro/nn/projection.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/exp.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/short_convolution.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/silu.hpp>
#include <ouro/ops/softplus.hpp>
#include <ouro/ops/square.hpp>
#include <ouro/ops/square_root.hpp>
#include <ouro/ops/ssd_scan.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

/// Sizes of a Mamba-2 mixer, and how far it remembers when it is new.
struct mamba2_config {
  std::int64_t width = 0;
  std::int64_t heads = 1;
  std::int64_t head_width = 64;
  std::int64_t state = 64;  ///< keys of a head's state
  std::int64_t groups = 1;  ///< heads of a group share B and C
  std::int64_t kernel = 4;  ///< rows of the convolution
  double step_low = 1e-4;   ///< steps start log-uniform in [step_low, step_high]
  double step_high = 0.1;
  double rate_low = 0.1;  ///< decay rates start log-uniform in [rate_low, rate_high]
  double rate_high = 16;
  double step_least = 0;  ///< every step is brought into [step_least, step_most]
  double step_most = std::numeric_limits<double>::infinity();

  /// About as many parameters as attention of that width, 4D². The memory of a new mixer is long (half-lives of 170 rows
  /// in the median, of tens of thousands at most), because what was read must outlive the whole input. For text alone,
  /// steps from 1e-3 and rates from 1 are usual: 10 rows in the median, 663 at most.
  static mamba2_config of(mixer_place const& place) {
    mamba2_config c;
    c.width = place.width;
    c.head_width = elementary::max<std::int64_t>(1, place.width / elementary::max<std::int64_t>(1, place.heads));
    c.state = elementary::min<std::int64_t>(64, elementary::max<std::int64_t>(1, place.width / 4));
    // 3 D E + D (2 G N + H) = 4 D² with E = H P.
    double const room = 4.0 * static_cast<double>(c.width) - 2.0 * static_cast<double>(c.groups * c.state);
    c.heads =
        elementary::max<std::int64_t>(1, elementary::llround(room / (3.0 * static_cast<double>(c.head_width) + 1.0)));
    return c;
  }
  [[nodiscard]] std::int64_t inner() const { return heads * head_width; }
  /// Columns that go through the convolution: x, B and C.
  [[nodiscard]] std::int64_t convolved() const { return inner() + 2 * groups * state; }
};

/// The rows the convolution still sees, and the state of every head.
template <Backend B>
struct mamba2_carry {
  tensor<B> window;  // (B,K−1,E + 2GN)
  tensor<B> state;   // (B,H,P,N)
};

/// The weights of a convolution by columns.
template <Backend B>
struct column_convolution {
  using backend = B;
  parameter<B> weight;  // (C,1,K)
  parameter<B> bias;    // (C)
  OURO_MODULE(column_convolution, weight, bias);
};

/// The weight of a normalisation.
template <Backend B>
struct gain {
  using backend = B;
  parameter<B> weight;
  OURO_MODULE(gain, weight);
};

template <Backend B>
struct mamba2 {
  using backend = B;
  static constexpr std::string_view name = "mamba2";
  using carry = mamba2_carry<B>;
  projection<B> in_proj;  // rows z (E), x (E), B (GN), C (GN), step (H)
  column_convolution<B> conv1d;
  parameter<B> dt_bias;  // (H)
  parameter<B> A_log;    // (H)
  parameter<B> D;        // (H)
  gain<B> norm;          // (E)
  projection<B> out_proj;
  mamba2_config sizes;
  row_policy policy;
  OURO_MODULE(mamba2, in_proj, conv1d, dt_bias, A_log, D, norm, out_proj, sizes, policy);

  mamba2() = default;
  mamba2(genesis<B>& g, mixer_place const& place) : mamba2(g, mamba2_config::of(place)) { policy = place.rows; }
  /// Projections and convolution start uniform in ±1/√in, the skip and the norm at 1. No weight decay on dt_bias, A_log
  /// and D. Errors (config): groups that do not divide the heads, sizes below 1, an empty or negative range, no step left.
  mamba2(genesis<B>& g, mamba2_config const& config);

  [[nodiscard]] static bool takes_narrow() { return true; }

  /// The SequenceMixer form: x (B,T,D) → (B,T − skip,D), with T ≥ 1, and a row before Write rows that are parallel.
  tensor<B> forward(context<B>& cx, tensor<B> const& x, segments s, carry& c) const {
    auto const y = one_way(cx, x, s, c);
    if (!policy.two_way_prefix) return y;
    return with_prefix_from_behind(y, x, s, [&](tensor<B> const& turned, segments t) {
      carry own;
      return one_way(cx, turned, t, own);
    });
  }
  tensor<B> step(context<B>& cx, tensor<B> const& x, carry& c) const {
    return forward(cx, x, {0, 0, x.dim(1), 0, 0}, c);
  }

 private:
  tensor<B> one_way(context<B>& cx, tensor<B> const& x, segments s, carry& c) const;
  /// Steps within their limits; the gradient of one that was outside is 0.
  tensor<B> limited(tensor<B> step) const;
};

template <Backend B>
mamba2<B>::mamba2(genesis<B>& g, mamba2_config const& config) : sizes(config) {
  require(config.width >= 1 && config.heads >= 1 && config.head_width >= 1 && config.state >= 1 && config.groups >= 1 &&
              config.kernel >= 1 && config.heads % config.groups == 0,
          errc::config, "mamba2", "sizes must be at least 1 and groups must divide heads, got heads ", config.heads,
          " and groups ", config.groups);
  require(config.step_low > 0 && config.step_low <= config.step_high && config.rate_low > 0 &&
              config.rate_low <= config.rate_high,
          errc::config, "mamba2", "steps and rates need a range of positive numbers");
  require(config.step_least >= 0 && config.step_least <= config.step_most && config.step_most > 0 &&
              config.step_least < std::numeric_limits<double>::infinity(),
          errc::config, "mamba2",
          "the limits of a step need 0 <= least <= most, the least finite and the most above 0");
  auto log_uniform = [&](double low, double high) {
    auto const draw = g.random.next();
    std::vector<double> values;
    for (std::int64_t h = 0; h < config.heads; ++h)
      values.push_back(low * elementary::pow(high / low, draw.uniform(static_cast<std::uint64_t>(h))));
    return values;
  };
  auto kept = [&](std::vector<double> const& values) {
    parameter<B> p(tensor<B>::from(values, {config.heads}, g.type));
    p.decay = 0;
    return p;
  };
  in_proj = projection<B>(g, config.width, config.inner() + config.convolved() + config.heads);
  double const bound = 1.0 / elementary::sqrt(static_cast<double>(config.kernel));
  conv1d.weight = g.uniform({config.convolved(), 1, config.kernel}, bound);
  conv1d.bias = g.uniform({config.convolved()}, bound);
  auto steps = log_uniform(config.step_low, config.step_high);
  for (double& v : steps) v += elementary::log(-elementary::expm1(-v));  // the inverse of softplus
  dt_bias = kept(steps);
  auto rates = log_uniform(config.rate_low, config.rate_high);
  for (double& v : rates) v = elementary::log(v);
  A_log = kept(rates);
  D = kept(std::vector<double>(static_cast<std::size_t>(config.heads), 1.0));
  norm.weight = g.ones({config.inner()});
  out_proj = projection<B>(g, config.inner(), config.width);
}

template <Backend B>
tensor<B> mamba2<B>::limited(tensor<B> step) const {
  auto const one = tensor<B>::full({1}, step.type(), 1.0);
  // `side` 1: not above the bound; -1: not below it. So steep a sigmoid is 0 or 1 wherever they differ.
  auto bring = [&](double bound, double side) {
    auto const edge = tensor<B>::full({1}, step.type(), bound);
    auto const inside = sigmoid(scale(edge - step.detach(), side * 1e30));
    step = step * inside + edge * (one - inside);
  };
  if (sizes.step_least > 0) bring(sizes.step_least, -1);
  if (sizes.step_most < std::numeric_limits<double>::infinity()) bring(sizes.step_most, 1);
  return step;
}

template <Backend B>
tensor<B> mamba2<B>::one_way(context<B>& cx, tensor<B> const& x, segments s, carry& c) const {
  std::int64_t const lanes = x.dim(0), rows = x.dim(1);
  std::int64_t const inner = sizes.inner(), shared = sizes.groups * sizes.state;
  std::int64_t const alone = rows_alone(s, policy), chained = rows - alone;
  require(chained >= 1 && s.skip < rows, errc::shape, "mamba2", "needs a row after those skipped, got ", x.dims(),
          " and skip ", s.skip);
  dtype const wide = computed_in(x.type());  // of the carry, and of all between the projections
  if (c.window.empty())
    c = {tensor<B>::zeros({lanes, sizes.kernel - 1, sizes.convolved()}, wide),
         tensor<B>::zeros({lanes, sizes.heads, sizes.head_width, sizes.state}, wide)};
  auto const all = in_proj(cx, x, wide);  // (B,T,2E + 2GN + H)
  auto const open = slice(all, 2, inner, sizes.convolved());
  auto convolve = [&](tensor<B> const& y, tensor<B> const& window) {
    return short_convolution(y, window, reshape(conv1d.weight.value(), {sizes.convolved(), sizes.kernel}),
                             conv1d.bias.value());
  };
  auto const nothing = tensor<B>::zeros(c.window.dims(), wide);
  std::vector<tensor<B>> filtered;
  auto starts = run_starts(s, policy, chained);
  starts.push_back(chained);
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    std::int64_t const length = starts[i + 1] - starts[i];
    auto const run = convolve(length < rows ? slice(open, 1, starts[i], length) : open, i == 0 ? c.window : nothing);
    filtered.push_back(run.y);
    c.window = run.state;
  }
  if (alone > 0) {
    auto const y =
        convolve(last_rows_as_lanes(open, alone), repeated_lanes(policy.reset_write ? nothing : c.window, alone)).y;
    filtered.push_back(reshape(y, {lanes, alone, sizes.convolved()}));
  }
  auto const xbc = silu(filtered.size() > 1 ? concat(filtered, 1) : filtered[0]);
  auto const step =
      limited(softplus(slice(all, 2, inner + sizes.convolved(), sizes.heads) + dt_bias.value()));  // (B,T,H)
  auto scan = [&](tensor<B> const& y, tensor<B> const& steps, tensor<B> const& state) {
    return ssd_scan(slice(y, 2, 0, inner), steps, scale(exp(A_log.value()), -1.0), slice(y, 2, inner, shared),
                    slice(y, 2, inner + shared, shared), D.value(), state);
  };
  auto chain = [&](tensor<B> const& y) { return alone > 0 ? slice(y, 1, 0, chained) : y; };
  auto scanned = scan(chain(xbc), chain(step), c.state);
  c.state = scanned.state;
  if (alone > 0) {
    auto const read =
        scan(last_rows_as_lanes(xbc, alone), last_rows_as_lanes(step, alone), repeated_lanes(c.state, alone));
    scanned.y = concat<B>({scanned.y, reshape(read.y, {lanes, alone, inner})}, 1);
  }

  // What follows is row by row: only rows that are asked for. The gate comes before the norm, which is by groups.
  std::int64_t const asked = rows - s.skip;
  auto const gated = slice(scanned.y, 1, s.skip, asked) * silu(slice(slice(all, 2, 0, inner), 1, s.skip, asked));
  auto const by_group = reshape(gated, {lanes, asked, sizes.groups, inner / sizes.groups});
  auto const power = mean(square(by_group), 3) + tensor<B>::full({1}, wide, 1e-5);  // (B,T,G,1)
  return out_proj(cx, reshape(divide(by_group, square_root(power)), gated.dims()) * norm.weight.value(), x.type());
}

}  // namespace ouro
