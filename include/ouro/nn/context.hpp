// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What a forward pass needs besides its operands: whether it trains, and where its dropout masks come from.
#pragma once

#include <array>
#include <limits>
#include <utility>
#include <vector>

#include <ouro/autodiff/settle.hpp>
#include <ouro/nn/module.hpp>
#include <ouro/ops/dropout.hpp>
#include <ouro/ops/movement.hpp>

namespace ouro {

/// A new value for a running statistic, collected during a training step and applied when the step is accepted.
template <class B>
struct statistic_update {
  statistic<B> const* target;
  tensor<B> batch;  ///< this step's estimate
  double momentum;  ///< running ← (1 − momentum) · running + momentum · correction · batch
  double correction = 1;
};

/// Watches inner values as they are computed.
template <class B>
struct observer {
  virtual ~observer() = default;
  virtual void see(char const* name, tensor<B> const& value) = 0;
};

/// Finds what is asked for in about the order of a list, again and again, without looking through all of it.
class round_search {
 public:
  /// The first i of `count` from the one after the last that was found on, and round, with is(i); `count` if there is none.
  template <class F>
  std::size_t find(std::size_t count, F const& is) {
    for (std::size_t looked = 0; looked < count; ++looked, ++next_) {
      if (next_ >= count) next_ = 0;
      if (is(next_)) return next_++;
    }
    return count;
  }

 private:
  std::size_t next_ = 0;
};

/// A tensor that is made once for a context.
template <class B>
struct context_table {
  std::array<std::int64_t, 6> key;
  shared<recorder<B>> owner;  ///< the tape that watched its source
  std::int64_t version;
  tensor<B> value;
};

/// A model's weights in bf16, for all contexts that live while the weights stay as they are. Values alone: no tape watches
/// them.
template <Backend B>
class narrow_weights : public counted {
 public:
  tensor<B> const& of(tensor<B> const& weight) {
    auto const at = next_.find(kept_.size(), [&](std::size_t i) {
      return kept_[i].weight == &weight && kept_[i].value.dims() == weight.dims();
    });
    if (at == kept_.size()) kept_.push_back({&weight, weight.copy(dtype::bf16)});
    return kept_[at].value;
  }
  /// Stores anew, at once if the backend can, what was asked for of these fields, and forgets the rest.
  void renew(std::vector<field<tensor<B>>> const& list) {
    std::vector<one> still;
    round_search fields;
    for (auto& k : kept_) {
      if (fields.find(list.size(), [&](std::size_t i) { return list[i].value == k.weight; }) == list.size()) continue;
      auto const& w = *k.weight;
      if (w.type() == dtype::f32 && w.contiguous() && w.dims() == k.value.dims()) still.push_back(std::move(k));
    }
    kept_ = std::move(still);
    if constexpr (NarrowBackend<B>) {
      std::vector<view> places;
      std::vector<const_view> values;
      for (auto& k : kept_) {
        places.push_back(k.value.write());
        values.push_back(k.weight->read());
      }
      B::narrow(places.data(), values.data(), places.size());
    } else {
      for (auto& k : kept_) k.value = k.weight->copy(dtype::bf16);
    }
  }
  void clear() { kept_.clear(); }

 private:
  struct one {
    tensor<B> const* weight;  // where it is in the model; not read unless it still is
    tensor<B> value;
  };
  std::vector<one> kept_;
  round_search next_;
};

/// One for each update, conversation or evaluation: the weights do not change while it lives.
template <Backend B>
struct context {
  static constexpr std::int64_t no_bound = std::numeric_limits<std::int64_t>::max();

  bool training = false;     ///< dropout and batch statistics
  double dropout = 0;        ///< probability that an element is dropped while training
  bool guarded = false;      ///< a guess of the loss does not weigh the Actor's gradient: see loss()
  random_stream masks = {};  ///< where dropout masks come from; one draw per site
  std::vector<statistic_update<B>> statistics = {};
  observer<B>* watcher = nullptr;
  std::int64_t room = no_bound;               ///< bytes of inner values that may still be kept
  std::vector<context_table<B>> tables = {};  ///< what once() has made
  round_search next_table = {};               ///< of these
  shared<narrow_weights<B>> narrow = {};      ///< where stored() finds weights in bf16, if anywhere
  tensor<B> numbered = {};                    ///< what version_of() was asked about
  std::int64_t number = 0;                    ///< its version

