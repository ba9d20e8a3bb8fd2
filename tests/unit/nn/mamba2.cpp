// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The Mamba-2 mixer: golden values and gradients, initialisation, gradients by differences.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <vector>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/nn/mixers/mamba2.hpp>
#include <ouro/train/adamw.hpp>
#include <ouro_test/random.hpp>

#include "golden.hpp"

using ouro::dtype;
using ouro_test::rms_error;
using ouro_test::stored;
using R = ouro::reference;

namespace {

template <class B>
void check_golden(ouro::safetensors_reader const& file, dtype type, double forward, double backward) {
  auto const at = [&](std::string const& name) { return stored<B>(file, name, type); };
  ouro::genesis<B> g(ouro::seed{1}, type);
  ouro::mamba2_config const sizes{.width = 48, .heads = 6, .head_width = 16, .state = 24, .groups = 2};
  ouro::mamba2<B> m(g, sizes);
  ouro_test::load_module<B>(file, "weights/", m, type);
  ouro::tape<B> t;
  auto const x = at("x");
  t.watch(x);
  for (auto const& f : ouro::fields(m)) t.watch(*f.value);
  ouro::context<B> cx;
  ouro::mamba2_carry<B> carry;
  auto const y = m.forward(cx, x, {0, 0, 37, 0, 0}, carry);
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
