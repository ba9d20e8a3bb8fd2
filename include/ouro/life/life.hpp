// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life on disk: who it is (weights), how it is (state), and how it was learning (optimiser, position in the text).
#pragma once

#include <unistd.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ouro/data/corpus.hpp>
#include <ouro/io/archive.hpp>
#include <ouro/life/config_text.hpp>
#include <ouro/life/store.hpp>
#include <ouro/ops/norm.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/tensor/elementary.hpp>
#include <ouro/train/trainer.hpp>

namespace ouro {

/// Where a life was in its learning.
struct life_progress {
  std::int64_t updates = 0;
  std::int64_t heard = 0;  ///< bytes
  std::int64_t said = 0;   ///< bytes
  corpus_cursor cursor;
  OURO_MODULE(life_progress, updates, heard, said, cursor);
};

/// A system that is made from a configuration. Its life keeps that, and is opened by its path alone.
template <class System>
concept Configured = requires(System const& s, typename System::config_type const& c) {
  System(c, seed{}, dtype::f32);
  { s.config() } -> std::convertible_to<typename System::config_type>;
  { s.type() } -> std::same_as<dtype>;
  { s.newborn(seed{}) } -> std::same_as<state<typename System::backend>>;
};

/// One that can be made without memory for its parameters and states, for a life that is opened.
template <class System>
concept Blank = Configured<System> &&
    requires(System const& s, typename System::config_type const& c, genesis<typename System::backend> g) {
  System(c, g);
  { s.newborn(g) } -> std::same_as<state<typename System::backend>>;
};

namespace detail {
/// In bytes.
inline double memory_of_machine() {
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGE_SIZE));
}
struct no_config {};
template <class System>
struct config_of {
  using type = no_config;
};
template <Configured System>
struct config_of<System> {
  using type = typename System::config_type;
};
}  // namespace detail

/// A network, its state and where it was in its learning, kept in a folder (life_store says how). Open once at a time.
///
/// Any system can live so. What is kept of it is its tensors; its other members (rhythm, rates) are those of the program, which
/// says them when it opens the life. A Configured one is made anew from its configuration.
template <class System>
class basic_life {
 public:
  using backend = typename System::backend;
  using model_type = System;
  using config_type = typename detail::config_of<System>::type;

  /// Makes the folder and writes the newborn. Errors (storage): the path exists; (argument): `born` is no state of a Configured
  /// network (what the states of another one are, `born` says); (config): a Blank one that is larger than this machine's memory.
  /// Whatever is thrown, no folder is left.
  static basic_life create(std::string const& path, System newborn, ouro::state<backend> born) {
    auto forms = [&] {
      if constexpr (Configured<System>) return made(newborn.config(), newborn.type()).forms;
      else return forms_of(born);
    }();
    return create(path, kind{std::move(newborn), std::move(forms)}, std::move(born));
  }
  static basic_life create(std::string const& path, config_type const& config, seed network, seed noise,
                           dtype type = dtype::f32) requires Configured<System> {
    require_none_at(path);
    auto forms = forms_with_room(config, type);
    System newborn(config, network, type);
    auto born = newborn.newborn(noise);
    return create(path, kind{std::move(newborn), std::move(forms)}, std::move(born));
  }

  /// Goes on where the last commit was. Errors (storage): no life there, open already, written by another version of this
  /// program, a file that could not be opened for want of anything but the file, or every generation damaged; (config): its
  /// configuration is one that this System has not, as another brain's.
  static basic_life open(std::string const& path) requires Configured<System> { return read(path, false); }
  /// The same without the lock: it may be open elsewhere, and its folder be another's. What is done to it stays in memory: commit() and
  /// fork() are errors (argument).
  static basic_life look(std::string const& path) requires Configured<System> { return read(path, true); }
  /// The same for any system: `like` and `born` are a network and a state of the extents of those that were kept.
  static basic_life open(std::string const& path, System const& like, ouro::state<backend> const& born);

