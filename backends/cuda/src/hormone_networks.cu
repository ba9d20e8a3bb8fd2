// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The networks of all receptors that hear one hormone (contract: ouro/concepts/hormone_networks.hpp): a block for each
// network and lane on the way forwards, a block for each network, which goes through the lanes, on the way back.
#include "functions.hpp"
#include "layout.hpp"
#include "rows.hpp"
#include "sums.hpp"

namespace ouro {
namespace cuda_kernels {
namespace {

constexpr int network_threads = 256;

template <class T>
struct network {
  T const *weight0, *bias0, *weight2, *bias2, *scale, *shift;
  explicit network(hormone_network_operands const& p)
      : weight0(p.weight0.as<T>()),
        bias0(p.bias0.as<T>()),
        weight2(p.weight2.as<T>()),
        bias2(p.bias2.as<T>()),
        scale(p.scale.as<T>()),
        shift(p.shift.as<T>()) {}
};

/// A gradient's place, null if nobody wants it.
template <class T>
struct place {
  T* to;
  bool accumulate;
  explicit place(destination const& d) : to(place_of<T>(d)), accumulate(d.accumulate) {}
  /// The first lane's term takes the place of what is there, or is added to it; the others' are added.
  __device__ void add(index i, T term, bool first) const {
    if (to != nullptr) put(to[i], term, accumulate || !first);
  }
};
template <class T>
struct network_slopes {
  place<T> weight0, bias0, weight2, bias2, scale, shift;
  explicit network_slopes(hormone_network_gradients const& d)
      : weight0(d.weight0), bias0(d.bias0), weight2(d.weight2), bias2(d.bias2), scale(d.scale), shift(d.shift) {}
};

struct network_sizes {
  index lanes, inner, width;
  [[nodiscard]] __device__ __host__ index kept() const { return hormone_network_kept(inner, width); }
};

/// y[o] = bias[o] + Σ_i w[o,i] x[i]: a warp for each row.
template <class T>
__device__ void multiply_rows(T* y, T const* w, T const* bias, T const* x, index rows, index columns) {
  int const lane = lane_number();
  for (index o = threadIdx.x / warp_size; o < rows; o += blockDim.x / warp_size) {
    T const* const row = w + o * columns;
    T const sum = row_sum<T>(columns, lane, [&](index i) { return row[i] * x[i]; });
    if (lane == 0) y[o] = bias[o] + sum;
  }
}

/// The way back through them: dw[o,i] (+)= dy[o] x[i], and take(i, Σ_o w[o,i] dy[o]).
template <class T, class F>
__device__ void return_rows(T const* w, place<T> const& dw, T const* dy, T const* x, index rows, index columns,
                            bool first, F const& take) {
  for (index e = threadIdx.x; e < rows * columns; e += blockDim.x) dw.add(e, dy[e / columns] * x[e % columns], first);
  for (index i = threadIdx.x; i < columns; i += blockDim.x) {
    T slope = 0;
    for (index o = 0; o < rows; ++o) slope += w[o * columns + i] * dy[o];
    take(i, slope);
  }
}

template <class T>
__global__ void network_kernel(network<T> const* list, network_sizes s, T const* hormone, T* y, T* kept, T eps) {
  __shared__ T sums[warp_size];
  T* const inside = shared_memory<T>();  // (W)
  T* const z = inside + s.inner;         // (D)
  network<T> const p = list[blockIdx.x / s.lanes];
  index const lane = blockIdx.x % s.lanes;
  T* const keep = kept + static_cast<index>(blockIdx.x) * s.kept();
  multiply_rows(keep, p.weight0, p.bias0, hormone + lane * s.inner, s.inner, s.inner);
  __syncthreads();
  for (index i = threadIdx.x; i < s.inner; i += blockDim.x) inside[i] = keep[i] * sigmoid(keep[i]);
  __syncthreads();
  multiply_rows(z, p.weight2, p.bias2, inside, s.width, s.inner);
  __syncthreads();
  T sum = 0;
  for (index i = threadIdx.x; i < s.width; i += blockDim.x) sum += z[i];
  T const mean = block_sum(sum, sums) / static_cast<T>(s.width);
  T squares = 0;
  for (index i = threadIdx.x; i < s.width; i += blockDim.x) squares += (z[i] - mean) * (z[i] - mean);
  T const rstd = T(1) / std::sqrt(block_sum(squares, sums) / static_cast<T>(s.width) + eps);
  for (index i = threadIdx.x; i < s.width; i += blockDim.x) {
    T const row = (z[i] - mean) * rstd;
    keep[s.inner + i] = row;
    y[static_cast<index>(blockIdx.x) * s.width + i] = row * p.scale[i] + p.shift[i];
  }
  if (threadIdx.x == 0) keep[s.inner + s.width] = rstd;
}

template <class T>
__global__ void network_gradient(network<T> const* list, network_slopes<T> const* to, network_sizes s, T const* hormone,
                                 T const* kept, T const* dy, T* part) {
  __shared__ T sums[warp_size];
  T* const dz = shared_memory<T>();     // (D): of the second linear map
  T* const inside = dz + s.width;       // (W): silu(W₀ h + b₀)
  T* const dinside = inside + s.inner;  // (W): of W₀ h + b₀
  network<T> const p = list[blockIdx.x];
  network_slopes<T> const d = to[blockIdx.x];
  for (index lane = 0; lane < s.lanes; ++lane) {
    index const at = static_cast<index>(blockIdx.x) * s.lanes + lane;
    T const* const keep = kept + at * s.kept();
    T const* const row = keep + s.inner;
    T const* const up = dy + at * s.width;
    T const* const h = hormone + lane * s.inner;
    bool const first = lane == 0;
    T sum = 0;
    T dot = 0;
    for (index i = threadIdx.x; i < s.width; i += blockDim.x) {
      T const g = up[i] * p.scale[i];
      sum += g;
      dot += g * row[i];
      d.scale.add(i, up[i] * row[i], first);
      d.shift.add(i, up[i], first);
    }
    sum = block_sum(sum, sums) / static_cast<T>(s.width);
    dot = block_sum(dot, sums) / static_cast<T>(s.width);
    for (index i = threadIdx.x; i < s.width; i += blockDim.x) {
      dz[i] = row[s.width] * (up[i] * p.scale[i] - sum - row[i] * dot);
      d.bias2.add(i, dz[i], first);
    }
    for (index i = threadIdx.x; i < s.inner; i += blockDim.x) inside[i] = keep[i] * sigmoid(keep[i]);
    __syncthreads();
    return_rows(p.weight2, d.weight2, dz, inside, s.width, s.inner, first, [&](index i, T slope) {
      dinside[i] = slope * derivative(unary::silu, keep[i]);
      d.bias0.add(i, dinside[i], first);
    });
    __syncthreads();
    return_rows(p.weight0, d.weight0, dinside, h, s.inner, s.inner, first,
                [&](index i, T slope) { part[at * s.inner + i] = slope; });
    __syncthreads();  // before the next lane's values take these places
  }
}

/// dhormone (+)= Σ over the networks of their parts.
template <class T>
struct sum_networks {
  T* dh;
  T const* part;
  index count;
  index size;  // lanes · W
  bool accumulate;
  __device__ void operator()(index i) const {
    T sum = 0;
    for (index n = 0; n < count; ++n) sum += part[n * size + i];
    put(dh[i], sum, accumulate);
  }
};

}  // namespace
}  // namespace cuda_kernels

using namespace cuda_kernels;

void cuda::hormone_networks(view y, view kept, const_view hormone, hormone_network_operands const* networks,
                            std::size_t count, double eps) {
  network_sizes const s{y.dims[1], hormone.dims[1], y.dims[2]};
  with_real(y.type, "hormone_networks", [&]<class T>(std::type_identity<T>) {
    device_table<network<T>> const list({networks, networks + count});
    launch("hormone_networks", network_kernel<T>, y.dims[0] * s.lanes, network_threads,
           static_cast<std::size_t>(s.inner + s.width) * sizeof(T), list.data(), s, hormone.as<T>(), y.as<T>(),
           kept.as<T>(), static_cast<T>(eps));
  });
}

void cuda::hormone_networks_gradient(destination dhormone, hormone_network_gradients const* gradients,
                                     const_view hormone, hormone_network_operands const* networks, std::size_t count,
                                     const_view kept, const_view dy) {
  network_sizes const s{dy.dims[1], hormone.dims[1], dy.dims[2]};
  with_real(dy.type, "hormone_networks_gradient", [&]<class T>(std::type_identity<T>) {
    device_table<network<T>> const list({networks, networks + count});
    device_table<network_slopes<T>> const to({gradients, gradients + count});
    index const size = s.lanes * s.inner;
    device_array<T> const part(dy.dims[0] * size);
    launch("hormone_networks_gradient", network_gradient<T>, dy.dims[0], network_threads,
           static_cast<std::size_t>(s.width + 2 * s.inner) * sizeof(T), list.data(), to.data(), s, hormone.as<T>(),
           kept.as<T>(), dy.as<T>(), part.data());
    if (dhormone.wanted())
      for_count("hormone_networks_gradient", size,
                sum_networks<T>{dhormone.out.as<T>(), part.data(), dy.dims[0], size, dhormone.accumulate});
  });
}

}  // namespace ouro
