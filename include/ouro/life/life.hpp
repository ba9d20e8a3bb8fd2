// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life on disk: who it is (weights), how it is (state), and how it was learning (optimiser, position in the text).
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <ouro/data/corpus.hpp>
#include <ouro/io/archive.hpp>
#include <ouro/io/file.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/train/trainer.hpp>

namespace ouro {

namespace detail {

/// FNV-1a over 64 bits, as 16 hexadecimal digits (Fowler, Noll, Vo).
inline std::string hash_of(std::string_view bytes) {
  std::uint64_t h = 0xcbf29ce484222325ULL;
  for (char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; h >>= 4U) out[i] = "0123456789abcdef"[h & 15U];
  return out;
}

template <class T>
std::string exact(T value) {
  char text[64];
  auto const r = std::to_chars(text, text + sizeof text, value);
  return {text, r.ptr};
}

}  // namespace detail

/// A configuration as one JSON object.
inline std::string to_text(gridman_config const& c) {
  std::string out;
  meta::for_each_member(c, [&](char const* name, auto const& value) {
    out += (out.empty() ? "{" : ",") + json::quote(name) + ":";
    using type = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::is_same_v<type, bool>) out += value ? "true" : "false";
    else if constexpr (requires { value.view(); }) out += json::quote(value.view());
    else out += detail::exact(value);
  });
  return out + "}";
}
/// `c` with the fields that a JSON object names, {"dropout": 0.1}. Errors: no object or a value of another kind (data), a
/// field that does not exist or a rule that is broken (config).
inline gridman_config changed(gridman_config c, json const& j) {
  require(j.is(json::kind::object), errc::data, "config", "needs a JSON object");
  std::size_t known = 0;
  meta::for_each_member(c, [&](char const* name, auto& value) {
    auto const* v = j.find(name);
    if (v == nullptr) return;
    ++known;
    using type = std::remove_reference_t<decltype(value)>;
    if constexpr (std::is_same_v<type, bool>) value = v->boolean();
    else if constexpr (requires { value.view(); }) value = type(v->text());
    else if constexpr (std::is_same_v<type, double>) value = v->number();
    else value = v->integer();
  });
  require(known == j.keys().size(), errc::config, "config", "there are fields that this version does not know");
  c.validate();
  return c;
}
inline gridman_config changed(gridman_config const& c, std::string const& text) {
  return changed(c, json::parse(text));
}
/// The configuration that to_text wrote. Errors, beside those of `changed`: a field is missing (storage); those that lives
/// older than the field do not have (`mixers` and what follows) may be.
inline gridman_config config_from_text(std::string const& text) {
  auto const j = json::parse(text);
  gridman_config c;
  bool optional = false;  // from `mixers` on
  meta::for_each_member(c, [&](char const* name, auto& value) {
    optional = optional || static_cast<void const*>(&value) == &c.mixers;
    require(optional || j.find(name) != nullptr, errc::storage, "config", "'", name, "' is missing");
  });
  return changed(c, j);
}

/// Writes all tensors of a module. Reads them back strictly: every difference is listed in one error (storage).
template <class Module>
void store_module(safetensors_writer& out, Module const& module) {
  for (auto const& f : fields(module)) store(out, f.path, *f.value);
}
template <class Module>
void load_module(safetensors_reader const& in, Module& module) {
  using backend = typename Module::backend;
  std::string differences;
  auto const list = fields(module);
  std::size_t found = 0;
  for (auto const& f : list) {
    if (!in.contains(f.path)) {
      differences += "\n  missing: " + f.path + " " + f.value->dims().str();
      continue;
    }
    ++found;
    auto const dims = in.at(f.path).dims;
    shape stored;
    for (auto d : dims) stored.push_back(d);
    if (stored != f.value->dims())
      differences += "\n  " + f.path + ": expected " + f.value->dims().str() + ", stored " + stored.str();
  }
  if (found < in.names().size())
    for (auto const& name : in.names()) {
      bool known = false;
      for (auto const& f : list) known = known || f.path == name;
      if (!known) differences += "\n  unknown: " + name;
    }
  require(differences.empty(), errc::storage, "load", "the stored network is another one:", differences);
  for (auto const& f : list) *f.value = load<backend>(in.at(f.path), f.value->type(), f.path);
}

/// Where a life was in its learning.
struct life_progress {
  std::int64_t updates = 0;
  std::int64_t heard = 0;  ///< bytes
  std::int64_t said = 0;   ///< bytes
  corpus_cursor cursor;
  OURO_MODULE(life_progress, updates, heard, said, cursor);
};

