// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Operands of the optional primitive `hormone_networks`: the small networks that tell the receptors of a stack what its
// hormone says, all in one call. They are so small and so many that on a device their launches cost more than their work.
#pragma once

#include <concepts>
#include <cstddef>

#include <ouro/tensor/view.hpp>

namespace ouro {

/// LN(W₂ silu(W₀ h + b₀) + b₂) for a hormone of width W, D wide. All are contiguous.
struct hormone_network_operands {
  const_view weight0;  ///< (W,W)
  const_view bias0;    ///< (W)
  const_view weight2;  ///< (D,W)
  const_view bias2;    ///< (D)
  const_view scale;    ///< (D), of the layer norm
  const_view shift;    ///< (D), of the layer norm
};
struct hormone_network_gradients {
  destination weight0, bias0, weight2, bias2, scale, shift;
};

/// What the gradient needs of a network and lane: W₀ h + b₀, the normalised row, and 1/σ.
constexpr std::int64_t hormone_network_kept(std::int64_t hormone, std::int64_t width) { return hormone + width + 1; }

/// A backend that has the primitive; for the dtypes it names.
template <class B>
concept HormoneNetworksBackend = requires(view v, const_view x, destination d, hormone_network_operands const* list,
                                          hormone_network_gradients const* slopes, std::size_t n, double eps) {
  { B::has_hormone_networks(dtype::f32) } -> std::same_as<bool>;
  B::hormone_networks(v, v, x, list, n, eps);                 // (y (n,L,D), kept (n,L,·), hormone (L,W), networks)
  B::hormone_networks_gradient(d, slopes, x, list, n, x, x);  // (dhormone, gradients, hormone, networks, kept, dy)
};

}  // namespace ouro
