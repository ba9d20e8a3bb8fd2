// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What one hormone says to many receptors: their networks in one call where the backend has it, else one by one.
#pragma once

#include <utility>
#include <vector>

#include <ouro/concepts/hormone_networks.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/normalize_rows.hpp>
#include <ouro/ops/silu.hpp>

namespace ouro {

/// The parameters of one network: linear (W,W), SiLU, linear (D,W), layer norm.
template <class B>
struct hormone_network_inputs {
  tensor<B> weight0;  // (W,W)
  tensor<B> bias0;    // (W)
  tensor<B> weight2;  // (D,W)
  tensor<B> bias2;    // (D)
  tensor<B> scale;    // (D)
  tensor<B> shift;    // (D)
};

namespace detail {

template <class B>
std::vector<tensor<B>> grouped_hormone_networks(std::vector<hormone_network_inputs<B>> const& list,
                                                tensor<B> const& hormone) {
  constexpr double eps = 1e-5;
  std::size_t const n = list.size();
  std::int64_t const lanes = hormone.dim(0);
  std::int64_t const inner = hormone.dim(2);
  std::int64_t const width = list[0].weight2.dim(0);
  auto const heard = reshape(hormone.detach(), {lanes, inner});
  std::vector<tensor<B> const*> inputs{&hormone};
  std::vector<hormone_network_inputs<B>> kept_list;
  for (auto const& p : list) {
    inputs.insert(inputs.end(), {&p.weight0, &p.bias0, &p.weight2, &p.bias2, &p.scale, &p.shift});
    kept_list.push_back(
        {packed(p.weight0), packed(p.bias0), packed(p.weight2), packed(p.bias2), packed(p.scale), packed(p.shift)});
  }
  auto operands = [](std::vector<hormone_network_inputs<B>> const& from) {
    std::vector<hormone_network_operands> all;
    for (auto const& p : from)
      all.push_back(
          {p.weight0.read(), p.bias0.read(), p.weight2.read(), p.bias2.read(), p.scale.read(), p.shift.read()});
    return all;
  };
  auto const count = static_cast<std::int64_t>(n);
  tensor<B> y({count, lanes, width}, hormone.type());
  tensor<B> kept({count, lanes, hormone_network_kept(inner, width)}, hormone.type());
  B::hormone_networks(y.write(), kept.write(), heard.read(), operands(kept_list).data(), n, eps);
  y = recorded<B>("hormone_networks", std::move(y), inputs.data(), inputs.size(),
                  [kept_list = std::move(kept_list), kept, heard, operands, n](tensor<B> const& dy, gradients<B>& dx) {
                    std::vector<hormone_network_gradients> slopes;
                    for (std::size_t i = 0; i < n; ++i)
                      slopes.push_back({dx.into(6 * i + 1), dx.into(6 * i + 2), dx.into(6 * i + 3), dx.into(6 * i + 4),
                                        dx.into(6 * i + 5), dx.into(6 * i + 6)});
                    auto dh = dx.into(0);
                    if (dh.wanted()) dh.out = dh.out.reshape(heard.dims());
                    auto const g = packed(dy);
                    B::hormone_networks_gradient(dh, slopes.data(), heard.read(), operands(kept_list).data(), n,
                                                 kept.read(), g.read());
                  });
  std::vector<tensor<B>> says;
  auto const all = reshape(y, {count * lanes, 1, width});
  for (std::int64_t i = 0; i < count; ++i) says.push_back(slice(all, 0, i * lanes, lanes));
  return says;
}

}  // namespace detail

/// LN(W₂ silu(W₀ h + b₀) + b₂) of every network: hormone (L,1,W) → (L,1,D) each; all have the same W and D.
template <Backend B>
std::vector<tensor<B>> hormone_networks(std::vector<hormone_network_inputs<B>> const& list, tensor<B> const& hormone) {
  require(hormone.rank() == 3 && hormone.dim(1) == 1, errc::shape, "hormone_networks", "needs a hormone (L,1,W), got ",
          hormone.dims());
  std::int64_t const inner = hormone.dim(2);
  for (auto const& p : list)
    require(p.weight0.dims() == shape{inner, inner} && p.bias0.dims() == shape{inner} && p.weight2.rank() == 2 &&
                p.weight2.dims() == shape{list[0].weight2.dim(0), inner} && p.bias2.dims() == shape{p.weight2.dim(0)} &&
                p.scale.dims() == p.bias2.dims() && p.shift.dims() == p.bias2.dims(),
            errc::shape, "hormone_networks", "needs weights (", inner, ",", inner, ") and (D,", inner, "), got ",
            p.weight0.dims(), " and ", p.weight2.dims());
  if constexpr (HormoneNetworksBackend<B>)
    if (B::has_hormone_networks(hormone.type()) && !list.empty())
      return detail::grouped_hormone_networks(list, hormone);
  std::vector<tensor<B>> says;
  for (auto const& p : list)
    says.push_back(normalize_rows(linear_map(silu(linear_map(hormone, p.weight0, p.bias0)), p.weight2, p.bias2),
                                  p.scale, p.shift));
  return says;
}

}  // namespace ouro
