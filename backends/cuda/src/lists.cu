// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What is done to a whole list of tensors in one launch: the optimiser's update, a product with a number, and the sum of
// squares. A block takes the elements of one tensor that lie in a chunk; a table on the device says which.
#include "packs.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

constexpr index chunk = 16384;  // elements
constexpr int list_threads = 256;

/// Numbers the chunks of items with a member `size`; returns how many there are.
template <class Item>
index number_chunks(std::vector<Item>& items) {
  index chunks = 0;
  for (auto& item : items) {
    item.before = chunks;
    chunks += divide_up(item.size, chunk);
  }
  return chunks;
}

/// The item that a block works on, and its elements there: the last one with no more chunks before it than the block's number.
template <class Item>
struct list_place {
  Item const& item;
  index from;
  index to;

  __device__ list_place(Item const* table, index count) : list_place(find(table, count)) {}

 private:
  __device__ explicit list_place(Item const& found)
      : item(found),
        from((static_cast<index>(blockIdx.x) - found.before) * chunk),
        to(from + chunk < found.size ? from + chunk : found.size) {}
  __device__ static Item const& find(Item const* table, index count) {
    index low = 0;
    for (index high = count; high - low > 1;) {
      index const middle = (low + high) / 2;
      if (table[middle].before <= static_cast<index>(blockIdx.x)) low = middle;
      else high = middle;
    }
    return table[low];
  }
};

template <class T>
struct adamw_item {
  T* p;
  T* m;
  T* v;
  T const* g;
  T gradient_scale, beta1, rest1, beta2, rest2, correction1, correction2, epsilon, rate, decay;
  index size;
  index before;

  explicit adamw_item(adamw_update const& u)
      : p(u.parameter.as<T>()),
        m(u.first.as<T>()),
        v(u.second.as<T>()),
        g(u.gradient.as<T>()),
        gradient_scale(static_cast<T>(u.step.gradient_scale)),
        beta1(static_cast<T>(u.step.beta1)),
        rest1(static_cast<T>(1 - u.step.beta1)),
        beta2(static_cast<T>(u.step.beta2)),
        rest2(static_cast<T>(1 - u.step.beta2)),
        correction1(static_cast<T>(u.step.correction1)),
        correction2(static_cast<T>(u.step.correction2)),
        epsilon(static_cast<T>(u.step.epsilon)),
        rate(static_cast<T>(u.step.learning_rate)),
        decay(static_cast<T>(u.step.learning_rate * u.step.weight_decay)),
        size(u.parameter.size()),
        before(0) {}
};

/// f(first, count) for the packs of W elements that are this thread's; the last one of a tensor may have fewer.
template <int W, class Item, class F>
__device__ void for_packs(list_place<Item> const& at, F const& f) {
  for (index i = at.from + static_cast<index>(threadIdx.x) * W; i < at.to; i += static_cast<index>(blockDim.x) * W)
    f(i, at.to - i < W ? static_cast<int>(at.to - i) : W);
}

template <int W, class T>
__global__ void adamw_kernel(adamw_item<T> const* table, index count) {
  list_place<adamw_item<T>> const at(table, count);
  adamw_item<T> const u = at.item;
  for_packs<W>(at, [&](index i, int n) {
    auto const g = load<W>(u.g + i, n);
    auto m = load<W>(u.m + i, n);
    auto v = load<W>(u.v + i, n);
    auto p = load<W>(u.p + i, n);
    OURO_UNROLL
    for (int e = 0; e < W; ++e) {
      T const d = g.values[e] * u.gradient_scale;
      T const first = u.beta1 * m.values[e] + u.rest1 * d;
      T const second = u.beta2 * v.values[e] + u.rest2 * d * d;
      m.values[e] = first;
      v.values[e] = second;
      T const value = p.values[e] - u.decay * p.values[e];
      p.values[e] = value - u.rate * (first / u.correction1) / (std::sqrt(second / u.correction2) + u.epsilon);
    }
    store<W>(u.m + i, m, n);
    store<W>(u.v + i, v, n);
    store<W>(u.p + i, p, n);
  });
}

template <class T>
struct scaled_item {
  T* y;
  T const* x;
  bool accumulate;
  index size;
  index before;
};

template <int W, class T>
__global__ void scale_by_kernel(scaled_item<T> const* table, index count, T const* factor) {
  list_place<scaled_item<T>> const at(table, count);
  auto const u = at.item;
  T const f = *factor;
  for_packs<W>(at, [&](index i, int n) {
    auto const x = load<W>(u.x + i, n);
    pack<T, W> y;
    if (u.accumulate) y = load<W>(u.y + i, n);
    OURO_UNROLL
    for (int e = 0; e < W; ++e) put(y.values[e], f * x.values[e], u.accumulate);
    store<W>(u.y + i, y, n);
  });
}

struct narrow_item {
  bf16* y;
  float const* x;
  index size;
  index before;
};