  /// open() where something is, else create(). Errors (config): what is there has another configuration or dtype.
  static basic_life open_or_create(std::string const& path, System const& newborn, ouro::state<backend> const& born) {
    return exists(path) ? open(path, newborn, born) : create(path, newborn, born);
  }
  static basic_life open_or_create(std::string const& path, config_type const& config, seed network, seed noise,
                                   dtype type = dtype::f32) requires Configured<System> {
    if (!exists(path)) return create(path, config, network, noise, type);
    auto l = open(path);
    auto const asked = to_text(made(config, type).model.config());  // what is left open in it is said there
    require(to_text(l.model.config()) == asked && l.model.type() == type, errc::config, "life", path,
            " has another configuration: ", to_text(l.model.config()), " in ", name_of(l.model.type()));
    return l;
  }

  basic_life(basic_life&&) noexcept = default;
  basic_life(basic_life const&) = delete;

  /// A trainer of `model` that goes on where this life was in its learning. The life must outlive it and stay where it is;
  /// what it learns is kept by commit(trainer).
  [[nodiscard]] ouro::trainer<System> resume(adamw const& rule, std::optional<double> dropout = {},
                                             std::int64_t room = context<backend>::no_bound);

  /// Makes what is in memory the newest generation. Errors (argument): it is not what open() would read, as a state or weights of
  /// another network than the configuration says; or `model` has learned since resume(), and what its trainer knows is not here:
  /// commit(trainer). Errors: a value is not finite (numeric); (storage). After any of them the last generation on disk is still
  /// the last.
  void commit();
  /// The same after `memory` and `progress.updates` were taken from a trainer of `model`. Errors (argument): it trains another.
  void commit(ouro::trainer<System> const& learned);

  /// Copies what was committed: a life of its own from then on. Errors (argument): into this one's folder, or it is only looked
  /// at; (storage): something is there already, or it cannot be written; then no folder is left.
  void fork(std::string const& path) const { store_.fork(path); }

  System model;
  ouro::state<backend> state;
  std::vector<moments<backend>> memory;  ///< of the optimiser
  life_progress progress;

  [[nodiscard]] std::string const& path() const { return store_.path(); }
  [[nodiscard]] std::int64_t generation() const { return store_.generation(); }
  /// What was damaged when it was opened, a text for each generation and line of CURRENT; usually nothing.
  [[nodiscard]] std::vector<std::string> const& passed_over() const { return store_.passed_over(); }

 private:
  /// The shape and dtype of a tensor of the states.
  struct form {
    std::string path;
    shape dims;
    dtype type;
  };
  /// A network and the tensors of its states.
  struct kind {
    System model;
    std::vector<form> forms;
  };
  static std::vector<form> forms_of(ouro::state<backend> const& born) {
    std::vector<form> forms;
    meta::for_each_member(born, [&](char const* name, auto const& member) {
      if constexpr (requires { member.dims(); }) {
        require(member.rank() > 0, errc::argument, "life", "a newborn's state must have its ", name);
        forms.push_back({std::string("state.") + name, member.dims(), member.type()});
      }
    });
    return forms;
  }

  basic_life(life_store store, kind k)
      : model(std::move(k.model)), store_(std::move(store)), forms_(std::move(k.forms)), readable_(layout(model)) {}

