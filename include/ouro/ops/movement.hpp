// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Operations that move elements or only look at them differently. reshape, slice, transpose and expand share the
// operand's storage wherever they can; concat copies.
#pragma once

#include <initializer_list>
#include <vector>

#include <ouro/ops/record.hpp>

namespace ouro {

/// The same elements in row-major order under another shape of the same size.
template <Backend B>
tensor<B> reshape(tensor<B> const& x, shape const& dims) {
  require(!x.empty(), errc::argument, "reshape", "the operand is absent");
  for (int i = 0; i < dims.rank(); ++i)
    require(dims[i] >= 0, errc::shape, "reshape", "extents must not be negative, got ", dims);
  require(dims.size() == x.dims().size(), errc::shape, "reshape", "sizes must agree, got ", x.dims(), " to ", dims);
  auto const flat = packed(x);
  return recorded<B>("reshape", flat.alias(flat.read().reshape(dims)), {&x},
                     [from = x.dims()](tensor<B> const& dy, gradients<B>& dx) {
                       auto const g = packed(dy);
                       dx.give(0, g.alias(g.read().reshape(from)));
                     });
}

/// The part [start, start + length) of an axis (negative axes count from the end); x itself if that is all of it.
template <Backend B>
tensor<B> slice(tensor<B> const& x, int axis, std::int64_t start, std::int64_t length) {
  axis = axis_of(x.dims(), axis, "slice");
  require(start >= 0 && length >= 0 && start <= x.dim(axis) && length <= x.dim(axis) - start, errc::shape, "slice",
          length, " from ", start, " on must lie inside axis ", axis, " of ", x.dims());
  if (length == x.dim(axis)) return x;
  auto y = recorded<B>("slice", x.alias(x.read().slice(axis, start, length)), {&x},
                       [axis, start, length](tensor<B> const& dy, gradients<B>& dx) {
                         if (dx.wants(0)) B::copy(dx.into_zeroed(0).slice(axis, start, length), dy.read(), true);
                       });
  if (auto const [tape, node] = y.origin(); tape != nullptr) {
    auto& slot = tape->slot(node);
    slot.whole = x.origin().second;
    slot.axis = axis;
    slot.start = start;
  }
  return y;
}

/// The elements of an axis in the opposite order.
template <Backend B>
tensor<B> reverse(tensor<B> const& x, int axis) {
  axis = axis_of(x.dims(), axis, "reverse");
  tensor<B> y(x.dims(), x.type());
  if (x.size() > 0) B::copy(y.write(), x.read().reverse(axis), false);
  return recorded<B>("reverse", std::move(y), {&x}, [axis](tensor<B> const& dy, gradients<B>& dx) {
    if (auto d = dx.into(0); d.wanted() && dy.size() > 0) B::copy(d.out, dy.read().reverse(axis), d.accumulate);
  });
}

/// Two axes exchanged.
template <Backend B>
tensor<B> transpose(tensor<B> const& x, int a, int b) {
  a = axis_of(x.dims(), a, "transpose");
  b = axis_of(x.dims(), b, "transpose");
  return recorded<B>("transpose", x.alias(x.read().transpose(a, b)), {&x},
                     [a, b](tensor<B> const& dy, gradients<B>& dx) {
                       if (auto d = dx.into(0); d.wanted()) B::copy(d.out, dy.read().transpose(a, b), d.accumulate);
                     });
}

/// Repeats axes of extent 1, and adds leading ones, up to `dims`; no memory is copied.
template <Backend B>
tensor<B> expand(tensor<B> const& x, shape const& dims) {
  require(!x.empty(), errc::argument, "expand", "the operand is absent");
  require(broadcast(x.dims(), dims, "expand") == dims, errc::shape, "expand", "cannot expand ", x.dims(), " to ", dims);
  return recorded<B>("expand", x.alias(x.read().expand(dims)), {&x},
                     [from = x.dims()](tensor<B> const& dy, gradients<B>& dx) {
                       auto d = dx.into(0);
                       if (!d.wanted()) return;
                       shape padded;
                       for (int i = from.rank(); i < dy.rank(); ++i) padded.push_back(1);
                       for (int i = 0; i < from.rank(); ++i) padded.push_back(from[i]);
                       d.out = d.out.reshape(padded);
                       B::reduce_sum(d, dy.read(), 1.0);
                     });
}

/// Tensors joined along an axis; all other extents and the dtypes must agree.
template <Backend B>
tensor<B> concat(std::vector<tensor<B>> const& parts, int axis) {
  require(!parts.empty(), errc::shape, "concat", "needs at least one tensor");
  shape dims = parts[0].dims();
  axis = axis_of(dims, axis, "concat");
  dims[axis] = 0;
  std::vector<std::int64_t> lengths;
  std::vector<tensor<B> const*> inputs;
  for (auto const& p : parts) {
    require(p.rank() == dims.rank() && p.dims().with(axis, 0) == dims.with(axis, 0), errc::shape, "concat",
            "shapes must agree outside axis ", axis, ", got ", parts[0].dims(), " and ", p.dims());
    require(p.type() == parts[0].type(), errc::shape, "concat", "dtypes must agree, got ", name_of(parts[0].type()),
            " and ", name_of(p.type()));
    lengths.push_back(p.dim(axis));
    inputs.push_back(&p);
    dims[axis] += p.dim(axis);
  }
  tensor<B> y(dims, parts[0].type());
  std::int64_t start = 0;
  for (auto const& p : parts) {
    B::copy(y.write().slice(axis, start, p.dim(axis)), p.read(), false);
    start += p.dim(axis);
  }
  return recorded<B>("concat", std::move(y), inputs.data(), inputs.size(),
                     [axis, lengths](tensor<B> const& dy, gradients<B>& dx) {
                       std::int64_t at = 0;
                       for (std::size_t i = 0; i < lengths.size(); ++i) {
                         dx.give_part(i, dy.alias(dy.read().slice(axis, at, lengths[i])));
                         at += lengths[i];
                       }
                     });
}

template <Backend B>
tensor<B> concat(std::initializer_list<tensor<B>> parts, int axis) {
  return concat(std::vector<tensor<B>>(parts), axis);
}

/// y, which holds the values of x in another type, as a result of x. Its gradient is summed in that of x, and in its type, where
/// both are computed in one.
template <Backend B>
tensor<B> as_copy_of(tensor<B> const& x, tensor<B> y) {
  bool const together = computed_in(x.type()) == computed_in(y.type());
  y = recorded<B>("copied", std::move(y), {&x}, [together](tensor<B> const& dy, gradients<B>& dx) {
    if (together) return dx.give(0, dy);
    if (auto const d = dx.into(0); d.wanted()) B::copy(d.out, dy.read(), d.accumulate);
  });
  if (auto const [tape, node] = y.origin(); together && tape != nullptr) {
    auto& slot = tape->slot(node);
    slot.whole = x.origin().second;
    slot.type = x.type();
  }
  return y;
}
/// The same values in another type; x itself if it has that.
template <Backend B>
tensor<B> copied(tensor<B> const& x, dtype type) {
  return x.type() == type ? x : as_copy_of(x, x.copy(type));
}

/// y = x, with a derivative of zero towards `p`: p takes part in an update although nothing depends on it.
template <Backend B>
tensor<B> attach(tensor<B> const& x, tensor<B> const& p) {
  return recorded<B>("attach", x.detach(), {&x, &p}, [](tensor<B> const& dy, gradients<B>& dx) {
    dx.give(0, dy);
    if (dx.wants(1)) static_cast<void>(dx.into_zeroed(1));
  });
}

}  // namespace ouro