/// One folder: LOCK, weights-<hash>.safetensors, snapshot-<generation>.safetensors, CURRENT (the last three generations
/// and the hashes of their snapshots). Open in one process at a time. `commit` is atomic and durable; at least the last
/// three generations stay. A generation that is damaged is passed over for the one before and never deleted.
template <class B, template <class> class Mixer = attention>
class life {
 public:
  using model_type = gridman<B, Mixer>;

  /// Makes the folder and writes the newborn. Errors (storage): the path exists; (config): the configuration. Whatever is
  /// thrown, no folder is left.
  static life create(std::string const& path, gridman_config const& config, seed network, seed noise,
                     dtype type = dtype::f32);

  /// Goes on where the last commit was. Errors (storage): no life there, in use, or every generation damaged.
  static life open(std::string const& path);

  life(life&&) noexcept = default;
  life(life const&) = delete;

  /// Makes what is in memory the newest generation. Errors (storage): nothing on disk changed but unused files.
  void commit();

  model_type model;
  ouro::state<B> state;
  std::vector<moments<B>> memory;  ///< of the optimiser
  life_progress progress;

  [[nodiscard]] std::string const& path() const { return path_; }
  [[nodiscard]] std::int64_t generation() const { return generation_; }

 private:
  struct generation_entry {
    std::int64_t number;
    std::string hash;
  };

  life(std::string path, model_type m) : life(path, std::move(m), file_lock(path + "/LOCK")) {}
  life(std::string path, model_type m, file_lock lock)
      : model(std::move(m)), path_(std::move(path)), lock_(std::move(lock)) {}

  static std::string snapshot_name(std::int64_t g) { return "snapshot-" + std::to_string(g) + ".safetensors"; }
  static std::string weights_file(std::string_view bytes) {
    return "weights-" + detail::hash_of(bytes) + ".safetensors";
  }

  /// Newest first. Errors (storage): CURRENT is no list of generations.
  static std::vector<generation_entry> generations(std::string const& path) {
    auto const text = read_file(path + "/CURRENT");
    std::vector<generation_entry> list;
    for (std::size_t at = 0; at < text.size();) {
      auto const end = std::min(text.find('\n', at), text.size());
      auto const line = text.substr(at, end - at);
      auto const space = line.find(' ');
      std::int64_t number = 0;
      bool const good = space != std::string::npos &&
                        std::from_chars(line.data(), line.data() + space, number).ec == std::errc{} &&
                        line.size() == space + 17;
      if (good) list.push_back({number, line.substr(space + 1)});
      at = end + 1;
    }
    require(!list.empty(), errc::storage, "life", path, "/CURRENT: expected lines of generation and hash");
    return list;
  }

  static std::vector<moments<B>> load_moments(safetensors_reader const& in, model_type const& model);

  /// Removes files of generations that are no longer kept: a failure here costs disk space, nothing else.
  void tidy() const noexcept {
    try {
      std::vector<std::string> needed;
      for (auto const& g : kept_) {
        needed.push_back(snapshot_name(g.number));
        try {
          needed.push_back(safetensors_reader::open(path_ + "/" + needed.back()).metadata().at("weights"));
        } catch (std::exception const&) {
          return;  // a damaged generation is kept, and all weights with it
        }
      }
      for (auto const& name : entries_of(path_)) {
        bool const ours = name.rfind("snapshot-", 0) == 0 || name.rfind("weights-", 0) == 0;
        if (ours && std::find(needed.begin(), needed.end(), name) == needed.end())
          ::unlink((path_ + "/" + name).c_str());
      }
    } catch (std::exception const&) {  // NOLINT: see above
    }
  }

  std::string path_;
  file_lock lock_;
  std::int64_t generation_ = 0;
  std::vector<generation_entry> kept_;
};

template <class B, template <class> class Mixer>
life<B, Mixer> life<B, Mixer>::create(std::string const& path, gridman_config const& config, seed network, seed noise,
                                      dtype type) {
  model_type model(config, network, type);
  require(!exists(path), errc::storage, "life", path, " exists already");
  make_directory(path);
  try {
    life l(path, std::move(model));
    l.state = l.model.newborn(noise);
    l.commit();
    return l;
  } catch (...) {  // nobody has lived there yet
    remove_directory(path);
    throw;
  }
}

