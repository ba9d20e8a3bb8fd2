// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life on disk: who it is (weights), how it is (state), and how it was learning (optimiser, position in the text).
#pragma once

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/data/corpus.hpp>
#include <ouro/io/archive.hpp>
#include <ouro/io/file.hpp>
#include <ouro/life/config_text.hpp>
#include <ouro/ops/norm.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/tensor/elementary.hpp>
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

/// Errors (storage): the stored tensor has another shape or dtype.
inline void require_like(safetensors_reader const& in, std::string const& name, shape const& dims, dtype type) {
  auto const stored = in.at(name);
  char const* const expected = stored_name_of(type);
  require(shape_of(stored) == dims && stored.type == expected, errc::storage, "load", name, ": expected ", expected,
          " ", dims, ", stored ", stored.type, " ", shape_of(stored));
}

}  // namespace detail

/// Writes all tensors of a module.
template <class Module>
void store_module(safetensors_writer& out, Module const& module) {
  for (auto const& f : fields(module)) store(out, f.path, *f.value);
}
/// Reads them back, strictly. Errors (storage): all that differs in names and shapes.
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
    auto const stored = shape_of(in.at(f.path));
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

/// One folder: LOCK, weights-<hash>.safetensors, snapshot-<generation>-<hash>.safetensors, CURRENT (the last three
/// generations and the hashes of their snapshots). Open once at a time. `commit` is atomic and durable; at least the last
/// three generations stay. A generation that is damaged is passed over for the one before and never deleted: the next commit
/// renames its files to *.quarantine. Where CURRENT is damaged, the names of the snapshots say what it should. Weights that several
/// generations share are there twice (weights-<hash>-copy.safetensors). A folder that was moved while its life was open is not written to.
template <class B, template <class> class Mixer = attention>
class life {
 public:
  using model_type = gridman<B, Mixer>;

  /// Makes the folder and writes the newborn. Errors (storage): the path exists; (config): the configuration. Whatever is
  /// thrown, no folder is left.
  static life create(std::string const& path, gridman_config const& config, seed network, seed noise,
                     dtype type = dtype::f32);

  /// Goes on where the last commit was. Errors (storage): no life there, open already, written by another version of this
  /// program, a file that could not be opened for want of anything but the file, or every generation damaged; (config): its
  /// brain has another mixer than this program's.
  static life open(std::string const& path);

  /// open() where something is, else create().
  static life open_or_create(std::string const& path, gridman_config const& config, seed network, seed noise,
                             dtype type = dtype::f32) {
    return exists(path) ? open(path) : create(path, config, network, noise, type);
  }

  life(life&&) noexcept = default;
  life(life const&) = delete;

  /// A trainer of `model` that goes on where this life was in its learning. The life must outlive it and stay where it is;
  /// what it learns is kept by commit(trainer).
  [[nodiscard]] ouro::trainer<model_type> resume(adamw const& rule, std::optional<double> dropout = {},
                                                 std::int64_t room = context<B>::no_bound);

  /// Makes what is in memory the newest generation. Errors (argument): it is not what open() would read, as a state or weights of
  /// another network than the configuration says; or `model` has learned since resume(), and what its trainer knows is not here:
  /// commit(trainer). Errors: a value is not finite (numeric); (storage). After any of them the last generation on disk is still
  /// the last.
  void commit();
  /// The same after `memory` and `progress.updates` were taken from a trainer of `model`.
  void commit(ouro::trainer<model_type>& learned);

  model_type model;
  ouro::state<B> state;
  std::vector<moments<B>> memory;  ///< of the optimiser
  life_progress progress;

  [[nodiscard]] std::string const& path() const { return path_; }
  [[nodiscard]] std::int64_t generation() const { return generation_; }
  /// What was damaged when it was opened, a text for each generation and line of CURRENT; usually nothing.
  [[nodiscard]] std::vector<std::string> const& passed_over() const { return passed_over_; }