  /// What a life is told by its configuration: nothing if there is none.
  static std::string config_text(System const& network) {
    if constexpr (Configured<System>) return to_text(network.config());
    else return "";
  }
  static kind made(config_type const& config, dtype type) requires Configured<System> {
    if constexpr (Blank<System>) {
      genesis<backend> shapes(seed{}, type);
      shapes.blank = true;
      System network(config, shapes);
      auto forms = forms_of(network.newborn(shapes));
      return {std::move(network), std::move(forms)};
    } else {
      System network(config, seed{}, type);
      auto forms = forms_of(network.newborn(seed{}));
      return {std::move(network), std::move(forms)};
    }
  }
  /// Errors (config): a Blank one is larger than this machine's memory.
  static std::vector<form> forms_with_room(config_type const& config, dtype type) requires Configured<System> {
    auto shapes = made(config, type);
    if constexpr (Blank<System>) {
      double elements = 0;
      for (auto const& f : fields(shapes.model)) elements += static_cast<double>(f.value->size());
      for (auto const& f : shapes.forms) elements += static_cast<double>(f.dims.size());
      double const bytes = elements * static_cast<double>(size_of(type));
      require(bytes <= detail::memory_of_machine(), errc::config, "life", "network and state would have ",
              static_cast<std::int64_t>(bytes / 1e9), " GB, and this machine has ",
              static_cast<std::int64_t>(detail::memory_of_machine() / 1e9), " GB of memory");
    }
    return std::move(shapes.forms);
  }
  static basic_life create(std::string const& path, kind newborn, ouro::state<backend> born);
  static void require_none_at(std::string const& path) {
    require(!exists(path), errc::storage, "life", path, " exists already");
  }
  static kind made_from(safetensors_reader const& snapshot, std::string const& what) requires Configured<System> {
    require(!life_store::text_of(snapshot, "config").empty(), errc::config, "life", what,
            " is of a network without a configuration: open(path, like, born)");
    auto const& type = life_store::text_of(snapshot, "dtype");
    require(type == "f32" || type == "f64", errc::storage, "life", what, ": the dtype must be f32 or f64, got ", type);
    config_type config;
    try {
      config = config_from_text<config_type>(life_store::text_of(snapshot, "config"));
    } catch (error const& e) {
      fail(errc::storage, "life", what, " is of another version: ", e.what());
    }
    return made(config, type == "f64" ? dtype::f64 : dtype::f32);
  }
  /// Opens the store, or looks at it; make(what, snapshot) says of which kind a snapshot is.
  template <class Make>
  static basic_life read(std::string const& path, bool only_look, Make&& make);
  static basic_life read(std::string const& path, bool only_look) requires Configured<System> {
    return read(path, only_look, [&](std::string const& what, safetensors_reader const& snapshot) {
      return made_from(snapshot, path + ": " + what);
    });
  }

  static void require_counts(ouro::state<backend> const& state, life_progress const& progress) {
    for (auto n : {state.clock, progress.updates, progress.heard, progress.said})
      require(elementary::is_count(n), errc::storage, "life", "a count of the snapshot is out of range: ", n);
  }
  static void check_state(safetensors_reader const& in, std::vector<form> const& forms);
  static std::vector<moments<backend>> load_moments(safetensors_reader const& in, System const& network);

  /// f(path of a parameter, its moments) for all that there are.
  template <class F>
  void for_each_moments(F&& f) const {
    std::size_t i = 0;
    for (auto const& p : fields(model)) {
      if (p.kind != field_kind::parameter || i == memory.size()) continue;
      if (auto const& m = memory[i++]; m.first) f(p.path, m);
    }
  }
  void require_finite() const;
  void require_readable();
  /// Names, shapes and dtypes of the network, and what its configuration says.
  static std::string layout(System const& network) {
    auto text = config_text(network);
    if constexpr (Configured<System>) {
      text += name_of(network.type());
      auto const& r = network.rhythm;
      text += " " + detail::exact(r.wake) + " " + detail::exact(r.sleep) + " " + detail::exact(r.noise);
    }
    for (auto const& f : fields(network))
      text += "\n" + f.path + " " + name_of(f.value->type()) + " " + f.value->dims().str();
    return text;
  }

  life_store store_;
  std::vector<form> forms_;
  std::string readable_;                      ///< a layout that open() reads
  std::optional<std::int64_t> learned_from_;  ///< the updates then, if a trainer of resume() may have learned since
};

/// The life of a Gridman.
template <class B, template <class> class Mixer = attention>
using life = basic_life<gridman<B, Mixer>>;

template <class System>
basic_life<System> basic_life<System>::create(std::string const& path, kind newborn, ouro::state<backend> born) {
  require_none_at(path);
  std::optional<basic_life> l;
  auto place = path;  // here: nothing may fail once the folder is there
  make_whole_directory(path, [&](std::string const& making) {
    l.emplace(basic_life(life_store(making), std::move(newborn)));
    l->state = std::move(born);
    l->commit();
  });
  l->store_.renamed(std::move(place));
  return std::move(*l);
}

