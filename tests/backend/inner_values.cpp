// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Values stored in bf16 beside f32: every choice of types, strides and tails against the reference in f64, which sees the
// same values.
#if defined(OURO_HAS_CUDA)

#include <ouro/autodiff/tape.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/reduce.hpp>

#include <ouro_test/stored_twin.hpp>

using C = ouro::cuda;
using R = ouro::reference;
using ouro::dtype;
using ouro::shape;
using ouro_test::need_device;
using ouro_test::pick;

namespace {

constexpr int cases = 60;

/// How an operand of a given shape lies in its tensor.
enum class form { dense, cut, turned, repeated };

/// The same noise in f32 or bf16 on the device, and in f64 on the reference.
class operand {
 public:
  operand(shape const& dims, form f) : dims_(dims), form_(f), start_(pick(0, 5)), type_(ouro_test::any_inner()) {
    shape own = dims;
    if (form_ == form::cut) own[last()] += start_ + pick(0, 4);
    if (form_ == form::turned) std::swap(own[0], own[last()]);
    if (form_ == form::repeated)
      for (int i = 0; i < dims.rank(); ++i)
        if (pick(0, 1) == 0) own[i] = 1;
    r_ = ouro_test::noise<R>(own, dtype::f32).copy(type_).copy(dtype::f64);
    c_ = ouro::tensor<C>::from(r_.values<double>(), own, type_);
  }
  operand(shape const& dims, bool input) : operand(dims, static_cast<form>(pick(0, input ? 3 : 2))) {}

  [[nodiscard]] ouro::const_view c() const { return seen(c_.read()); }
  [[nodiscard]] ouro::const_view r() const { return seen(r_.read()); }
  [[nodiscard]] ouro::view c_out() { return seen(c_.write()); }
  [[nodiscard]] ouro::view r_out() { return seen(r_.write()); }

  /// What is in the tensor is as right as its type allows: also where nothing was to be written.
  void check() const {
    INFO(ouro::name_of(type_) << ", form " << static_cast<int>(form_));
    CHECK(ouro_test::relative_distance(c_, r_, 1e-4) < (type_ == dtype::bf16 ? 1e-2 : 1e-5));
  }

 private:
  [[nodiscard]] int last() const { return std::max(dims_.rank(), 1) - 1; }
  template <class View>
  [[nodiscard]] View seen(View const& v) const {
    if (form_ == form::cut) return v.slice(last(), start_, dims_[last()]);
    if (form_ == form::turned) return v.transpose(0, last());
    return v.expand(dims_);
  }

  shape dims_;
  form form_;
  std::int64_t start_;
  dtype type_;
  ouro::tensor<R> r_;
  ouro::tensor<C> c_;
};

/// Shapes of one element, of odd rows, of whole packs, and of more than one call takes on the emulated device.
shape any_dims(int number) {
  if (number == 0) return {1, 1, 1};
  if (number == 1) return {2, 5, 7001};
  std::int64_t const columns = pick(0, 1) == 0 ? 8 * pick(1, 9) : pick(1, 70);
  return {pick(1, 5), pick(1, 40), columns};
}

}  // namespace

TEST_CASE("inner values: scale and copy") {
  need_device();
  for (int i = 0; i < cases; ++i) {
    shape const dims = any_dims(i);
    bool const add = pick(0, 1) == 0;
    operand x(dims, true), y(dims, false), z(dims, false);
    C::scale({y.c_out(), add}, x.c(), 0.3);
    R::scale({y.r_out(), add}, x.r(), 0.3);
    y.check();
    C::copy(z.c_out(), x.c(), add);
    R::copy(z.r_out(), x.r(), add);
    z.check();
  }
}

TEST_CASE("inner values: combine") {
  need_device();
  for (int i = 0; i < cases; ++i)
    for (auto f : {ouro::binary::add, ouro::binary::subtract, ouro::binary::multiply, ouro::binary::divide}) {
      shape const dims = any_dims(i);
      bool const add = pick(0, 1) == 0;
      operand a(dims, true), b(dims, true), y(dims, false);
      C::combine(f, {y.c_out(), add}, a.c(), b.c());
      R::combine(f, {y.r_out(), add}, a.r(), b.r());
      y.check();
    }
}