 private:
  struct generation_entry {
    std::int64_t number = 0;
    std::string hash;     ///< of the snapshot; empty where nothing says it
    std::string file;     ///< the snapshot
    std::string weights;  ///< their file, whose hash was right
  };
  /// What a snapshot and its weights hold.
  struct contents {
    model_type model;
    ouro::state<B> state{};
    life_progress progress{};
    std::vector<moments<B>> memory{};
  };
  static constexpr char const* format = "ouro-life-1";

  life(std::string path, model_type m) : life(path, std::move(m), file_lock(path + "/LOCK")) {}
  life(std::string path, model_type m, file_lock lock)
      : model(std::move(m)), path_(std::move(path)), lock_(std::move(lock)), readable_(layout(model)) {}

  static std::string weights_file(std::string_view bytes) {
    return "weights-" + detail::hash_of(bytes) + ".safetensors";
  }
  /// The file that holds the same as a file of weights.
  static std::string copy_of(std::string const& weights) { return weights.substr(0, 24) + "-copy.safetensors"; }
  static bool has(generation_entry const& g, std::string const& weights) {
    return g.weights == weights || g.weights == copy_of(weights);
  }
  static constexpr std::int64_t numbers = std::int64_t{1} << 62;  ///< of generations
  /// 0 for what is no number of a generation.
  static std::int64_t number_of(std::string_view text) {
    std::int64_t n = 0;
    auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), n);
    return code == std::errc{} && end == text.data() + text.size() && n > 0 && n < numbers ? n : 0;
  }
  /// What the name of a file says: number 0 if it is no snapshot's, no hash if it is of an older version or set aside.
  static generation_entry entry_of(std::string const& name) {
    generation_entry e{0, "", name, ""};
    auto const end = name.find_first_of("-.", 9);
    if (!name.starts_with("snapshot-") || end == std::string::npos) return e;
    e.number = number_of(std::string_view(name).substr(9, end - 9));
    if (name[end] == '-' && name.find(".safetensors", end) == end + 17) e.hash = name.substr(end + 1, 16);
    return e;
  }
  /// Does f(). False, and the reason is noted, if it finds a file missing, unreadable or not what was written. All other
  /// errors are no fault of a generation, and go on: none is passed over for them.
  template <class F>
  static bool whole(std::vector<std::string>& reasons, std::string const& what, F&& f) {
    try {
      f();
      return true;
    } catch (error const& e) {
      auto const* file = dynamic_cast<file_error const*>(&e);
      if (e.code() != errc::storage || (file != nullptr && file->number() != ENOENT && file->number() != EIO)) throw;
      reasons.push_back(what + ": " + e.what());
      return false;
    }
  }
  static std::string const& text_of(safetensors_reader const& in, std::string const& key) {
    auto const found = in.metadata().find(key);
    require(found != in.metadata().end(), errc::storage, "life", "the snapshot does not say its ", key);
    return found->second;
  }

  static std::vector<generation_entry> candidates(std::string const& path, std::vector<std::string>& reasons,
                                                  std::int64_t& highest);
  static contents read(safetensors_reader const& in, safetensors_reader const& weights, gridman_config const& config);
  static void check_state(safetensors_reader const& in, model_type const& model);
  static std::vector<moments<B>> load_moments(safetensors_reader const& in, model_type const& model);

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
  /// Names, shapes and dtypes of the network, and its configuration.
  static std::string layout(model_type const& network) {
    auto text = to_text(network.config()) + name_of(network.type());
    for (auto const& f : fields(network))
      text += "\n" + f.path + " " + name_of(f.value->type()) + " " + f.value->dims().str();
    return text;
  }

  static bool is_snapshot(std::string const& name) {
    auto const e = entry_of(name);
    auto const numbered = "snapshot-" + std::to_string(e.number);
    return e.number > 0 && name == numbered + (e.hash.empty() ? "" : "-" + e.hash) + ".safetensors";
  }
  static bool is_weights(std::string const& name) {
    bool const hashed = name.starts_with("weights-") && name.find_first_not_of("0123456789abcdef", 8) == 24;
    return hashed && (name == name.substr(0, 24) + ".safetensors" || name == copy_of(name));
  }
  /// Whether it is a snapshot or weights, whole, of no generation that is kept.
  [[nodiscard]] bool spare(std::string const& name) const {
    return (is_snapshot(name) || is_weights(name)) && std::none_of(kept_.begin(), kept_.end(), [&](auto const& g) {
             return name == g.file || name == g.weights || name == copy_of(g.weights);
           });
  }
  /// Renames what may be of a damaged generation, so that it is neither deleted nor overwritten. Errors (storage).
  void set_aside() const {
    for (auto const& name : entries_of(path_)) {
      if (!spare(name)) continue;
      auto const from = path_ + "/" + name;
      auto to = from + ".quarantine";
      for (int i = 1; exists(to); ++i) to = from + "." + std::to_string(i) + ".quarantine";
      if (::rename(from.c_str(), to.c_str()) != 0) detail::cannot("set aside", from);
    }
    sync_directory(path_);
  }
  /// Removes files of generations that are no longer kept, and what a killed process left half written: a failure here costs
  /// disk space, nothing else.
  void tidy() const noexcept {
    try {
      for (auto const& name : entries_of(path_))
        if (spare(name) || name.find(".safetensors.tmp-") != std::string::npos || name.starts_with("CURRENT.tmp-"))
          ::unlink((path_ + "/" + name).c_str());
    } catch (std::exception const&) {  // NOLINT: see above
    }
  }

  std::string path_;
  file_lock lock_;
  std::int64_t generation_ = 0;
  std::int64_t highest_ = 0;            ///< number of any snapshot in the folder
  std::vector<generation_entry> kept_;  ///< newest first; all of them were read or written whole
  std::vector<std::string> passed_over_;
  bool damaged_ = false;                      ///< and nothing is set aside yet
  std::string readable_;                      ///< a layout that open() reads
  std::optional<std::int64_t> learned_from_;  ///< the updates then, if a trainer of resume() may have learned since
};

