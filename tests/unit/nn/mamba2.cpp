// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The Mamba-2 mixer: golden values and gradients, initialisation, gradients by differences.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/io/json.hpp>
#include <ouro/nn/mixers/mamba2.hpp>
#include <ouro/train/adamw.hpp>
#include <ouro_test/random.hpp>

#include "golden.hpp"

using ouro::dtype;
using ouro_test::rms_error;
using ouro_test::stored;
using R = ouro::reference;

namespace {

/// The sizes a fixture was made with.
ouro::mamba2_config sizes_of(ouro::safetensors_reader const& file) {
  auto const& meta = file.metadata();
  REQUIRE(meta.at("format") == "ouro-mixer-1");
  REQUIRE(meta.at("mixer") == "mamba2");
  REQUIRE(std::stod(meta.at("norm_eps")) == 1e-5);  // the only one there is
  auto const config = ouro::json::parse(meta.at("config"));
  auto size = [&](char const* key) {
    auto const* v = config.find(key);
    REQUIRE(v != nullptr);
    return v->integer();
  };
  std::string const limit = meta.at("time_step_limit");  // "(0.0, inf)"
  return {.width = size("hidden_size"),
          .heads = size("num_heads"),
          .head_width = size("head_dim"),
          .state = size("state_size"),
          .groups = size("n_groups"),
          .kernel = size("conv_kernel"),
          .step_least = std::stod(limit.substr(limit.find('(') + 1)),
          .step_most = std::stod(limit.substr(limit.find(',') + 1))};
}

template <class B>
void check_golden(ouro::safetensors_reader const& file, dtype type, double forward, double backward) {
  auto const at = [&](std::string const& name) { return stored<B>(file, name, type); };
  ouro::genesis<B> g(ouro::seed{1}, type);
  ouro::mamba2<B> m(g, sizes_of(file));
  ouro_test::load_module<B>(file, "weights/", m, type);
  ouro::tape<B> t;
  auto const x = at("x");
  t.watch(x);
  for (auto const& f : ouro::fields(m)) t.watch(*f.value);
  ouro::context<B> cx;
  ouro::mamba2_carry<B> carry;
  auto const y = m.forward(cx, x, {0, 0, x.dim(1), 0, 0}, carry);
  INFO("y " << rms_error(y, at("y")));
  CHECK(rms_error(y, at("y")) < forward);
  t.backward(ouro::sum(y * at("dy")));
  auto check = [&](std::string const& name, ouro::tensor<B> const& v) {
    INFO(name << ": " << rms_error(t.gradient(v), at("grad/" + name)));
    CHECK(rms_error(t.gradient(v), at("grad/" + name)) < backward);
  };
  for (auto const& f : ouro::fields(m)) check(f.path, *f.value);
  check("x", x);
}

}  // namespace

TEST_CASE("mamba2: golden values and gradients") {
  ouro_test::on_every_backend("mixers_mamba2.safetensors",
                              []<class B>(B, auto const&... given) { check_golden<B>(given...); });
}

TEST_CASE("mamba2: sizes, weight decay and memory at the start") {
  ouro::genesis<R> g(ouro::seed{1}, dtype::f64);
  for (auto const& [width, heads] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{64, 4}, {128, 4}, {256, 4}, {512, 8}, {768, 12}}) {
    ouro::mamba2<R> const m(g, ouro::mixer_place{width, heads, 0, 1});
    double const share = static_cast<double>(ouro::parameter_count(m)) / static_cast<double>(4 * width * (width + 1));
    INFO(width << ": " << share << " of attention's parameters");
    CHECK(share > 0.85);
    CHECK(share < 1.15);
  }
  ouro::mamba2<R> const m(g, {.width = 8, .heads = 400, .head_width = 2, .state = 2});
  for (auto const& f : ouro::fields(m)) {
    bool const kept = f.path == "dt_bias" || f.path == "A_log" || f.path == "D";
    CHECK(f.decay == (kept ? 0 : 1));
  }
  // Half-lives log 2 / (step * rate) of rows that say nothing about their step.
  std::vector<double> life;
  auto const bias = m.dt_bias.values<double>();
  auto const rate = m.A_log.values<double>();
  for (std::size_t i = 0; i < bias.size(); ++i)
    life.push_back(std::log(2.0) / (std::log1p(std::exp(bias[i])) * std::exp(rate[i])));
  std::sort(life.begin(), life.end());
  INFO("half-lives " << life.front() << ", " << life[200] << ", " << life.back());
  CHECK(life[200] > 100);
  CHECK(life[300] > 600);
  CHECK(life.front() > 0.4);
  CHECK(life.back() < 7e4);
  CHECK_THROWS_AS(ouro::mamba2<R>(g, {.width = 8, .heads = 3, .groups = 2}), ouro::error);
  CHECK_THROWS_AS(ouro::mamba2<R>(g, {.width = 8, .heads = 3, .step_low = 0.0}), ouro::error);
}