template <class System>
basic_life<System> basic_life<System>::open(std::string const& path, System const& like,
                                            ouro::state<backend> const& born) {
  return read(path, false, [&](std::string const& what, safetensors_reader const& snapshot) {
    auto const& text = life_store::text_of(snapshot, "config");
    require(text == config_text(like), errc::config, "life", path, ": ", what,
            " has another configuration than this network: ", text.empty() ? "none" : text);
    return kind{like, forms_of(born)};
  });
}

template <class System>
template <class Make>
basic_life<System> basic_life<System>::read(std::string const& path, bool only_look, Make&& make) {
  std::optional<kind> k;
  ouro::state<backend> state;
  life_progress progress;
  std::vector<moments<backend>> memory;
  auto const understand = [&](std::string const& what, safetensors_reader const& snapshot) {
    k.emplace(make(what, snapshot));
  };
  auto const fill = [&](safetensors_reader const& snapshot, safetensors_reader const& weights) {
    load_module(weights, k->model);
    check_state(snapshot, k->forms);
    load_fields<backend>(snapshot, "state.", state);
    load_fields<backend>(snapshot, "progress.", progress);
    require_counts(state, progress);
    memory = load_moments(snapshot, k->model);
  };
  auto store = only_look ? life_store::look(path, understand, fill) : life_store::open(path, understand, fill);
  basic_life l(std::move(store), std::move(*k));
  l.state = std::move(state);
  l.progress = progress;
  l.memory = std::move(memory);
  return l;
}

template <class System>
ouro::trainer<System> basic_life<System>::resume(adamw const& rule, std::optional<double> dropout, std::int64_t room) {
  ouro::trainer<System> t(model, rule, dropout, room);
  t.memory() = memory;
  t.updates() = progress.updates;
  learned_from_ = progress.updates;
  return t;
}

template <class System>
void basic_life<System>::commit(ouro::trainer<System> const& learned) {
  require(&learned.model() == &model, errc::argument, "life", "the trainer is of another network: nothing is saved");
  memory = learned.memory();
  progress.updates = learned.updates();
  commit();
}

template <class System>
void basic_life<System>::commit() {
  require_readable();
  require_finite();
  auto const weights = [&] {
    safetensors_writer tensors;
    store_module(tensors, model);
    return life_store::weights(tensors.str());
  }();
  require(learned_from_ != progress.updates || store_.has(weights), errc::argument, "life",
          "the network has learned since resume(), and its trainer's moments are not here: commit(trainer)");
  safetensors_writer out;
  out.set("config", config_text(model));
  if constexpr (Configured<System>) out.set("dtype", name_of(model.type()));
  store_fields(out, "state.", state);
  store_fields(out, "progress.", progress);
  for_each_moments([&](std::string const& path, moments<backend> const& m) {
    store(out, "moments.first." + path, m.first);
    store(out, "moments.second." + path, m.second);
    out.add("moments.steps." + path, "I64", {1}, {reinterpret_cast<char const*>(&m.steps), sizeof(std::int64_t)});
  });
  store_.commit(weights, std::move(out));
  if (learned_from_) learned_from_ = progress.updates;
}