template <class B, template <class> class Mixer>
life<B, Mixer> life<B, Mixer>::create(std::string const& path, gridman_config const& config, seed network, seed noise,
                                      dtype type) {
  model_type model(config, network, type);
  require(!exists(path), errc::storage, "life", path, " exists already");
  std::optional<life> l;
  make_whole_directory(path, [&](std::string const& making) {
    l.emplace(life(making, std::move(model)));
    l->state = l->model.newborn(noise);
    l->commit();
  });
  l->path_ = path;
  return std::move(*l);
}

/// Newest first: the generations that CURRENT lists, or, if that is not whole, all that have a snapshot. Notes what is wrong
/// with CURRENT.
template <class B, template <class> class Mixer>
auto life<B, Mixer>::candidates(std::string const& path, std::vector<std::string>& reasons, std::int64_t& highest)
    -> std::vector<generation_entry> {
  std::vector<generation_entry> all;
  for (auto const& name : entries_of(path)) {
    auto e = entry_of(name);
    highest = std::max(highest, e.number);
    if (is_snapshot(name)) all.push_back(std::move(e));
  }
  std::sort(all.begin(), all.end(),
            [](auto const& a, auto const& b) { return a.number != b.number ? a.number > b.number : a.file < b.file; });
  std::vector<generation_entry> listed;
  std::string text;
  bool good = whole(reasons, "CURRENT", [&] {
    text = read_file(path + "/CURRENT");
    require(!text.empty(), errc::storage, "life", path, "/CURRENT is empty");
  });
  for (std::size_t at = 0; at < text.size();) {
    auto const end = text.find('\n', at);
    auto const line = text.substr(at, end - at);
    at += line.size() + 1;
    auto const space = std::min(line.find(' '), line.size());
    auto const number = number_of(std::string_view(line).substr(0, space));
    good = whole(reasons, "CURRENT",
                 [&] {
                   require(number > 0 && line.size() == space + 17 && end != std::string::npos &&
                               (listed.empty() || number < listed.back().number),
                           errc::storage, "life", "expected a generation and the hash of its snapshot, got ",
                           json::quote(line.substr(0, 80)));
                   auto const hash = line.substr(space + 1);
                   auto const found = std::find_if(all.begin(), all.end(), [&](auto const& g) {
                     return g.number == number && (g.hash == hash || g.hash.empty());
                   });
                   require(found != all.end(), errc::storage, "life", "there is no snapshot of generation ", line);
                   found->hash = hash;  // which the name does not say in older lives
                   listed.push_back(*found);
                 }) &&
           good;
  }
  if (good && listed.size() < 3 && all.back().number < listed.back().number) {
    reasons.push_back("CURRENT: it ends before the older generations");
    return all;
  }
  return good ? listed : all;
}