  /// How to store values of this type that only products and gates read: as the backend is set to while training.
  [[nodiscard]] dtype inner(dtype type) const {
    if constexpr (requires { B::inner_values(); })
      if (training && type == dtype::f32) return B::inner_values();
    return type;
  }
  [[nodiscard]] double rate() const { return training ? dropout : 0.0; }
  /// Dropout when training, else x.
  [[nodiscard]] tensor<B> drop(tensor<B> const& x) { return rate() > 0 ? ouro::dropout(x, rate(), masks.next()) : x; }
  /// x + drop(y).
  [[nodiscard]] tensor<B> add_dropped(tensor<B> const& x, tensor<B> const& y) {
    return rate() > 0 ? ouro::add_dropped(x, y, rate(), masks.next()) : x + y;
  }
  /// Whether there is no bound on what may be kept.
  [[nodiscard]] bool keeps_all() const { return !training || room == no_bound; }
  /// Whether a part may keep about `bytes` of inner values for its gradient, or should compute them again.
  [[nodiscard]] bool keeps(std::int64_t bytes) {
    if (keeps_all()) return true;
    bool const fits = bytes <= room;
    if (fits) room -= bytes;
    return fits;
  }
  /// The same for a computation of its own, whose gradient is not made with this one's.
  [[nodiscard]] context apart() const {
    context own = *this;
    own.statistics.clear();
    own.tables.clear();
    return own;
  }
  /// y = f(inner context, inputs), computed again for the gradient; masks and statistics are those of the first run.
  template <class F>
  tensor<B> recomputed(std::vector<tensor<B>> const& inputs, F const& f) {
    context const start = apart();
    auto const ran = make_owned<boxed<bool>>();
    return checkpoint<B>(inputs, [this, f, start, ran](std::vector<tensor<B>> const& in) {
      context again = start;
      auto y = f(again, in);
      if (!std::exchange(ran->value, true)) {
        masks = again.masks;
        statistics.insert(statistics.end(), again.statistics.begin(), again.statistics.end());
      }
      return y;
    });
  }
  /// make() the first time it is asked for under this key, the same tensor from then on, for what depends on `source`
  /// (a parameter, or absent), on sizes and on what `version` numbers. Made anew under another tape and in another version.
  template <class F>
  tensor<B> once(std::array<std::int64_t, 6> const& key, tensor<B> const& source, F&& make, std::int64_t version = 0) {
    auto const owner = source.origin().first;
    auto const at = table(key);
    if (tables[at].value.empty() || tables[at].owner != owner || tables[at].version != version) {
      auto made = make();  // which may ask for others
      tables[at] = {key, owner, version, std::move(made)};
    }
    return tables[at].value;
  }
  /// A weight or bias as products of this type take it: in bf16, if they are that, made once for a context.
  tensor<B> stored(tensor<B> const& weight, dtype type) {
    if (type != dtype::bf16 || weight.type() != dtype::f32) return weight;
    return once({reinterpret_cast<std::intptr_t>(&weight), 0, 1}, weight,
                [&] { return as_copy_of(weight, narrow ? narrow->of(weight) : weight.copy(type)); });
  }
  /// A version, above 0, that stays the same as long as these are the very elements that were asked about before.
  std::int64_t version_of(tensor<B> const& x) {
    auto const a = x.read();
    auto const b = numbered.read();
    bool const same = a.data == b.data && a.dims == b.dims && a.steps == b.steps && x.origin() == numbered.origin();
    if (!same) {
      numbered = x;  // and so nobody else gets its memory
      ++number;
    }
    return number;
  }
  void see(char const* name, tensor<B> const& value) const {
    if (watcher != nullptr) watcher->see(name, value);
  }

 private:
  /// The place of a key among the tables, a new one if it has none.
  std::size_t table(std::array<std::int64_t, 6> const& key) {
    auto const at = next_table.find(tables.size(), [&](std::size_t i) { return tables[i].key == key; });
    if (at == tables.size()) tables.push_back({key, {}, 0, {}});
    return at;
  }
};

/// What the statistics that were collected in a context make of the fields of the module they came from, in the order of
/// collection. Until apply() the fields are as they were.
template <Backend B>
class next_statistics {
 public:
  next_statistics(std::vector<field<tensor<B>>> const& list, context<B> const& cx) {
    for (auto const& update : cx.statistics)
      for (auto const& f : list)
        if (f.value == update.target) {
          auto& running = next_of(f.value);
          tensor<B> next(running.dims(), running.type());
          B::scale(next.write(), running.read(), 1.0 - update.momentum);
          B::scale({next.write(), true}, update.batch.read(), update.momentum * update.correction);
          running = std::move(next);
        }
  }
  void apply() noexcept {
    for (auto& n : next_) *n.field = std::move(n.value);
  }

 private:
  struct one {
    tensor<B>* field;
    tensor<B> value;
  };
  tensor<B>& next_of(tensor<B>* field) {
    for (auto& n : next_)
      if (n.field == field) return n.value;
    next_.push_back({field, *field});
    return next_.back().value;
  }
  std::vector<one> next_;
};

/// Applies the statistics that were collected in a context, as next_statistics.
template <Backend B>
void apply_statistics(std::vector<field<tensor<B>>> const& list, context<B>& cx) {
  next_statistics<B>(list, cx).apply();
  cx.statistics.clear();
}

}  // namespace ouro