TEST_CASE("mamba2: steps outside their limits are brought back, without a gradient") {
  std::vector<double> const steps{0.001, 0.05, 0.5, 3};
  std::vector<double> const within{0.01, 0.05, 0.5, 0.7};
  auto const x = ouro_test::noise<R>({2, 9, 8});
  struct result {
    ouro::tensor<R> y, x, bias;
  };
  // Of a mixer whose steps, one for each head, are the same in all rows.
  auto run = [&](std::vector<double> bias, double least, double most) {
    ouro::genesis<R> g(ouro::seed{1}, dtype::f64);
    ouro::mamba2_config const sizes{
        .width = 8, .heads = 4, .head_width = 2, .state = 3, .step_least = least, .step_most = most};
    ouro::mamba2<R> m(g, sizes);
    ouro::tensor<R>& weight = m.in_proj.weight;
    std::int64_t const others = weight.dim(0) - sizes.heads;
    weight = ouro::concat<R>({ouro::slice(weight, 0, 0, others), ouro::tensor<R>::zeros({4, 8}, dtype::f64)}, 0);
    for (double& v : bias) v += std::log(-std::expm1(-v));  // the inverse of softplus
    static_cast<ouro::tensor<R>&>(m.dt_bias) = ouro::tensor<R>::from(bias, {4});
    ouro::tape<R> t;
    t.watch(x);
    t.watch(m.dt_bias);
    ouro::context<R> cx;
    ouro::mamba2_carry<R> c;
    auto const y = m.forward(cx, x, {0, 0, 9, 0, 0}, c);
    t.backward(ouro::sum(ouro::square(y)));
    return result{y, t.gradient(x), t.gradient(m.dt_bias)};
  };
  double const none = std::numeric_limits<double>::infinity();
  auto const want = run(within, 0, none);
  auto const got = run(steps, 0.01, 0.7);
  CHECK(rms_error(got.y, want.y) < 1e-13);
  CHECK(rms_error(got.x, want.x) < 1e-13);
  CHECK(rms_error(run(steps, 0, none).y, want.y) > 1e-3);
  auto const slope = got.bias.values<double>();
  auto const free = want.bias.values<double>();
  CHECK((slope[0] == 0 && slope[3] == 0));
  CHECK(std::abs(slope[1] / free[1] - 1) < 1e-11);
  CHECK(std::abs(slope[2] / free[2] - 1) < 1e-11);
  ouro::genesis<R> g(ouro::seed{1}, dtype::f64);
  CHECK_THROWS_AS(ouro::mamba2<R>(g, {.width = 8, .step_least = 2, .step_most = 1}), ouro::error);
  CHECK_THROWS_AS(ouro::mamba2<R>(g, {.width = 8, .step_least = -1}), ouro::error);
}

TEST_CASE("mamba2: what the first rows say still counts at the last") {
  std::int64_t const rows = 1024;
  auto const x = ouro_test::noise<R>({1, rows, 32});
  auto reach = [&](ouro::mamba2_config const& sizes) {  // of the first rows into the last
    ouro::genesis<R> g(ouro::seed{1}, dtype::f64);
    ouro::mamba2<R> const m(g, sizes);
    ouro::tape<R> t;
    t.watch(x);
    ouro::context<R> cx;
    ouro::mamba2_carry<R> c;
    auto const y = m.forward(cx, x, {0, 0, rows, 0, rows - 1}, c);
    t.backward(ouro::sum(y));
    return ouro::norm_of<R>({ouro::slice(t.gradient(x), 1, 0, 16)});
  };
  auto const sizes = ouro::mamba2_config::of({32, 8, 0, 1});
  auto shorter = sizes;
  shorter.step_low = 1e-3, shorter.rate_low = 1;  // as for text
  INFO("gradient norm " << reach(sizes) << ", and " << reach(shorter) << " with the horizon of text");
  CHECK(reach(sizes) > 10 * reach(shorter));
}