template <class B, template <class> class Mixer>
life<B, Mixer> life<B, Mixer>::open(std::string const& path) {
  auto const names = exists(path) ? entries_of(path) : std::vector<std::string>();
  require(std::any_of(names.begin(), names.end(),
                      [](auto const& name) { return name == "CURRENT" || entry_of(name).number > 0; }),
          errc::storage, "life", "there is no life at ", path);
  file_lock lock(path + "/LOCK");
  std::vector<std::string> reasons;
  std::int64_t highest = 0;
  std::optional<contents> newest;
  std::vector<generation_entry> kept;
  for (auto& g : candidates(path, reasons, highest)) {
    auto const what = "generation " + std::to_string(g.number);
    std::optional<safetensors_reader> in;
    std::optional<safetensors_reader> weights;
    auto const read_snapshot = [&] {
      require(!g.hash.empty(), errc::storage, "life", "nothing says the hash of ", g.file);
      auto bytes = read_file(path + "/" + g.file);
      require(detail::hash_of(bytes) == g.hash, errc::storage, "life", g.file, ": the hash is wrong");
      in.emplace(g.file, std::move(bytes));
      static_cast<void>(text_of(*in, "format"));
      static_cast<void>(text_of(*in, "config"));
    };
    if (!whole(reasons, what, read_snapshot)) continue;
    gridman_config config;
    if (!newest) {  // it was written so: who cannot understand it must not go on with another one
      require(text_of(*in, "format") == format, errc::storage, "life", path, ": ", what, " has the format ",
              json::quote(text_of(*in, "format")), ", and this program knows ", json::quote(format));
      try {
        config = config_from_text(text_of(*in, "config"));
      } catch (error const& e) {
        fail(errc::storage, "life", path, ": ", what, " is of another version: ", e.what());
      }
    }
    auto const read_rest = [&] {
      auto const& name = text_of(*in, "weights");
      require(is_weights(name), errc::storage, "life", json::quote(name.substr(0, 80)), " is no file of weights");
      auto const read_weights = [&](std::string const& file) {
        auto bytes = read_file(path + "/" + file);
        require(name == weights_file(bytes), errc::storage, "life", file, ": the hash is wrong");
        weights.emplace(file, std::move(bytes));
        g.weights = file;
      };
      auto const same = [&](auto const& k) { return has(k, name); };
      if (auto const known = std::find_if(kept.begin(), kept.end(), same); known != kept.end())
        g.weights = known->weights;
      else if (!exists(path + "/" + copy_of(name))) read_weights(name);
      else if (!whole(reasons, what, [&] { read_weights(name); })) read_weights(copy_of(name));
      if (!newest) newest.emplace(read(*in, *weights, config));
    };
    if (whole(reasons, what, read_rest)) kept.push_back(std::move(g));
  }
  std::string problems;
  for (auto const& r : reasons) problems += "\n  " + r;
  require(newest.has_value(), errc::storage, "life", "no generation of ", path, " can be read:", problems);
  life l(path, std::move(newest->model), std::move(lock));
  l.state = std::move(newest->state);
  l.progress = newest->progress;
  l.memory = std::move(newest->memory);
  l.generation_ = kept.front().number;
  l.highest_ = highest;
  l.kept_ = std::move(kept);
  l.damaged_ = !reasons.empty();
  l.passed_over_ = std::move(reasons);
  return l;
}