namespace {

/// The same noise in `type` on the device, and in f64 on the reference.
std::pair<ouro::tensor<C>, ouro::tensor<R>> both(shape const& s, dtype type) {
  auto const right = ouro_test::noise<R>(s, dtype::f32).copy(type).copy(dtype::f64);
  return {ouro::tensor<C>::from(right.values<double>(), s, type), right};
}
void close(ouro::tensor<C> const& got, ouro::tensor<R> const& right) {
  CHECK(ouro_test::relative_distance(got, right, 1e-4) < (got.type() == dtype::bf16 ? 1e-2 : 2e-5));
}

}  // namespace

TEST_CASE("inner values: tables and their gradient") {
  need_device();
  for (int i = 0; i < cases; ++i) {
    std::int64_t const tables = pick(1, 3), entries = pick(1, 30), rows = pick(0, 300), width = 2 * pick(1, 40);
    bool const add = pick(0, 1) == 0;
    dtype const said = ouro_test::any_inner(), heard = ouro_test::any_inner();
    INFO(tables << " tables, width " << width << ", y " << ouro::name_of(said) << ", dy " << ouro::name_of(heard));
    std::vector<std::int32_t> index;
    for (std::int64_t n = 0; n < rows * tables; ++n) index.push_back(static_cast<std::int32_t>(pick(-1, entries - 1)));
    auto const at = ouro::tensor<C>::from(index, {rows, tables});
    auto const rat = ouro::tensor<R>::from(index, {rows, tables});
    auto const [table, rtable] = both({tables, entries, width}, dtype::f32);
    auto const [addend, raddend] = both({width}, dtype::f32);
    auto [y, ry] = both({rows, width}, said);
    C::gather_sum(y.write(), table.read(), at.read(), add ? addend.read() : ouro::const_view{});
    R::gather_sum(ry.write(), rtable.read(), rat.read(), add ? raddend.read() : ouro::const_view{});
    close(y, ry);
    auto const [dy, rdy] = both({rows, width}, heard);
    auto [dtable, rdtable] = both({tables, entries, width}, dtype::f32);
    C::scatter_sum({dtable.write(), add}, at.read(), dy.read());
    R::scatter_sum({rdtable.write(), add}, rat.read(), rdy.read());
    close(dtable, rdtable);
  }
}

TEST_CASE("inner values: batch norm and its gradient") {
  need_device();
  for (std::int64_t rows : {1, 2, 7, 300})
    for (std::int64_t width : {1, 6, 8, 52, 130}) {
      shape const dims{rows, width}, row{width};
      bool const add = pick(0, 1) == 0;
      dtype const read = ouro_test::any_inner(), said = ouro_test::any_inner(), heard = ouro_test::any_inner();
      INFO(dims.str() << ", x " << ouro::name_of(read) << ", y " << ouro::name_of(said) << ", dy "
                      << ouro::name_of(heard) << ", adds " << add);
      auto const [x, rx] = both(dims, read);
      auto const [w, rw] = both(row, dtype::f32);
      auto const [b, rb] = both(row, dtype::f32);
      auto [y, ry] = both(dims, said);
      auto [mean, rmean] = both(row, dtype::f32);
      auto [variance, rvariance] = both(row, dtype::f32);
      C::batch_norm(y.write(), mean.write(), variance.write(), x.read(), w.read(), b.read(), 1e-2);
      R::batch_norm(ry.write(), rmean.write(), rvariance.write(), rx.read(), rw.read(), rb.read(), 1e-2);
      close(y, ry);
      close(mean, rmean);
      close(variance, rvariance);
      auto const [dy, rdy] = both(dims, heard);
      auto [dx, rdx] = both(dims, read);
      auto [dw, rdw] = both(row, dtype::f32);
      auto [db, rdb] = both(row, dtype::f32);
      C::batch_norm_gradient({dx.write(), add}, {dw.write(), add}, {db.write(), add}, x.read(), mean.read(),
                             variance.read(), w.read(), dy.read(), 1e-2);
      R::batch_norm_gradient({rdx.write(), add}, {rdw.write(), add}, {rdb.write(), add}, rx.read(), rmean.read(),
                             rvariance.read(), rw.read(), rdy.read(), 1e-2);
      close(dx, rdx);
      close(dw, rdw);
      close(db, rdb);
    }
}

