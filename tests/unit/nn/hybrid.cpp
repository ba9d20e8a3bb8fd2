// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A mixer chosen when the program runs: it is the chosen one bit for bit, it obeys the same laws, and it knows its names.
#include <catch2/catch_test_macros.hpp>

#include <ouro/backend/cpu.hpp>
#include <ouro/nn/mixers/hybrid.hpp>
#include <ouro/nn/mixers/layer_kinds.hpp>
#include <ouro_test/laws/sequence_mixer.hpp>
#include <ouro_test/problem.hpp>

using ouro::dtype;
using ouro_test::noise;
using ouro_test::same_bits;
using R = ouro::reference;

static_assert(ouro::check_sequence_mixer<ouro::hybrid<R>, ouro::context<R>, ouro::tensor<R>>());

namespace {

std::string message(auto const& f) { return ouro_test::problem(ouro::errc::config, f); }

template <class Mixer>
void shake(Mixer& m) {
  using B = typename Mixer::backend;
  std::uint64_t i = 0;
  for (auto const& f : ouro::fields(m))
    *f.value = *f.value + ouro::scale(ouro::normal<B>(f.value->dims(), f.value->type(), {9, i++}), 0.2);
}

ouro::mixer_place place(std::string_view kind, std::int64_t layer = 1) { return {12, 2, layer, 3, kind, {}}; }

template <class B>
void laws(dtype type) {
  for (std::string_view kind : ouro::hybrid<B>::kinds) {
    INFO(std::string(kind));
    ouro::genesis<B> g(ouro::seed{3}, type);
    ouro::hybrid<B> m(g, place(kind));
    shake(m);
    ouro_test::sequence_mixer_laws<B>(m, 12, type,
                                      kind == "attention" ? ouro_test::looks::at_all : ouro_test::looks::back);
  }
}

/// The hybrid of a kind and the mixer of that kind: the same parameters under the same names, the same numbers.
template <class Mixer>
void check_same() {
  using B = typename Mixer::backend;
  ouro::genesis<B> g(ouro::seed{3}), same(ouro::seed{3});
  std::vector<Mixer> plain;
  std::vector<ouro::hybrid<B>> chosen;
  for (std::int64_t layer : {0, 1}) {
    plain.emplace_back(g, place({}, layer));
    chosen.emplace_back(same, place(Mixer::name, layer));
    shake(plain.back()), shake(chosen.back());
    CHECK(chosen.back().kind() == Mixer::name);
    auto const a = ouro::fields(plain.back());
    auto const b = ouro::fields(chosen.back());
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      CHECK(a[i].path == b[i].path);
      CHECK((a[i].kind == b[i].kind && a[i].decay == b[i].decay && a[i].learning_rate == b[i].learning_rate));
      CHECK(same_bits<B>(*a[i].value, *b[i].value));
    }
  }
  ouro::context<B> cx;
  auto const x = noise<B>({2, 9, 12}, dtype::f32);
  ouro::mixer_stream<Mixer> pass;
  typename ouro::hybrid<B>::stream pass_chosen;
  for (std::size_t l = 0; l < 2; ++l) {
    typename Mixer::carry c;
    typename ouro::hybrid<B>::carry d;
    ouro::segments const s{2, 1, 4, 2, 3};
    CHECK(same_bits<B>(ouro::mix(plain[l], cx, x, s, c, pass), ouro::mix(chosen[l], cx, x, s, d, pass_chosen)));
    auto const row = noise<B>({2, 1, 12}, dtype::f32);
    CHECK(same_bits<B>(plain[l].step(cx, row, c), chosen[l].step(cx, row, d)));
  }
}

}  // namespace

TEST_CASE("hybrid: laws on the reference") { laws<R>(dtype::f64); }
TEST_CASE("hybrid: the chosen mixer, bit for bit") {
  check_same<ouro::attention<R>>();
  check_same<ouro::rwkv7<R>>();
  check_same<ouro::mamba2<R>>();
}

#if defined(OURO_HAS_CPU)
TEST_CASE("hybrid: laws on the cpu") { laws<ouro::cpu>(dtype::f32); }
TEST_CASE("hybrid: the chosen mixer, bit for bit on the cpu") {
  check_same<ouro::attention<ouro::cpu>>();
  check_same<ouro::rwkv7<ouro::cpu>>();
  check_same<ouro::mamba2<ouro::cpu>>();
}
#endif

TEST_CASE("hybrid: kinds and carries") {
  ouro::genesis<R> g(ouro::seed{1});
  CHECK(ouro::hybrid<R>(g, place({})).kind() == "attention");
  CHECK(ouro::hybrid<R>().kind() == "attention");
  CHECK(message([&] { ouro::hybrid<R>(g, place("rnn")); }) ==
        "[hybrid] there is no mixer 'rnn'; there are attention, rwkv7, mamba2");
  ouro::context<R> cx;
  ouro::hybrid<R>::carry c;
  auto const x = noise<R>({1, 1, 12}, dtype::f32);
  static_cast<void>(ouro::hybrid<R>(g, place("rwkv7")).step(cx, x, c));
  CHECK_THROWS_AS(ouro::hybrid<R>(g, place("mamba2")).step(cx, x, c), ouro::error);
  // The layers of a kind share the stream across others between them: values of the first RWKV-7 layer.
  ouro::hybrid<R>::stream pass;
  ouro::hybrid<R>::carry first, second;
  static_cast<void>(ouro::hybrid<R>(g, place("mamba2")).step(cx, x, first, pass));
  CHECK(std::get<1>(pass).v_first.empty());
  static_cast<void>(ouro::hybrid<R>(g, place("rwkv7")).step(cx, x, second, pass));
  CHECK_FALSE(std::get<1>(pass).v_first.empty());
}

TEST_CASE("hybrid: lists of layers") {
  using list = std::vector<std::string_view>;
  CHECK(ouro::layer_kinds("") == list{});
  CHECK(ouro::layer_kinds("a") == list{"a"});
  CHECK(ouro::layer_kinds("  a*2  b c*1 ") == list{"a", "a", "b", "c"});
  CHECK(ouro::layers_text({"a", "a", "b", "a"}) == "a*2 b a");
  CHECK(ouro::layer_kinds("a*2 b", 3) == list{"a", "a", "b"});
  CHECK(ouro::layer_kinds("", 2) == list{"", ""});
  CHECK(message([] { ouro::layer_kinds("a*2 b", 4); }) == "[layers] 'a*2 b' names 3 layers, the stack has 4");
  for (auto const* text : {"a*", "*2", "a*0", "a*-1", "a*2x", "a*1025", "a*999999999999999999999", "a*1024 b", "a * 2"})
    CHECK(message([&] { ouro::layer_kinds(text); }).starts_with("[layers] a stack is written as names"));
  CHECK(ouro::hybrid_layers("rwkv7", 1) == "attention");
  CHECK(ouro::hybrid_layers("rwkv7", 2) == "rwkv7 attention");
  CHECK(ouro::hybrid_layers("rwkv7", 9) == "rwkv7*3 attention rwkv7*3 attention*2");
  CHECK(ouro::hybrid_layers("mamba2", 12) == "mamba2*3 attention mamba2*3 attention mamba2*3 attention");
}