template <class B, template <class> class Mixer>
ouro::trainer<gridman<B, Mixer>> life<B, Mixer>::resume(adamw const& rule, std::optional<double> dropout,
                                                        std::int64_t room) {
  ouro::trainer<model_type> t(model, rule, dropout, room);
  t.memory() = memory;
  t.updates() = progress.updates;
  learned_from_ = progress.updates;
  return t;
}

template <class B, template <class> class Mixer>
void life<B, Mixer>::commit(ouro::trainer<model_type>& learned) {
  memory = learned.memory();
  progress.updates = learned.updates();
  commit();
}

template <class B, template <class> class Mixer>
void life<B, Mixer>::commit() {
  require(lock_.is_at(path_ + "/LOCK"), errc::storage, "life", path_,
          " is not the folder that was opened any more: nothing is saved");
  require_readable();
  require_finite();
  safetensors_writer weights;
  store_module(weights, model);
  auto const network = weights.str();
  auto const name = weights_file(network);
  require(learned_from_ != progress.updates || has(kept_[0], name), errc::argument, "life",
          "the network has learned since resume(), and its trainer's moments are not here: commit(trainer)");
  bool const damaged = damaged_;
  if (damaged) set_aside();
  damaged_ = false;  // once: what this commit writes, if it fails, is not of a damaged generation
  // What is there under this name is believed only if this object has read or written it.
  bool const known = std::any_of(kept_.begin(), kept_.end(), [&](auto const& g) { return g.weights == name; });
  if (!known || !exists(path_ + "/" + name)) write_file_durably(path_ + "/" + name, network);
  else if (auto const copy = path_ + "/" + copy_of(name); !exists(copy)) write_file_durably(copy, network);

  safetensors_writer out;
  out.set("format", format);
  out.set("config", to_text(model.config()));
  out.set("dtype", name_of(model.type()));
  out.set("weights", name);
  store_fields(out, "state.", state);
  store_fields(out, "progress.", progress);
  for_each_moments([&](std::string const& path, moments<B> const& m) {
    store(out, "moments.first." + path, m.first);
    store(out, "moments.second." + path, m.second);
    out.add("moments.steps." + path, "I64", {1}, {reinterpret_cast<char const*>(&m.steps), sizeof(std::int64_t)});
  });
  auto const bytes = out.str();
  auto const hash = detail::hash_of(bytes);
  auto const next = highest_ + 1;
  require(next < numbers, errc::storage, "life", "there is no number after generation ", highest_);
  auto const file = "snapshot-" + std::to_string(next) + "-" + hash + ".safetensors";
  auto kept = kept_;
  kept.insert(kept.begin(), {next, hash, file, name});
  if (kept.size() > 3) kept.resize(3);
  std::string current;
  for (auto const& g : kept) current += std::to_string(g.number) + " " + g.hash + "\n";
  highest_ = next;  // whatever comes of it, no other snapshot gets this number
  write_file_durably(path_ + "/" + file, bytes);
  write_file_durably(path_ + "/CURRENT", current);
  generation_ = next;
  if (learned_from_) learned_from_ = progress.updates;
  kept_ = std::move(kept);
  if (!damaged) tidy();  // the first commit after damage deletes nothing
}

/// Errors (argument): what open() would not read.
template <class B, template <class> class Mixer>
void life<B, Mixer>::require_readable() {
  auto const& c = model.config();
  require(model.rhythm == rhythm{c.wake, c.sleep, c.oscillator_noise}, errc::argument, "life",
          "the rhythm is not that of the configuration: nothing is saved");
  if (auto now = layout(model); now != readable_) {
    require(now == layout(model_type(c, seed{}, model.type())), errc::argument, "life",
            "the weights are not of the network that the configuration says: nothing is saved");
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
  }
  require(memory.empty() || memory.size() == count, errc::argument, "life", "there are moments of ", memory.size(),
          " parameters, and the network has ", count, ": nothing is saved");
  safetensors_writer out;
  store_fields(out, "state.", state);
  try {
    check_state({"state", out.str()}, model);
  } catch (error const& e) {
    fail(errc::argument, "life", "the state is not of this network, nothing is saved: ", e.what());
  }
}

