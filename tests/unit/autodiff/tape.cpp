// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Tapes: what is watched, what is absent, what outlives what; settle and checkpoint against the plain computation.
#include <catch2/catch_test_macros.hpp>

#include <optional>

#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/autodiff/settle.hpp>
#include <ouro/backend/reference.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/cross_entropy.hpp>
#include <ouro/ops/dropout.hpp>
#include <ouro/ops/gelu.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/square.hpp>
#include <ouro_test/random.hpp>

using R = ouro::reference;
using T = ouro::tensor<R>;
using ouro_test::noise;
using ouro_test::relative_error;
using list = std::vector<T>;

TEST_CASE("gradients are absent, zero or there") {
  T const used = noise<R>({3});
  T const unused = noise<R>({3});
  T const attached = noise<R>({3});
  ouro::tape<R> t;
  for (auto const& x : {used, unused, attached}) t.watch(x);
  t.backward(ouro::sum(ouro::attach(used * used, attached)), 2.0);
  CHECK(relative_error(t.gradient(used), ouro::scale(used.detach(), 4.0)) < 1e-15);
  CHECK(t.gradient(unused).empty());
  CHECK(t.gradient(attached).values<double>() == std::vector<double>{0, 0, 0});
}

TEST_CASE("an operation's gradients are of its inputs' shapes, and of no others") {
  T const x = noise<R>({2, 3});
  T const row = noise<R>({3});
  auto back_with = [&](auto&& gradient) {
    ouro::tape<R> t;
    t.watch(x);
    t.watch(row);
    auto const y = ouro::recorded<R>("mine", (x * row).detach(), {&x, &row}, gradient);
    try {
      t.backward(ouro::sum(y));
      FAIL_CHECK("accepted");
    } catch (ouro::error const& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  using given = ouro::gradients<R>;
  CHECK(back_with([&](T const& dy, given& dx) { dx.give(1, dy * x); }) ==
        "[mine] the gradient of input 1 must be of its shape (3), got (2,3)");
  CHECK(back_with([&](T const&, given& dx) { dx.give_part(0, row); }).find("input 0") != std::string::npos);
  CHECK(back_with([&](T const&, given& dx) { dx.give(0, {}); }).find("got ()") != std::string::npos);
  CHECK(back_with([&](T const& dy, given& dx) { dx.give(2, dy); }) ==
        "[mine] the operation has 2 inputs, its gradient speaks of number 2");
}

TEST_CASE("a tape can go before its tensors, and two do not mix") {
  T const x = noise<R>({2});
  T y;
  {
    ouro::tape<R> t;
    t.watch(x);
    y = ouro::square(x);
    ouro::tape<R> other;
    CHECK_THROWS_AS(other.watch(x), ouro::error);
    T const z = noise<R>({2});
    other.watch(z);
    CHECK_THROWS_AS(y + z, ouro::error);
    CHECK_THROWS_AS(other.backward(ouro::sum(y)), ouro::error);
  }
  CHECK((y + x).size() == 2);
  ouro::tape<R> again;
  again.watch(x);
  again.backward(ouro::sum(x));
  CHECK(again.gradient(x).values<double>() == std::vector<double>{1, 1});
}

TEST_CASE("a gradient takes the place of what its step kept, where nobody else has that") {
  T const x = noise<R>({3, 4});
  auto const labels = T::from(std::vector<std::int32_t>{2, -1, 0}, {3});
  T const plain = x.copy();
  T gradients[3];
  for (int how = 0; how < 3; ++how) {
    ouro::tape<R> t;
    t.watch(x);
    void const* place = nullptr;
    void const* taken = nullptr;
    T kept;
    auto logits = [&] {
      auto const y =
          ouro::recorded<R>("look", ouro::scale(x.detach(), 2.0), {&x}, [&](T const& dy, ouro::gradients<R>& dx) {
            taken = dy.read().data;
            R::scale(dx.into(0), dy.read(), 2.0);
          });
      place = y.read().data;
      if (how > 0) kept = y;
      return y;
    };
    auto loss = ouro::sum(ouro::cross_entropy(logits(), labels));
    if (how == 2) loss = ouro::sum(ouro::cross_entropy(kept, labels)) + ouro::scale(ouro::sum(ouro::square(kept)), 0.0);
    t.backward(loss);
    CHECK((taken == place) == (how == 0));
    if (how > 0) CHECK(kept.values<double>() == ouro::scale(plain, 2.0).values<double>());
    gradients[how] = t.gradient(x);
  }
  for (int how : {1, 2}) CHECK(gradients[how].values<double>() == gradients[0].values<double>());
  CHECK(x.values<double>() == plain.values<double>());
}

TEST_CASE("settle equals the plain computation") {
  T const w = noise<R>({4, 4});
  T const x = noise<R>({6, 4});
  T const c = noise<R>({1});
  auto part = [&](std::int64_t p, std::vector<T> const& in) {
    return ouro::reshape(ouro::sum(ouro::gelu(ouro::matmul(ouro::slice(in[0], 0, 2 * p, 2), w))), {1});
  };
  std::vector<T> gradients[2];
  double value[2];
  for (int settled = 0; settled < 2; ++settled) {
    ouro::tape<R> t;
    for (auto const& v : {w, x, c}) t.watch(v);
    auto const y = ouro::scale(x, 1.5);
    T total;
    if (settled == 1) {
      total = ouro::settle<R>({y}, 3, part);
    } else {
      total = part(0, {y}) + part(1, {y}) + part(2, {y});
    }
    auto const loss = ouro::square(total - c) + ouro::reshape(ouro::sum(ouro::square(w)), {1});
    value[settled] = loss.item();
    t.backward(ouro::sum(loss));
    for (auto const& v : {w, x, c}) gradients[settled].push_back(t.gradient(v));
  }
  CHECK(std::abs(value[0] - value[1]) < 1e-12 * std::abs(value[0]));
  for (std::size_t i = 0; i < 3; ++i) CHECK(relative_error(gradients[1][i], gradients[0][i]) < 1e-12);
}

TEST_CASE("settle knows inputs that overlap") {
  T const x = noise<R>({5, 2});
  auto part = [](std::int64_t, std::vector<T> const& in) {
    return ouro::sum(ouro::square(in[0]) * in[1]) + ouro::sum(in[2]);
  };
  T gradients[2];
  for (bool settled : {false, true}) {
    ouro::tape<R> t;
    t.watch(x);
    std::vector<T> const in{ouro::slice(x, 0, 0, 4), ouro::slice(x, 0, 1, 4), ouro::slice(x, 0, 0, 4)};
    t.backward(ouro::scale(settled ? ouro::settle<R>(in, 1, part) : part(0, in), 3.0));
    gradients[settled ? 1 : 0] = t.gradient(x);
  }
  CHECK(relative_error(gradients[1], gradients[0]) < 1e-14);
}

TEST_CASE("settle refuses what it was not given") {
  T const x = noise<R>({2});
  ouro::tape<R> t;
  t.watch(x);
  auto const outer = ouro::square(x);
  CHECK_THROWS_AS(ouro::settle<R>({ouro::scale(x, 2.0)}, 1,
                                  [&](std::int64_t, std::vector<T> const& in) { return ouro::sum(in[0] * outer); }),
                  ouro::error);
  CHECK(ouro::settle<R>({noise<R>({2})}, 2, [](std::int64_t, std::vector<T> const& in) {
          return ouro::sum(in[0]);
        }).size() == 1);
}

TEST_CASE("checkpoint equals the plain computation, also inside settle") {
  T const w = noise<R>({3, 3});
  T const x = noise<R>({5, 3});
  auto f = [w](std::vector<T> const& in) { return ouro::dropout(ouro::gelu(ouro::matmul(in[0], w)), 0.3, {4, 4}); };
  std::vector<T> gradients[3];
  for (int how = 0; how < 3; ++how) {
    ouro::tape<R> t;
    for (auto const& v : {w, x}) t.watch(v);
    auto const y = ouro::square(x);
    T loss;
    if (how == 0) loss = ouro::sum(ouro::square(f({f({y})})));
    if (how == 1) loss = ouro::sum(ouro::square(ouro::checkpoint<R>({ouro::checkpoint<R>({y}, f)}, f)));
    if (how == 2)
      loss = ouro::settle<R>({y}, 1, [&](std::int64_t, std::vector<T> const& in) {
        return ouro::sum(ouro::square(ouro::checkpoint<R>({ouro::checkpoint<R>(in, f)}, f)));
      });
    t.backward(loss);
    for (auto const& v : {w, x}) gradients[how].push_back(t.gradient(v));
  }
  for (int how = 1; how < 3; ++how)
    for (std::size_t i = 0; i < 2; ++i) CHECK(relative_error(gradients[how][i], gradients[0][i]) < 1e-12);
}

TEST_CASE("what is postponed is computed when the backward pass comes to it, and counts like the rest") {
  T const w = noise<R>({3, 3});
  T const x = noise<R>({5, 3});
  auto f = [w](std::vector<T> const& in) {
    auto const part = [&](std::int64_t, std::vector<T> const& again) { return ouro::sum(ouro::matmul(again[0], w)); };
    return ouro::sum(ouro::square(ouro::matmul(in[0], w))) + ouro::settle<R>({in[0]}, 2, part);
  };
  std::vector<T> gradients[3];
  for (int how = 0; how < 3; ++how) {
    std::string order;
    auto passed = [&](char c, T const& y) {
      return ouro::recorded<R>("passed", y.detach(), {&y}, [&order, c](T const& dy, ouro::gradients<R>& dx) {
        order += c;
        dx.give(0, dy);
      });
    };
    auto said = [&](char c) {
      return [&order, c, f](std::vector<T> const& in) {
        order += c;
        return f(in);
      };
    };
    ouro::tape<R> t;
    for (auto const& v : {w, x}) t.watch(v);
    auto const a = passed('1', ouro::square(x));
    if (how == 1) ouro::postpone(t, {a}, said('a'));
    auto const b = passed('2', ouro::scale(a, 0.5));
    if (how == 1) ouro::postpone(t, {b, T{}}, said('b'));
    auto const c = passed('3', ouro::gelu(b));
    if (how == 2) {
      ouro::postpone(t, {c}, [&](std::vector<T> const& in) { return ouro::sum(in[0]); });
      ouro::postpone(t, {a}, said('a'));
      ouro::postpone(t, {b}, said('b'));
      ouro::postpone(t, {noise<R>({2})}, [](std::vector<T> const& in) { return ouro::sum(in[0]); });
      t.backward();
      CHECK(order == "ba321");
    } else {
      CHECK(order.empty());
      auto const y = how == 0 ? f({a}) + f({b}) + ouro::sum(c) : ouro::sum(c);
      order.clear();
      t.backward(y);
      CHECK(order == (how == 0 ? "321" : "3b2a1"));
    }
    for (auto const& v : {w, x}) gradients[how].push_back(t.gradient(v));
  }
  for (int how = 1; how < 3; ++how)
    for (std::size_t i = 0; i < 2; ++i) CHECK(relative_error(gradients[how][i], gradients[0][i]) < 1e-12);

  ouro::tape<R> t;
  t.watch(x);
  auto inside = [&](std::int64_t, std::vector<T> const& in) {
    ouro::postpone(t, in, [](std::vector<T> const& again) { return ouro::sum(again[0]); });
    return ouro::sum(in[0]);
  };
  CHECK_THROWS_AS(ouro::settle<R>({x}, 1, inside), ouro::error);
}

TEST_CASE("the gradient check takes inputs that are one tensor for two") {
  T const x = noise<R>({3});
  CHECK(ouro::gradient_error<R>({x, x}, [](list const& in) { return ouro::sum(2.0 * in[0] + 3.0 * in[1]); }) < 1e-9);
}

TEST_CASE("the gradient check sees a wrong gradient") {
  auto wrong = [](std::vector<T> const& v) {
    auto const y = ouro::sum(ouro::square(v[0].detach()));
    return ouro::recorded<R>("wrong", y, {&v[0]}, [x = v[0].detach()](T const& dy, ouro::gradients<R>& dx) {
      R::combine(ouro::binary::multiply, dx.into(0), x.read(), dy.read().reshape({1}).expand(x.dims()));
    });
  };
  CHECK(ouro::gradient_error<R>({noise<R>({3})}, wrong) > 0.1);
}

TEST_CASE("a tape watches values, not views of them") {
  T const base = noise<R>({4, 4});
  ouro::tape<R> t;
  for (auto const& view :
       {ouro::slice(base, 0, 0, 2), ouro::reshape(base, {16}), ouro::transpose(base, 0, 1), base.detach()})
    CHECK_THROWS_AS(t.watch(view), ouro::error);
  auto const own = ouro::slice(base, 0, 0, 2).copy();
  t.watch(own);
  t.backward(ouro::sum(ouro::square(base)) + ouro::sum(own));
  CHECK(t.gradient(own).values<double>() == std::vector<double>(8, 1.0));
}

TEST_CASE("what a tape made that is gone is a plain value to the next") {
  T const x = noise<R>({3});
  std::vector<T> made;
  {
    ouro::tape<R> first;
    first.watch(x);
    for (int i = 0; i < 40; ++i) made.push_back(ouro::square(x));
  }
  T const z = noise<R>({3});
  T const idle = noise<R>({3});
  auto product = [](list const& in) { return ouro::sum(in[0] * in[1]); };
  for (auto const& y : made) {
    ouro::tape<R> t;
    t.watch(idle);
    t.watch(z);
    t.backward(ouro::settle<R>({y, z}, 1, product) + ouro::checkpoint<R>({y, z}, product));
    CHECK(t.gradient(idle).empty());
    CHECK(relative_error(t.gradient(z), ouro::scale(y.copy(), 2.0)) < 1e-14);
  }
}

TEST_CASE("what is written to is not the result of an operation any more") {
  for (bool shared : {false, true}) {
    T const x = T::from({3.0}, {1});
    ouro::tape<R> t;
    t.watch(x);
    T y = x * x;
    T const other = shared ? y : T{};
    R::fill(y.write(), 100);
    t.backward(ouro::sum(y * x));
    CHECK(t.gradient(x).item() == 100);
  }
}

TEST_CASE("operations that give back what they got keep its gradient") {
  T const x = noise<R>({3});
  T const leaf = noise<R>({3});
  auto gradient_of_x = [&](auto const& f) {
    ouro::tape<R> t;
    t.watch(x);
    t.watch(leaf);
    f(t);
    return std::pair{t.gradient(x), t.gradient(leaf)};
  };
  auto through = [&](auto const& f) {
    return gradient_of_x([&](ouro::tape<R>& t) { t.backward(ouro::sum(ouro::checkpoint<R>({x}, f))); });
  };
  std::vector<double> const ones(3, 1.0);
  CHECK(through([](list const& in) { return in[0]; }).first.values<double>() == ones);
  CHECK(through([](list const& in) { return ouro::dropout(in[0], 0.0, {1, 2}); }).first.values<double>() == ones);
  CHECK(through([](list const& in) { return ouro::slice(in[0], 0, 0, 3); }).first.values<double>() == ones);
  CHECK(through([&](list const&) { return leaf; }).second.values<double>() == ones);
  auto same = [](list const& in) { return in[0]; };
  CHECK(gradient_of_x([&](ouro::tape<R>& t) {
          t.backward(ouro::settle<R>({ouro::sum(x)}, 3, same));
        }).first.values<double>() == std::vector<double>(3, 3.0));
  CHECK(gradient_of_x([&](ouro::tape<R>& t) {
          ouro::postpone<R>(t, {ouro::sum(x)}, same);
          t.backward();
        }).first.values<double>() == ones);
  // Leaves that are no inputs, where no input is watched.
  T const plain = noise<R>({3});
  auto const sums = gradient_of_x([&](ouro::tape<R>& t) {
    t.backward(ouro::settle<R>({plain}, 2, [&](list const& in) { return ouro::sum(in[0] * leaf); }));
  });
  CHECK(relative_error(sums.second, ouro::scale(plain, 2.0)) < 1e-15);
}

TEST_CASE("losses are scalars, and a tape runs back over each operation once") {
  T const x = noise<R>({2, 2});
  auto matrix = [](list const& in) { return in[0] * in[0]; };
  CHECK_THROWS_AS(ouro::settle<R>({x}, 1, matrix), ouro::error);
  CHECK_THROWS_AS(ouro::settle<R>({x}, 0, matrix), ouro::error);
  ouro::tape<R> t;
  t.watch(x);
  CHECK_THROWS_AS(ouro::settle<R>({x}, 1, matrix), ouro::error);
  auto const shared = x * x;
  auto const first = ouro::sum(shared);
  auto const second = ouro::sum(ouro::scale(shared, 2.0));
  t.backward(first);
  CHECK_THROWS_AS(t.backward(second), ouro::error);
  ouro::tape<R> other;
  T const y = noise<R>({2, 2});
  other.watch(y);
  CHECK_THROWS_AS(ouro::settle<R>({x, y}, 1, [](list const& in) { return ouro::sum(in[0]); }), ouro::error);
  CHECK_THROWS_AS(ouro::postpone<R>(other, {x}, [](list const& in) { return ouro::sum(in[0]); }), ouro::error);
}
