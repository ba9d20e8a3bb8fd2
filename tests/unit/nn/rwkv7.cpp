// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The RWKV-7 mixer: golden values and gradients, initialisation, gradients by differences.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/backend/cpu.hpp>
#include <ouro/nn/mixers/rwkv7.hpp>
#include <ouro_test/random.hpp>

#include "golden.hpp"

using ouro::dtype;
using ouro_test::rms_error;
using ouro_test::stored;
using R = ouro::reference;

namespace {

/// The sizes a fixture was made with; all ranks are one.
struct fixture_sizes {
  std::int64_t width, heads, layers, rank;
  explicit fixture_sizes(ouro::safetensors_reader const& file) {
    auto const& meta = file.metadata();
    REQUIRE(meta.at("format") == "ouro-mixer-1");
    REQUIRE(meta.at("mixer") == "rwkv7");
    width = std::stoll(meta.at("width")), heads = width / std::stoll(meta.at("head"));
    layers = std::stoll(meta.at("layers")), rank = std::stoll(meta.at("rank"));
  }
  template <class B>
  [[nodiscard]] ouro::rwkv7<B> layer(ouro::genesis<B>& g, std::int64_t l) const {
    return {g, ouro::mixer_place{width, heads, l, layers}, ouro::rwkv7_ranks{rank, rank, rank, rank}};
  }
};

template <class B>
void check_golden(ouro::safetensors_reader const& file, dtype type, double forward, double backward) {
  auto const at = [&](std::string const& name) { return stored<B>(file, name, type); };
  ouro::genesis<B> g(ouro::seed{1}, type);
  fixture_sizes const sizes(file);
  std::vector<ouro::rwkv7<B>> layers;
  for (std::int64_t l = 0; l < sizes.layers; ++l) {
    layers.push_back(sizes.layer(g, l));
    ouro_test::load_module<B>(file, "layer" + std::to_string(l) + "/weights/", layers.back(), type);
  }
  ouro::tape<B> t;
  ouro::context<B> cx;
  typename ouro::rwkv7<B>::stream pass;
  ouro::tensor<B> total;
  std::vector<ouro::tensor<B>> x;
  std::vector<ouro::rwkv7_carry<B>> start;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    std::string const name = "layer" + std::to_string(l) + "/";
    x.push_back(at(name + "x"));
    start.push_back({at(name + "shift"), at(name + "S0")});
    for (auto const& v : {x[l], start[l].shift, start[l].state}) t.watch(v);
    for (auto const& f : ouro::fields(layers[l])) t.watch(*f.value);
    auto carry = start[l];
    auto const y = layers[l].forward(cx, x[l], {0, 0, x[l].dim(1), 0, 0}, carry, pass);
    INFO(name << ": y " << rms_error(y, at(name + "y")) << ", S_T " << rms_error(carry.state, at(name + "S_T")));
    CHECK(rms_error(y, at(name + "y")) < forward);
    CHECK(rms_error(carry.state, at(name + "S_T")) < forward);
    CHECK(rms_error(pass.v_first, at("v_first")) < forward);
    auto const part =
        reshape(ouro::sum(y * at(name + "dy")), {1}) + reshape(ouro::sum(carry.state * at(name + "dS_T")), {1});
    total = l == 0 ? part : total + part;
  }
  t.backward(total);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    std::string const name = "layer" + std::to_string(l) + "/grad/";
    auto check = [&](std::string const& what, ouro::tensor<B> const& v) {
      auto const got = t.gradient(v);
      if (!file.contains(name + what)) {
        CHECK((l == 0 && got.empty()));  // the first layer has no value residual
        return;
      }
      auto largest = [](ouro::tensor<B> const& d) {
        double most = 0;
        for (double e : d.template values<double>()) most = std::max(most, std::abs(e));
        return most;
      };
      if (largest(at(name + what)) < 1e-12) {  // 0 but for rounding, as k_k's where heads have one column
        CHECK(largest(got) < backward);
        return;
      }
      INFO(name << what << ": " << rms_error(got, at(name + what)));
      CHECK(rms_error(got, at(name + what)) < backward);
    };
    for (auto const& f : ouro::fields(layers[l])) check(f.path, *f.value);
    check("x", x[l]);
    check("shift", start[l].shift);
    check("S0", start[l].state);
  }
}

}  // namespace

TEST_CASE("rwkv7: golden values and gradients") {
  ouro_test::on_every_backend("mixers_rwkv7.safetensors",
                              []<class B>(B, auto const&... given) { check_golden<B>(given...); });
}