TEST_CASE("inner values: map and its gradient") {
  need_device();
  for (int i = 0; i < cases; ++i)
    for (auto f : {ouro::unary::gelu, ouro::unary::tanh, ouro::unary::sigmoid, ouro::unary::silu, ouro::unary::exp,
                   ouro::unary::square, ouro::unary::softplus, ouro::unary::relu}) {
      shape const dims = any_dims(i + 2);
      bool const add = pick(0, 1) == 0;
      operand x(dims, true), y(dims, false), saved(dims, true), dx(dims, false);
      C::map(f, y.c_out(), x.c());
      R::map(f, y.r_out(), x.r());
      y.check();
      C::map_gradient(f, {dx.c_out(), add}, saved.c(), x.c());
      R::map_gradient(f, {dx.r_out(), add}, saved.r(), x.r());
      dx.check();
    }
}

TEST_CASE("inner values: dropout") {
  need_device();
  for (int i = 0; i < cases; ++i) {
    shape const dims{i == 0 ? 1 : pick(1, 3000)};
    bool const add = pick(0, 1) == 0;
    auto const f = pick(0, 1) == 0 ? form::dense : form::cut;  // from a place that no pack begins at
    operand x(dims, f), y(dims, f);
    ouro::random_draw const draw{3, static_cast<std::uint64_t>(i)};
    C::dropout({y.c_out(), add}, x.c(), 0.2, draw);
    R::dropout({y.r_out(), add}, x.r(), 0.2, draw);
    y.check();
    operand before(dims, f), sum(dims, f);
    C::add_dropped(sum.c_out(), before.c(), x.c(), 0.2, draw);
    R::copy(sum.r_out(), before.r(), false);
    R::dropout({sum.r_out(), true}, x.r(), 0.2, draw);
    sum.check();
  }
}

TEST_CASE("inner values: sums") {
  need_device();
  auto sum = [](shape const& dims, unsigned kept) {
    shape to = dims;
    for (int axis = 0; axis < dims.rank(); ++axis)
      if ((kept >> axis & 1U) == 0) to[axis] = 1;
    bool const add = pick(0, 1) == 0;
    operand x(dims, true), y(to, false);
    INFO(dims[0] << " x " << dims[1] << " x " << dims[2] << ", kept " << kept << (add ? ", added" : ""));
    C::reduce_sum({y.c_out(), add}, x.c(), 0.5);
    R::reduce_sum({y.r_out(), add}, x.r(), 0.5);
    y.check();
  };
  for (unsigned kept = 0; kept < 8; ++kept)
    for (int i = 0; i < cases / 4; ++i) sum(any_dims(i), kept);
  // Enough to sum for several blocks.
  for (int i = 0; i < 8; ++i) {
    sum({1, pick(500, 1500), 8 * pick(1, 12)}, 4);
    sum({1, pick(500, 1500), pick(1, 40)}, 4);
    sum({1, 3, pick(5000, 9000)}, 2);
  }
}

TEST_CASE("inner values: what is computed from a copy in bf16 has its gradient in that of the source") {
  need_device();
  auto const w = ouro_test::noise<R>({6, 8}, dtype::f32).copy(dtype::bf16).copy(dtype::f64);
  auto const x = ouro_test::noise<R>({5, 8}, dtype::f32).copy(dtype::bf16).copy(dtype::f64);
  // Products write their gradient to a place, also to a part of it; a sum gives its gradient as it is.
  auto slopes = [&]<class B>(std::type_identity<B>, dtype type, int order) {
    auto const leaf = ouro::tensor<B>::from(w.values<double>(), w.dims(), type == dtype::bf16 ? dtype::f32 : type);
    auto const rows = ouro::tensor<B>::from(x.values<double>(), x.dims(), type);
    ouro::tape<B> tape;
    tape.watch(leaf);
    auto const copy = ouro::copied(leaf, type);
    ouro::tensor<B> terms[] = {
        ouro::sum(ouro::copied(ouro::linear_map(rows, copy, {}), leaf.type())),
        ouro::sum(ouro::copied(ouro::linear_map(rows, ouro::slice(copy, 0, 1, 3), {}), leaf.type())),
        ouro::sum(ouro::copied(ouro::reshape(copy, {48}), leaf.type()))};
    if (order % 2 == 1) std::swap(terms[0], terms[2]);
    if (order / 2 == 1) std::swap(terms[1], terms[2]);
    tape.backward(terms[0] + terms[1] + terms[2]);
    return tape.gradient(leaf);
  };
  for (int order = 0; order < 4; ++order) {
    auto const found = slopes(std::type_identity<C>{}, dtype::bf16, order);
    CHECK(found.type() == dtype::f32);
    CHECK(ouro_test::relative_distance(found, slopes(std::type_identity<R>{}, dtype::f64, order)) < 1e-5);
  }
}

#endif
