// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The networks of all receptors that hear one hormone (contract: ouro/concepts/hormone_networks.hpp). Each linear map
// and each layer norm is a launch of its own, for all networks and lanes at once; every sum has its fixed order.
#include "functions.hpp"
#include "rows.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

constexpr int network_threads = 512;
constexpr int network_warps = network_threads / warp_size;
constexpr int in_flight = 8;  // loads that a thread has on their way at a time

/// The linear maps of a network: W₀ and b₀, W₂ and b₂.
enum : int { inner_map, outer_map, map_count };

template <class T>
struct network {
  struct {
    T const *weight, *bias;
  } map[map_count];
  T const *scale, *shift;
  explicit network(hormone_network_operands const& p)
      : map{{p.weight0.as<T>(), p.bias0.as<T>()}, {p.weight2.as<T>(), p.bias2.as<T>()}},
        scale(p.scale.as<T>()),
        shift(p.shift.as<T>()) {}
};

/// A gradient's place, null if nobody wants it.
template <class T>
struct place {
  T* to;
  bool accumulate;
  explicit place(destination const& d) : to(place_of<T>(d)), accumulate(d.accumulate) {}
  __device__ void take(index i, T slope) const {
    if (to != nullptr) put(to[i], slope, accumulate);
  }
};
template <class T>
struct network_slopes {
  struct {
    place<T> weight, bias;
  } map[map_count];
  place<T> scale, shift;
  explicit network_slopes(hormone_network_gradients const& d)
      : map{{place<T>(d.weight0), place<T>(d.bias0)}, {place<T>(d.weight2), place<T>(d.bias2)}},
        scale(d.scale),
        shift(d.shift) {}
};

struct network_sizes {
  index lanes, inner, width;
  [[nodiscard]] __device__ __host__ index kept() const { return hormone_network_kept(inner, width); }
};

/// A linear map from `columns` to `rows` numbers, for every network and lane.
struct map_sizes {
  int which;
  index lanes, rows, columns;
};

/// Σ_i a[i · step] b[i] over i = first, first + apart, ... below n.
template <class T>
__device__ T dot_product(T const* a, index step, T const* b, index n, int first, int apart) {
  T sum = 0;
  for (index i = first; i < n; i += in_flight * apart) {
    T left[in_flight];
    T right[in_flight];
    OURO_UNROLL
    for (int u = 0; u < in_flight; ++u) {
      bool const there = i + u * apart < n;
      left[u] = there ? a[(i + u * apart) * step] : T(0);
      right[u] = there ? b[i + u * apart] : T(0);
    }
    OURO_UNROLL
    for (int u = 0; u < in_flight; ++u) sum += left[u] * right[u];
  }
  return sum;
}

/// y = W x + b: a warp for each row of a network's W.
template <class T>
struct mapped_rows {
  map_sizes s;
  network<T> const* list;
  T const* x;
  index x_network;  // from what a network is given to what the next is
  T* y;
  index y_lane;
  T* active;  // silu(y), dense; null if nobody wants it
  __device__ void operator()(index network_row, int lane_of_warp) const {
    index const n = network_row / s.rows;
    index const o = network_row % s.rows;
    auto const map = list[n].map[s.which];
    T const bias = map.bias[o];
    for (index lane = 0; lane < s.lanes; ++lane) {
      T const* const given = x + n * x_network + lane * s.columns;
      T const sum =
          bias + warp_sum(dot_product(map.weight + o * s.columns, 1, given, s.columns, lane_of_warp, warp_size));
      if (lane_of_warp > 0) continue;
      index const at = n * s.lanes + lane;
      y[at * y_lane + o] = sum;
      if (active != nullptr) active[at * s.rows + o] = sum * sigmoid(sum);
    }
  }
};

/// The layer norm of what the outer map has left among the kept values: a block for each network and lane.
template <class T>
__global__ void __launch_bounds__(network_threads)
    normalize_networks(network<T> const* list, network_sizes s, T* kept, T* y, T eps) {
  __shared__ T sums[warp_size];
  network<T> const p = list[blockIdx.x / s.lanes];
  T* const row = kept + static_cast<index>(blockIdx.x) * s.kept() + s.inner;
  T sum = 0;
  for (index i = threadIdx.x; i < s.width; i += network_threads) sum += row[i];
  T const mean = block_sum(sum, sums) / static_cast<T>(s.width);
  T squares = 0;
  for (index i = threadIdx.x; i < s.width; i += network_threads) squares += (row[i] - mean) * (row[i] - mean);
  T const rstd = T(1) / std::sqrt(block_sum(squares, sums) / static_cast<T>(s.width) + eps);
  for (index i = threadIdx.x; i < s.width; i += network_threads) {
    row[i] = (row[i] - mean) * rstd;
    y[static_cast<index>(blockIdx.x) * s.width + i] = row[i] * p.scale[i] + p.shift[i];
  }
  if (threadIdx.x == 0) row[s.width] = rstd;
}