TEST_CASE("rwkv7: initialisation") {
  auto const path = ouro_test::golden_path("mixers_rwkv7.safetensors");
  if (!std::filesystem::exists(path)) SKIP("no fixture " << path);
  auto const file = ouro::safetensors_reader::open(path);
  if (!file.contains("layer0/initial/w0")) SKIP("no initial values in " << path);
  fixture_sizes const sizes(file);
  ouro::genesis<R> g(ouro::seed{1}, dtype::f32);
  for (std::int64_t l = 0; l < sizes.layers; ++l) {
    auto const m = sizes.layer(g, l);
    for (auto const& f : ouro::fields(m)) {
      std::string const name = "layer" + std::to_string(l) + "/initial/" + f.path;
      auto const own = f.value->values<double>();
      auto const given = stored<R>(file, name, dtype::f64).values<double>();
      REQUIRE(own.size() == given.size());
      bool const vector = f.path.starts_with("x_") || f.path.starts_with("k_") || f.path == "r_k" || f.path == "w0" ||
                          f.path == "a0" || f.path == "v0" || f.path == "ln_x.bias" || f.path == "output.weight";
      if (!vector) continue;
      // The fixture's were computed in f32: the same numbers but for the last bits.
      double worst = 0;
      for (std::size_t i = 0; i < own.size(); ++i)
        worst = std::max(worst, std::abs(own[i] - given[i]) / std::max(1.0, std::abs(given[i])));
      INFO(name << ": " << worst);
      CHECK(worst <= 0x1p-22);
    }
  }
}

TEST_CASE("rwkv7: ranks, weight decay and a start that changes nothing") {
  for (auto const& [width, w, a, v, g] : std::vector<std::array<std::int64_t, 5>>{{8, 32, 32, 32, 32},
                                                                                  {256, 32, 32, 32, 64},
                                                                                  {512, 64, 64, 32, 128},
                                                                                  {768, 64, 64, 32, 128},
                                                                                  {1024, 64, 64, 64, 160},
                                                                                  {2048, 128, 128, 64, 224},
                                                                                  {4096, 160, 160, 96, 320}}) {
    auto const r = ouro::rwkv7_ranks::of(width);
    CHECK((r.w == w && r.a == a && r.v == v && r.g == g));
  }
  ouro::genesis<R> g(ouro::seed{1}, dtype::f64);
  ouro::rwkv7<R> const m(g, {12, 3, 1, 4});
  for (auto const& f : ouro::fields(m)) {
    bool const square = f.path == "receptance.weight" || f.path == "key.weight" || f.path == "value.weight" ||
                        f.path == "output.weight";
    CHECK(f.decay == (square ? 1 : 0));
    CHECK(f.learning_rate == (f.path == "w0" ? 2 : 1));
  }
  CHECK(m.ln_x.weight.values<double>()[0] == std::pow(0.5, 0.7));
  ouro::context<R> cx;
  ouro::rwkv7_carry<R> c;
  for (double y : m.forward(cx, ouro_test::noise<R>({2, 5, 12}), {0, 0, 5, 0, 0}, c).values<double>()) CHECK(y == 0);
  CHECK_THROWS_AS(ouro::rwkv7<R>(g, {12, 5, 0, 1}), ouro::error);
  CHECK_THROWS_AS(ouro::rwkv7<R>(g, {12, 3, 1, 1}), ouro::error);
  // A stack of one layer and heads of one column have values too.
  for (auto const& place :
       {ouro::mixer_place{6, 2, 0, 1}, ouro::mixer_place{1, 1, 0, 1}, ouro::mixer_place{3, 3, 1, 2}}) {
    ouro::rwkv7<R> const small(g, place);
    for (auto const& f : ouro::fields(small))
      for (double v : f.value->values<double>()) CHECK(std::isfinite(v));
  }
}

TEST_CASE("orthogonal matrices keep lengths") {
  ouro::genesis<R> g(ouro::seed{2}, dtype::f64);
  for (auto const& dims :
       {ouro::shape{1, 1}, ouro::shape{70, 70}, ouro::shape{3, 50}, ouro::shape{50, 3}, ouro::shape{100, 64}}) {
    auto const q = ouro::orthogonal(g, dims, 0.5);
    auto const t = ouro::transpose(q, 0, 1);
    auto const square = (dims[0] > dims[1] ? ouro::matmul(t, q) : ouro::matmul(q, t)).values<double>();
    std::int64_t const n = std::min(dims[0], dims[1]);
    double worst = 0;
    for (std::int64_t i = 0; i < n * n; ++i)
      worst = std::max(worst, std::abs(square[static_cast<std::size_t>(i)] - (i / n == i % n ? 0.25 : 0.0)));
    CHECK(worst < 1e-12);
  }
}
