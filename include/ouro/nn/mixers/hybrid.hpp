// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A SequenceMixer that is one of several, chosen when the program runs: so the layers of a stack can differ, and one
// program can hold lives with any of these brains.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>

#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/nn/mixers/attention.hpp>
#include <ouro/nn/mixers/mamba2.hpp>
#include <ouro/nn/mixers/rwkv7.hpp>

namespace ouro {

/// `hybrid_of<attention, mine>::mixer` takes a mixer's place in `gridman<B, …>`. Each of the `Mixers` has a `name`; the
/// first is taken where a place names no kind. Parameters, carry and random draws are those of the mixer that is chosen.
template <template <class> class... Mixers>
struct hybrid_of {
  template <class B>
  struct mixer {
    using backend = B;
    static_assert((requires { std::string_view(Mixers<B>::name); } && ...),
                  "each mixer of a hybrid_of has a `name`, by which a place chooses it");
    /// That of the chosen mixer, after the first rows.
    using carry = std::variant<std::monostate, typename Mixers<B>::carry...>;
    /// One for each kind: the layers of a kind share theirs, whatever lies between them.
    using stream = std::tuple<mixer_stream<Mixers<B>>...>;
    static constexpr std::array<std::string_view, sizeof...(Mixers)> kinds{Mixers<B>::name...};

    std::variant<Mixers<B>...> _;
    OURO_MODULE(mixer, _);

    mixer() = default;
    /// Errors (config): a kind that is none of these.
    mixer(genesis<B>& g, mixer_place const& place) {
      std::string known;
      for (auto k : kinds) known += (known.empty() ? "" : ", ") + std::string(k);
      bool found = false;
      auto make = [&]<class Mixer>(std::in_place_type_t<Mixer>) {
        if (found || (!place.kind.empty() && place.kind != Mixer::name)) return;
        _.template emplace<Mixer>(g, place);
        found = true;
      };
      (make(std::in_place_type<Mixers<B>>), ...);
      require(found, errc::config, "hybrid", "there is no mixer '", std::string(place.kind), "'; there are ", known);
    }

    /// The name of the mixer that this is.
    [[nodiscard]] std::string_view kind() const { return kinds[_.index()]; }
    [[nodiscard]] bool shares() const {
      return std::visit([](auto const& m) { return shares_stream(m); }, _);
    }

    [[nodiscard]] bool takes_narrow() const {
      return std::visit([](auto const& m) { return ouro::takes_narrow(m); }, _);
    }

    tensor<B> forward(context<B>& cx, tensor<B> const& x, segments s, carry& c, stream& pass) const {
      return on(c, pass, [&](auto const& m, auto& own, auto& shared) { return mix(m, cx, x, s, own, shared); });
    }
    tensor<B> forward(context<B>& cx, tensor<B> const& x, segments s, carry& c) const {
      stream alone;
      return forward(cx, x, s, c, alone);
    }
    tensor<B> step(context<B>& cx, tensor<B> const& x, carry& c, stream& pass) const {
      return on(c, pass, [&](auto const& m, auto& own, auto& shared) { return mix_step(m, cx, x, own, shared); });
    }
    tensor<B> step(context<B>& cx, tensor<B> const& x, carry& c) const {
      stream alone;
      return step(cx, x, c, alone);
    }

   private:
    /// f(mixer, its carry, its stream) for the mixer that is chosen.
    template <class F>
    tensor<B> on(carry& c, stream& pass, F const& f) const {
      if (c.index() != 0)
        require(c.index() == _.index() + 1, errc::argument, "hybrid", "the carry is that of another mixer than ",
                std::string(kind()));
      tensor<B> y;
      auto run = [&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
        if (_.index() != I) return;
        if (c.index() == 0) c.template emplace<I + 1>();
        y = f(std::get<I>(_), std::get<I + 1>(c), std::get<I>(pass));
      };
      [&]<std::size_t... I>(std::index_sequence<I...>) { (run(std::integral_constant<std::size_t, I>{}), ...); }
      (std::make_index_sequence<sizeof...(Mixers)>{});
      return y;
    }
  };
};

/// The mixers of the library behind one type.
template <class B>
using hybrid = hybrid_of<attention, rwkv7, mamba2>::template mixer<B>;

}  // namespace ouro