/// The way back through the layer norms, a block for each network: the slopes of their parameters, and dz (n,L,D) of
/// what they were given. Besides, what the outer maps were given: inside (n,L,W) = silu(W₀ h + b₀).
template <class T>
__global__ void __launch_bounds__(network_threads)
    return_norms(network<T> const* list, network_slopes<T> const* to, network_sizes s, T const* kept, T const* dy,
                 T* dz, T* inside) {
  __shared__ T sums[warp_size];
  network<T> const p = list[blockIdx.x];
  network_slopes<T> const d = to[blockIdx.x];
  index const first = static_cast<index>(blockIdx.x) * s.lanes;
  for (index at = first; at < first + s.lanes; ++at) {
    T const* const keep = kept + at * s.kept();
    T const* const row = keep + s.inner;
    T const* const up = dy + at * s.width;
    T sum = 0;
    T dot = 0;
    for (index i = threadIdx.x; i < s.width; i += network_threads) {
      T const g = up[i] * p.scale[i];
      sum += g;
      dot += g * row[i];
    }
    sum = block_sum(sum, sums) / static_cast<T>(s.width);
    dot = block_sum(dot, sums) / static_cast<T>(s.width);
    for (index i = threadIdx.x; i < s.width; i += network_threads)
      dz[at * s.width + i] = row[s.width] * (up[i] * p.scale[i] - sum - row[i] * dot);
    for (index i = threadIdx.x; i < s.inner; i += network_threads)
      inside[at * s.inner + i] = keep[i] * sigmoid(keep[i]);
  }
  for (index i = threadIdx.x; i < s.width; i += network_threads) {
    T scale = 0;
    T shift = 0;
    for (index at = first; at < first + s.lanes; ++at) {
      T const up = dy[at * s.width + i];
      scale += up * kept[at * s.kept() + s.inner + i];
      shift += up;
    }
    d.scale.take(i, scale);
    d.shift.take(i, shift);
  }
}

/// The way back through y = W x + b, in tiles of columns of a network's W.
template <class T>
struct returned_map {
  map_sizes s;
  network<T> const* list;
  network_slopes<T> const* to;
  T const* dy;
  T const* x;
  index x_network;  // from what a network is given to what the next is
  T* dx;
  T const* before;  // what silu made x of; null if x was given as it is
  index before_lane;

  [[nodiscard]] __device__ __host__ unsigned tiles() const {
    return static_cast<unsigned>(divide_up(s.columns, warp_size));
  }

  /// dW[o,i] (+)= Σ dy[o] x[i] over the lanes.
  __device__ void weight_slopes(index n, index column) const {
    auto const d = to[n].map[s.which].weight;
    if (d.to == nullptr || column >= s.columns) return;
    T const* const up = dy + n * s.lanes * s.rows;
    T const* const given = x + n * x_network + column;
    for (index o = threadIdx.x / warp_size; o < s.rows; o += in_flight * network_warps) {
      T slope[in_flight];
      auto each_row = [&](auto const& take) {
        OURO_UNROLL
        for (int u = 0; u < in_flight; ++u)
          if (index const row = o + u * network_warps; row < s.rows) take(row, slope[u]);
      };
      each_row([&](index row, T& sum) { sum = d.accumulate ? d.to[row * s.columns + column] : T(0); });
      for (index lane = 0; lane < s.lanes; ++lane) {
        T const right = given[lane * s.columns];
        each_row([&](index row, T& sum) { sum += up[lane * s.rows + row] * right; });
      }
      each_row([&](index row, T& sum) { d.to[row * s.columns + column] = sum; });
    }
  }

  /// db[o] (+)= Σ dy[o] over the lanes.
  __device__ void bias_slopes(index n) const {
    auto const d = to[n].map[s.which].bias;
    for (index o = threadIdx.x; o < s.rows; o += network_threads) {
      T slope = 0;
      for (index lane = 0; lane < s.lanes; ++lane) slope += dy[(n * s.lanes + lane) * s.rows + o];
      d.take(o, slope);
    }
  }