/// Errors (argument): what open() would not read.
template <class System>
void basic_life<System>::require_readable() {
  if (auto now = layout(model); now != readable_) {
    if constexpr (Configured<System>) {
      auto again = made(model.config(), model.type());
      require(model.rhythm == again.model.rhythm, errc::argument, "life",
              "the rhythm is not that of the configuration: nothing is saved");
      require(now == layout(again.model), errc::argument, "life",
              "the weights are not of the network that the configuration says: nothing is saved");
      forms_ = std::move(again.forms);
    } else {
      fail(errc::argument, "life", "the weights are not of the network that this life began with: nothing is saved");
    }
    readable_ = std::move(now);
  }
  std::size_t count = 0;
  for (auto const& f : fields(model)) {
    if (f.kind != field_kind::parameter || count++ >= memory.size()) continue;
    auto const& m = memory[count - 1];
    for (auto const* part : {&m.first, &m.second})
      require(part->empty() == m.first.empty() &&
                  (part->empty() || (part->dims() == f.value->dims() && part->type() == f.value->type())),
              errc::argument, "life", "the moments of ", f.path, " are not of its shape: nothing is saved");
    require(elementary::is_count(m.steps), errc::argument, "life", "the moments of ", f.path, " have ", m.steps,
            " steps: nothing is saved");
  }
  require(memory.empty() || memory.size() == count, errc::argument, "life", "there are moments of ", memory.size(),
          " parameters, and the network has ", count, ": nothing is saved");
  try {
    require_counts(state, progress);
    safetensors_writer out;
    store_fields(out, "state.", state);
    check_state({"state", out.str()}, forms_);
  } catch (error const& e) {
    fail(errc::argument, "life", "the state is none of this network, nothing is saved: ", e.what());
  }
}

/// Errors (numeric): the first tensor with an element that is not finite.
template <class System>
void basic_life<System>::require_finite() const {
  std::vector<std::pair<std::string, tensor<backend>>> all;
  for (auto const& f : fields(model)) all.emplace_back(f.path, *f.value);
  for_each_moments([&](std::string const& path, moments<backend> const& m) {
    all.emplace_back("moments.first." + path, m.first);
    all.emplace_back("moments.second." + path, m.second);
  });
  state.for_each_tensor(
      [&](char const* name, tensor<backend> const& member) { all.emplace_back(std::string("state.") + name, member); });
  std::vector<tensor<backend>> values;
  for (auto const& [name, x] : all) values.push_back(x);
  if (elementary::isfinite(norm_of<backend>(values))) return;
  for (auto const& [name, x] : all)
    require(elementary::isfinite(norm_of<backend>({x})), errc::numeric, "life", name,
            " is not finite: nothing is saved");
}

/// Errors (storage): a tensor that this network's states do not have.
template <class System>
void basic_life<System>::check_state(safetensors_reader const& in, std::vector<form> const& forms) {
  auto const mem = in.at("state.mem").dims;
  auto const lanes = mem.empty() ? 1 : std::max<std::int64_t>(1, mem[0]);
  for (auto const& f : forms) detail::require_like(in, f.path, f.dims.with(0, lanes), f.type);
  if (!in.contains("state.thought")) return;  // any number of rows, of the width of State's
  auto const dims = in.at("state.thought").dims;
  auto const rows = dims.size() == 3 ? std::max<std::int64_t>(1, dims[1]) : 1;
  auto const working =
      std::find_if(forms.begin(), forms.end(), [](form const& f) { return f.path == "state.working"; });
  detail::require_like(in, "state.thought", working->dims.with(0, lanes).with(1, rows), working->type);
}

template <class System>
auto basic_life<System>::load_moments(safetensors_reader const& in, System const& network)
    -> std::vector<moments<backend>> {
  std::vector<moments<backend>> memory;
  bool any = false;
  for (auto const& f : fields(network)) {
    if (f.kind != field_kind::parameter) continue;
    moments<backend> m;
    auto const first = "moments.first." + f.path;
    if (in.contains(first)) {
      any = true;
      auto load_one = [&](std::string const& name) {
        detail::require_like(in, name, f.value->dims(), f.value->type());
        return load<backend>(in.at(name), f.value->type(), name);
      };
      m.first = load_one(first);
      m.second = load_one("moments.second." + f.path);
      auto const steps = in.at("moments.steps." + f.path);
      require(steps.type == "I64" && steps.bytes.size() == sizeof m.steps, errc::storage, "life", "moments.steps.",
              f.path, " must be one I64");
      std::memcpy(&m.steps, steps.bytes.data(), sizeof m.steps);
      require(elementary::is_count(m.steps), errc::storage, "life", "moments.steps.", f.path,
              " is out of range: ", m.steps);
    }
    memory.push_back(std::move(m));
  }
  if (!any) memory.clear();
  return memory;
}

}  // namespace ouro
