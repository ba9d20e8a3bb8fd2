// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Lives of networks drawn at random: every backend learns what the reference learns in f64, also where inner values are
// computed again for want of room; and cuda in bf16 what cpu learns in f32.
#include <ouro_test/backends.hpp>

#if defined(OURO_HAS_CPU) || defined(OURO_HAS_CUDA)

#include <string>
#include <vector>

#include <ouro_test/random_gridman.hpp>
#include <ouro_test/used_again.hpp>

namespace {

using ouro_test::any_config;
using ouro_test::described;
using ouro_test::difference;
using ouro_test::relative_error;

/// What three updates of a network give.
template <class B>
struct course {
  std::vector<double> losses;
  std::vector<double> norms;
  ouro::state<B> state;
};

template <class B>
course<B> lived(std::uint64_t key, bool round, ouro::dtype type, std::int64_t room = ouro::context<B>::no_bound) {
  ouro_test::dice d(key);
  auto const config = any_config(d, round);
  std::int64_t const lanes = d.between(1, 2);
  ouro_test::any_network<B> model(config, ouro::seed{key}, type);
  ouro_test::move_parameters(model, key);
  ouro::trainer<ouro_test::any_network<B>> t(model, {.learning_rate = 1e-3, .warmup = 0}, config.dropout, room);
  course<B> c{{}, {}, model.newborn(ouro::seed{key + 1}, lanes)};
  for (int u = 0; u < 3; ++u) {
    std::vector<ouro::lesson<ouro_test::any_network<B>>> lessons;
    for (std::int64_t i = 0; i < config.bptt; ++i) {
      ouro::patches p{lanes, config.chunk, config.patch, {}};
      std::vector<char> live;
      std::int64_t const quiet = d.chance(30) ? d.between(0, config.chunk * config.patch) : 0;
      for (std::int64_t k = 0; k < lanes * config.chunk * config.patch; ++k) {
        p.bytes.push_back(static_cast<std::int32_t>(d.below(258)));
        live.push_back(k < quiet ? 0 : 1);
      }
      lessons.push_back({p, {p, live}});
    }
    auto const r = t.update(c.state, lessons);
    REQUIRE(!r.refused);
    c.losses.push_back(r.loss);
    c.norms.push_back(r.gradient_norm);
  }
  return c;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("random lives: backends learn what the reference learns", "", ouro_test::accelerated) {
  using B = typename TestType::backend;
  TestType::need();
  auto const usual = std::is_same_v<B, ouro::cuda> ? 3 : 12;  // an emulated device takes its time
  for (std::uint64_t key = 0; key < ouro_test::how_many("OURO_LIVES", usual); ++key) {
    INFO("life " << key << " on " << TestType::name() << ": " << described(key, false));
    auto const want = lived<ouro::reference>(key, false, ouro::dtype::f64);
    auto const got = lived<B>(key, false, TestType::type);
    bool constexpr exact = TestType::exact;
    CHECK(relative_error(got.losses, want.losses) < (exact ? 1e-7 : 1e-4));
    CHECK(relative_error(got.norms, want.norms) < (exact ? 1e-6 : 1e-3));
    CHECK(difference(got.state, want.state) < (exact ? 1e-6 : 1e-3));
    auto const again = lived<B>(key, false, TestType::type, 1);
    CHECK(relative_error(again.losses, got.losses) < (exact ? 1e-10 : 1e-5));
    CHECK(relative_error(again.norms, got.norms) < (exact ? 1e-9 : 1e-4));
  }
}

#if defined(OURO_HAS_CPU) && defined(OURO_HAS_CUDA)
TEST_CASE("random lives: in bf16 cuda learns what cpu learns in f32, the same bits however its calls are made") {
  ouro_test::need_device();
  using B = ouro::cuda;
  auto narrow = [](std::uint64_t key, bool graphs, std::int64_t room = ouro::context<B>::no_bound) {
    ouro::set_cuda_products(ouro::product_precision::bf16);
    ouro::set_cuda_inner_values(ouro::dtype::bf16);
    ouro::set_cuda_graphs(graphs);
    auto const c = lived<B>(key, true, ouro::dtype::f32, room);
    ouro::set_cuda_graphs(true);
    ouro::set_cuda_inner_values(ouro::dtype::f32);
    ouro::set_cuda_products(ouro::product_precision::f32);
    return c;
  };
  for (std::uint64_t key = 0; key < ouro_test::how_many("OURO_LIVES", 2); ++key) {
    INFO("life " << key << ": " << described(key, true));
    auto const want = lived<ouro::cpu>(key, true, ouro::dtype::f32);
    auto const got = narrow(key, false);
    auto const again = narrow(key, true, 1);
    for (auto const* c : {&got, &again}) {
      CHECK(relative_error(c->losses, want.losses) < 3e-2);
      CHECK(relative_error(c->norms, want.norms) < 1e-1);
      CHECK(difference(c->state, want.state) < 1e-1);
    }
    ouro_test::memory_used_again const as_a_device;
    auto const same = narrow(key, true);
    CHECK(same.losses == got.losses);
    CHECK(same.norms == got.norms);
    CHECK(difference(same.state, got.state) == 0);
  }
}
#endif
#endif