template <int W>
__global__ void narrow_kernel(narrow_item const* table, index count) {
  list_place<narrow_item> const at(table, count);
  auto const u = at.item;
  for_packs<W>(at,
               [&](index i, int n) { elements<bf16, void>(u.y).template store_reals<W>(i, load<W>(u.x + i, n), n); });
}

template <class T>
struct square_item {
  T const* x;
  index size;
  index before;
};

template <int W, class T>
__global__ void sum_squares(square_item<T> const* table, index count, double* part) {
  __shared__ double sums[warp_size];
  list_place<square_item<T>> const at(table, count);
  T const* const x = at.item.x;
  double sum = 0;
  for_packs<W>(at, [&](index i, int n) {
    auto const values = load<W>(x + i, n);
    OURO_UNROLL
    for (int e = 0; e < W; ++e) {
      auto const v = static_cast<double>(values.values[e]);
      sum += v * v;
    }
  });
  sum = block_sum(sum, sums);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}
/// to (+)= the sum of n parts.
__global__ void sum_parts(index n, double const* part, double* to, bool accumulate) {
  __shared__ double sums[warp_size];
  double sum = 0;
  for (index i = threadIdx.x; i < n; i += blockDim.x) sum += part[i];
  sum = block_sum(sum, sums);
  if (threadIdx.x == 0) put(*to, sum, accumulate);
}

template <class F>
void for_each_real(F&& f) {
  f(std::type_identity<float>{});
  f(std::type_identity<double>{});
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::adamw(adamw_update const* updates, std::size_t count) {
  for_each_real([&]<class T>(std::type_identity<T>) {
    std::vector<adamw_item<T>> items;
    bool packed = true;
    for (std::size_t i = 0; i < count; ++i) {
      if (updates[i].parameter.type != dtype_of<T> || updates[i].parameter.size() == 0) continue;
      auto const& u = items.emplace_back(updates[i]);
      packed = packed && packs_fit(u.p, u.m, u.v, u.g);
    }
    index const chunks = number_chunks(items);
    device_table<adamw_item<T>> const table(items);
    with_width<T>(packed, [&]<int W>(width_of<W>) {
      launch("adamw", adamw_kernel<W, T>, chunks, list_threads, 0, table.data(), items.size());
    });
  });
}

void cuda::scale_by(destination const* places, const_view const* list, std::size_t count, const_view factor) {
  with_real(factor.type, "scale_by", [&]<class T>(std::type_identity<T>) {
    std::vector<scaled_item<T>> items;
    bool packed = true;
    for (std::size_t i = 0; i < count; ++i) {
      if (!places[i].wanted() || list[i].size() == 0) continue;
      items.push_back({places[i].out.as<T>(), list[i].as<T>(), places[i].accumulate, list[i].size(), 0});
      packed = packed && packs_fit(items.back().y, items.back().x);
    }
    index const chunks = number_chunks(items);
    device_table<scaled_item<T>> const table(items);
    with_width<T>(packed, [&]<int W>(width_of<W>) {
      launch("scale_by", scale_by_kernel<W, T>, chunks, list_threads, 0, table.data(), items.size(), factor.as<T>());
    });
  });
}

void cuda::narrow(view const* places, const_view const* list, std::size_t count) {
  std::vector<narrow_item> items;
  bool packed = true;
  for (std::size_t i = 0; i < count; ++i) {
    if (list[i].size() == 0) continue;
    items.push_back({places[i].as<bf16>(), list[i].as<float>(), list[i].size(), 0});
    packed = packed && packs_fit(items.back().x) && aligned_for(items.back().y, pack_width<float>);
  }
  index const chunks = number_chunks(items);
  device_table<narrow_item> const table(items);
  with_width<float>(packed, [&]<int W>(width_of<W>) {
    launch("narrow", narrow_kernel<W>, chunks, list_threads, 0, table.data(), items.size());
  });
}

void cuda::sum_of_squares(view y, const_view const* views, std::size_t count) {
  fill(y, 0.0);
  for_each_real([&]<class T>(std::type_identity<T>) {
    std::vector<square_item<T>> items;
    bool packed = true;
    for (std::size_t i = 0; i < count; ++i) {
      if (views[i].type != dtype_of<T> || views[i].size() == 0) continue;
      items.push_back({views[i].as<T>(), views[i].size(), 0});
      packed = packed && packs_fit(items.back().x);
    }
    if (items.empty()) return;
    index const chunks = number_chunks(items);
    device_table<square_item<T>> const table(items);
    device_array<double> const part(chunks);
    with_width<T>(packed, [&]<int W>(width_of<W>) {
      launch("sum_of_squares", sum_squares<W, T>, chunks, list_threads, 0, table.data(), items.size(), part.data());
    });
    launch("sum_of_squares", sum_parts, 1, list_threads, 0, chunks, part.data(), y.as<double>(), true);
  });
}

}  // namespace ouro