/// Errors (numeric): the first tensor with an element that is not finite.
template <class B, template <class> class Mixer>
void life<B, Mixer>::require_finite() const {
  std::vector<std::pair<std::string, tensor<B>>> all;
  for (auto const& f : fields(model)) all.emplace_back(f.path, *f.value);
  for_each_moments([&](std::string const& path, moments<B> const& m) {
    all.emplace_back("moments.first." + path, m.first);
    all.emplace_back("moments.second." + path, m.second);
  });
  meta::for_each_member(state, [&](char const* name, auto const& member) {
    if constexpr (requires { member.dims(); }) all.emplace_back(std::string("state.") + name, member);
    else if constexpr (requires { member->dims(); })
      if (member) all.emplace_back(std::string("state.") + name, *member);
  });
  std::vector<tensor<B>> values;
  for (auto const& [name, x] : all) values.push_back(x);
  if (elementary::isfinite(norm_of<B>(values))) return;
  for (auto const& [name, x] : all)
    require(elementary::isfinite(norm_of<B>({x})), errc::numeric, "life", name, " is not finite: nothing is saved");
}

template <class B, template <class> class Mixer>
auto life<B, Mixer>::read(safetensors_reader const& in, safetensors_reader const& weights, gridman_config const& config)
    -> contents {
  auto const& type = text_of(in, "dtype");
  require(type == "f32" || type == "f64", errc::storage, "life", "the dtype must be f32 or f64, got ", type);
  contents c{model_type(config, seed{}, type == "f64" ? dtype::f64 : dtype::f32)};
  load_module(weights, c.model);
  check_state(in, c.model);
  load_fields<B>(in, "state.", c.state);
  load_fields<B>(in, "progress.", c.progress);
  c.memory = load_moments(in, c.model);
  return c;
}

/// Errors (storage): a tensor that this network's states do not have.
template <class B, template <class> class Mixer>
void life<B, Mixer>::check_state(safetensors_reader const& in, model_type const& model) {
  auto const born = model.newborn(seed{});
  auto const mem = in.at("state.mem").dims;
  auto const lanes = mem.empty() ? 1 : std::max<std::int64_t>(1, mem[0]);
  meta::for_each_member(born, [&](char const* name, auto const& member) {
    auto const path = std::string("state.") + name;
    if constexpr (requires { member.dims(); }) {
      detail::require_like(in, path, member.dims().with(0, lanes), member.type());
    } else if constexpr (requires { member->dims(); }) {  // a thought: any number of rows, of the width of the others
      if (!in.contains(path)) return;
      auto const dims = in.at(path).dims;
      auto const rows = dims.size() == 3 ? std::max<std::int64_t>(1, dims[1]) : 1;
      detail::require_like(in, path, born.working.dims().with(0, lanes).with(1, rows), born.working.type());
    }
  });
}

template <class B, template <class> class Mixer>
std::vector<moments<B>> life<B, Mixer>::load_moments(safetensors_reader const& in, model_type const& model) {
  std::vector<moments<B>> memory;
  bool any = false;
  for (auto const& f : fields(model)) {
    if (f.kind != field_kind::parameter) continue;
    moments<B> m;
    auto const first = "moments.first." + f.path;
    if (in.contains(first)) {
      any = true;
      auto load_one = [&](std::string const& name) {
        detail::require_like(in, name, f.value->dims(), f.value->type());
        return load<B>(in.at(name), f.value->type(), name);
      };
      m.first = load_one(first);
      m.second = load_one("moments.second." + f.path);
      auto const steps = in.at("moments.steps." + f.path);
      require(steps.type == "I64" && steps.bytes.size() == sizeof m.steps, errc::storage, "life", "moments.steps.",
              f.path, " must be one I64");
      std::memcpy(&m.steps, steps.bytes.data(), sizeof m.steps);
      require(m.steps >= 0, errc::storage, "life", "moments.steps.", f.path, " must not be negative, got ", m.steps);
    }
    memory.push_back(std::move(m));
  }
  if (!any) memory.clear();
  return memory;
}

}  // namespace ouro