template <class B, template <class> class Mixer>
life<B, Mixer> life<B, Mixer>::open(std::string const& path) {
  require(exists(path + "/CURRENT"), errc::storage, "life", "there is no life at ", path);
  file_lock lock(path + "/LOCK");
  std::string problems;
  auto const kept = generations(path);
  for (auto const& g : kept) {
    try {
      auto const bytes = read_file(path + "/" + snapshot_name(g.number));
      require(detail::hash_of(bytes) == g.hash, errc::storage, "life", "the snapshot's hash is wrong");
      safetensors_reader const in(snapshot_name(g.number), bytes);
      auto const& meta = in.metadata();
      auto const weights_name = meta.at("weights");
      auto weights = read_file(path + "/" + weights_name);
      require(weights_name == weights_file(weights), errc::storage, "life", weights_name, ": the hash is wrong");
      auto const type = meta.at("dtype") == "f64" ? dtype::f64 : dtype::f32;
      model_type model(config_from_text(meta.at("config")), seed{}, type);
      load_module(safetensors_reader(weights_name, std::move(weights)), model);
      ouro::state<B> state;
      load_fields<B>(in, "state.", state);
      life_progress progress;
      load_fields<B>(in, "progress.", progress);
      auto memory = load_moments(in, model);
      // All is read: until here the lock stays for the generation before.
      life l(path, std::move(model), std::move(lock));
      l.state = std::move(state);
      l.progress = progress;
      l.memory = std::move(memory);
      l.generation_ = g.number;
      l.kept_ = kept;
      return l;
    } catch (std::exception const& e) {
      // A machine without room or without a device is no fault of this generation: none is passed over for it.
      auto const* known = dynamic_cast<error const*>(&e);
      if (dynamic_cast<std::bad_alloc const*>(&e) != nullptr) throw;
      if (known != nullptr && known->code() == errc::unavailable) throw;
      problems += "\n  generation " + std::to_string(g.number) + ": " + e.what();
    }
  }
  fail(errc::storage, "life", "no generation of ", path, " can be read:", problems);
}

template <class B, template <class> class Mixer>
void life<B, Mixer>::commit() {
  safetensors_writer weights;
  store_module(weights, model);
  auto const network = weights.str();
  auto const name = weights_file(network);
  if (!exists(path_ + "/" + name)) write_file_durably(path_ + "/" + name, network);

  safetensors_writer out;
  out.set("format", "ouro-life-1");
  out.set("config", to_text(model.config()));
  out.set("dtype", name_of(model.type()));
  out.set("weights", name);
  store_fields(out, "state.", state);
  store_fields(out, "progress.", progress);
  auto const list = fields(model);
  std::size_t i = 0;
  for (auto const& f : list) {
    if (f.kind != field_kind::parameter) continue;
    if (i < memory.size() && memory[i].first) {
      store(out, "moments.first." + f.path, memory[i].first);
      store(out, "moments.second." + f.path, memory[i].second);
      out.add("moments.steps." + f.path, "I64", {1},
              {reinterpret_cast<char const*>(&memory[i].steps), sizeof(std::int64_t)});
    }
    ++i;
  }
  auto const bytes = out.str();
  auto next = generation_ + 1;
  for (auto const& g : kept_) next = std::max(next, g.number + 1);  // a damaged one that was passed over stays
  write_file_durably(path_ + "/" + snapshot_name(next), bytes);

  auto kept = kept_;
  kept.insert(kept.begin(), {next, detail::hash_of(bytes)});
  if (kept.size() > 3) kept.resize(3);
  std::string current;
  for (auto const& g : kept) current += std::to_string(g.number) + " " + g.hash + "\n";
  write_file_durably(path_ + "/CURRENT", current);
  generation_ = next;
  kept_ = std::move(kept);
  tidy();
}

template <class B, template <class> class Mixer>
std::vector<moments<B>> life<B, Mixer>::load_moments(safetensors_reader const& in, model_type const& model) {
  std::vector<moments<B>> memory;
  bool any = false;
  for (auto const& f : fields(model)) {
    if (f.kind != field_kind::parameter) continue;
    moments<B> m;
    auto const name = "moments.first." + f.path;
    if (in.contains(name)) {
      any = true;
      m.first = load<B>(in.at(name), f.value->type(), name);
      m.second = load<B>(in.at("moments.second." + f.path), f.value->type(), name);
      auto const steps = in.at("moments.steps." + f.path);
      require(steps.bytes.size() == sizeof m.steps, errc::storage, "life", "moments.steps.", f.path,
              " must be one I64");
      std::memcpy(&m.steps, steps.bytes.data(), sizeof m.steps);
    }
    memory.push_back(std::move(m));
  }
  if (!any) memory.clear();
  return memory;
}

}  // namespace ouro