  /// dx[i] = Σ_o W[o,i] dy[o], or what that is before silu: every warp takes every so-manieth row.
  __device__ void slopes(index n, index column) const {
    __shared__ T sums[network_warps][warp_size];
    int const warp = static_cast<int>(threadIdx.x) / warp_size;
    bool const mine = column < s.columns;
    T const* const weight = list[n].map[s.which].weight + column;
    for (index at = n * s.lanes; at < (n + 1) * s.lanes; ++at) {
      __syncthreads();  // the sums of the lane before have been read
      if (mine)
        sums[warp][lane_number()] = dot_product(weight, s.columns, dy + at * s.rows, s.rows, warp, network_warps);
      __syncthreads();
      if (warp > 0 || !mine) continue;
      T slope = 0;
      for (int w = 0; w < network_warps; ++w) slope += sums[w][lane_number()];
      if (before != nullptr) slope *= derivative(unary::silu, before[at * before_lane + column]);
      dx[at * s.columns + column] = slope;
    }
  }
};

/// Two blocks for each tile: one for the map's own slopes, one for those of what it was given.
template <class T>
__global__ void __launch_bounds__(network_threads) return_map(returned_map<T> p) {
  unsigned const n = blockIdx.x / 2 / p.tiles();
  unsigned const tile = blockIdx.x / 2 % p.tiles();
  index const column = static_cast<index>(tile) * warp_size + lane_number();
  if (blockIdx.x % 2 == 0) return p.slopes(n, column);
  p.weight_slopes(n, column);
  if (tile == 0) p.bias_slopes(n);
}

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::hormone_networks(view y, view kept, const_view hormone, hormone_network_operands const* networks,
                            std::size_t count, double eps) {
  network_sizes const s{y.dims[1], hormone.dims[1], y.dims[2]};
  index const n = y.dims[0];
  with_real(y.type, "hormone_networks", [&]<class T>(std::type_identity<T>) {
    device_table<network<T>> const list({networks, networks + count});
    device_array<T> const inside(n * s.lanes * s.inner);
    T* const keep = kept.as<T>();
    for_rows(
        "hormone_networks", n * s.inner,
        mapped_rows<T>{
            {inner_map, s.lanes, s.inner, s.inner}, list.data(), hormone.as<T>(), 0, keep, s.kept(), inside.data()});
    for_rows("hormone_networks", n * s.width,
             mapped_rows<T>{{outer_map, s.lanes, s.width, s.inner},
                            list.data(),
                            inside.data(),
                            s.lanes * s.inner,
                            keep + s.inner,
                            s.kept(),
                            nullptr});
    launch("hormone_networks", normalize_networks<T>, n * s.lanes, network_threads, 0, list.data(), s, keep, y.as<T>(),
           static_cast<T>(eps));
  });
}

void cuda::hormone_networks_gradient(destination dhormone, hormone_network_gradients const* gradients,
                                     const_view hormone, hormone_network_operands const* networks, std::size_t count,
                                     const_view kept, const_view dy) {
  network_sizes const s{dy.dims[1], hormone.dims[1], dy.dims[2]};
  index const n = dy.dims[0];
  with_real(dy.type, "hormone_networks_gradient", [&]<class T>(std::type_identity<T>) {
    device_table<network<T>> const list({networks, networks + count});
    device_table<network_slopes<T>> const to({gradients, gradients + count});
    index const size = s.lanes * s.inner;  // of what the inner maps give, for one network
    device_array<T> const dz(n * s.lanes * s.width);
    device_array<T> const inside(n * size);
    device_array<T> const dinside(n * size);  // of W₀ h + b₀
    device_array<T> const part(n * size);     // of dhormone
    launch("hormone_networks_gradient", return_norms<T>, n, network_threads, 0, list.data(), to.data(), s, kept.as<T>(),
           dy.as<T>(), dz.data(), inside.data());
    auto go_back = [&](returned_map<T> const& p) {
      launch("hormone_networks_gradient", return_map<T>, 2 * n * p.tiles(), network_threads, 0, p);
    };
    go_back({{outer_map, s.lanes, s.width, s.inner},
             list.data(),
             to.data(),
             dz.data(),
             inside.data(),
             size,
             dinside.data(),
             kept.as<T>(),
             s.kept()});
    go_back({{inner_map, s.lanes, s.inner, s.inner},
             list.data(),
             to.data(),
             dinside.data(),
             hormone.as<T>(),
             0,
             part.data(),
             nullptr,
             0});
    if (dhormone.wanted())
      reduce_sum({dhormone.out.reshape({1, s.lanes, s.inner}), dhormone.accumulate},
                 const_view(part.data(), dy.type, {n, s.lanes, s.inner}), 1.0);
  });
}

}  // namespace ouro
