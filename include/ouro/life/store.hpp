// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The generations of a life in a folder, whatever lives: which files there are, which of them can be believed, and how one more
// is written.
#pragma once

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/io/file.hpp>
#include <ouro/io/hash.hpp>
#include <ouro/io/json.hpp>
#include <ouro/io/safetensors.hpp>
#include <ouro/tensor/elementary.hpp>

namespace ouro {

namespace detail {

/// What the names of files say of their bytes.
inline std::string hash_of(std::string_view bytes) { return hexadecimal(xxh64(bytes)); }
/// The same in lives of the first versions.
inline std::string first_hash_of(std::string_view bytes) { return hexadecimal(fnv_1a(bytes)); }
inline bool is_hash_of(std::string_view hash, std::string_view bytes) {
  return hash == hash_of(bytes) || hash == first_hash_of(bytes);
}

}  // namespace detail

/// One folder: LOCK, weights-<hash>.safetensors, snapshot-<generation>-<hash>.safetensors, CURRENT (the last three
/// generations and the hashes of their snapshots). Open once at a time. `commit` is atomic and durable; at least the last
/// three generations stay. A generation that is damaged is passed over for the one before and never deleted: the next commit
/// renames its files to *.quarantine. Where CURRENT is damaged, the names of the snapshots say what it should. Weights that several
/// generations share are there twice (weights-<hash>-copy.safetensors). A folder that was moved while its life was open is not written to.
class life_store {
 public:
  /// The weights of a generation: a safetensors, and the name of its file.
  struct weights {
    std::string bytes;
    std::string name;
    explicit weights(std::string b) : bytes(std::move(b)), name("weights-" + detail::hash_of(bytes) + ".safetensors") {}
  };

  /// A store in a folder that has none, and locks it. Errors (storage).
  explicit life_store(std::string path) : life_store(std::move(path), true) {}

  /// Locks a store and hands its newest good generation to `understand(what it is called, snapshot)` and then to
  /// `read(snapshot, weights)`. Where `read` throws an error (storage) the generation is damaged, and the one before is asked. What
  /// `understand` throws goes on: it was written so, and who cannot understand it must not go on with an older one. Errors
  /// (storage): nothing is there; it is open already; another format; a file could not be opened for want of anything but
  /// the file; every generation is damaged.
  template <class Understand, class Read>
  static life_store open(std::string const& path, Understand&& understand, Read&& read) {
    return opened(path, true, understand, read);
  }
  /// The same without the lock, and nothing is written: another program may have it open, and may commit meanwhile; then the
  /// newest generation is read anew. Such a store neither commits nor forks.
  template <class Understand, class Read>
  static life_store look(std::string const& path, Understand&& understand, Read&& read) {
    auto const current = [&] {
      std::string text;
      std::vector<std::string> known;
      whole(known, "", [&] { text = read_file(path + "/CURRENT"); });
      return text;
    };
    for (int times_left = 9;; --times_left) {  // files of generations that are no longer kept are removed
      auto const before = current();
      try {
        auto s = opened(path, false, understand, read);
        if (s.passed_over_.empty() || times_left == 0 || current() == before) return s;
      } catch (error const&) {
        if (times_left == 0 || current() == before) throw;
      }
    }
  }

  /// What a snapshot says under a key. Errors (storage): nothing.
  static std::string const& text_of(safetensors_reader const& snapshot, std::string const& key) {
    auto const found = snapshot.metadata().find(key);
    require(found != snapshot.metadata().end(), errc::storage, "life", "the snapshot does not say its ", key);
    return found->second;
  }

  /// Whether the last generation has these weights.
  [[nodiscard]] bool has(weights const& w) const {
    return !kept_.empty() && (kept_[0].has(w.name) || hash_in(kept_[0].weights) == detail::first_hash_of(w.bytes));
  }

  /// Makes these the newest generation. Errors (storage), as that the folder was moved, and (argument): it is only looked at. Then the
  /// last one on disk is still the last.
  void commit(weights const& network, safetensors_writer snapshot);

  /// Copies all that is in it to a new folder, which is there when it is whole. Errors (argument): that would be inside this
  /// one, or it is only looked at; (storage): it exists, or cannot be written; then no folder is left.
  void fork(std::string const& path) const;

  [[nodiscard]] std::string const& path() const { return path_; }
  /// The folder has another name from now on.
  void renamed(std::string path) { path_ = std::move(path); }
  [[nodiscard]] std::int64_t generation() const { return generation_; }
  /// What was damaged when it was opened, a text for each generation and line of CURRENT; usually nothing.
  [[nodiscard]] std::vector<std::string> const& passed_over() const { return passed_over_; }

 private:
  life_store(std::string path, bool locked) : path_(std::move(path)) {
    if (locked) lock_.emplace(path_ + "/LOCK");
  }
  template <class Understand, class Read>
  static life_store opened(std::string const& path, bool locked, Understand&& understand, Read&& read);
  void require_lock(char const* where) const {
    require(lock_.has_value(), errc::argument, where, path_, " was opened to be looked at: nothing is written");
  }

  static constexpr char const* format = "ouro-life-1";

  /// What the name of a file of weights says of it.
  static std::string hash_in(std::string const& name) { return name.substr(8, 16); }
  /// The first of two files of the same weights, and the second.
  static std::string first_of(std::string const& name) { return name.substr(0, 24) + ".safetensors"; }
  static std::string copy_of(std::string const& name) { return name.substr(0, 24) + "-copy.safetensors"; }
  struct entry {
    std::int64_t number = 0;
    std::string hash;     ///< of the snapshot; empty where nothing says it
    std::string file;     ///< the snapshot
    std::string weights;  ///< their file, whose hash was right
    [[nodiscard]] bool has(std::string const& name) const { return weights == name || weights == copy_of(name); }
  };
  /// 0 for what is no number of a generation.
  static std::int64_t number_of(std::string_view text) {
    std::int64_t n = 0;
    auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), n);
    return code == std::errc{} && end == text.data() + text.size() && n > 0 && elementary::is_count(n) ? n : 0;
  }
  /// What the name of a file says: number 0 if it is no snapshot's, no hash if it is of an older version or set aside.
  static entry entry_of(std::string const& name) {
    entry e{0, "", name, ""};
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
  static std::vector<entry> candidates(std::string const& path, std::vector<std::string>& reasons,
                                       std::int64_t& highest);

  static bool is_snapshot(std::string const& name) {
    auto const e = entry_of(name);
    auto const numbered = "snapshot-" + std::to_string(e.number);
    return e.number > 0 && name == numbered + (e.hash.empty() ? "" : "-" + e.hash) + ".safetensors";
  }
  static bool is_weights(std::string const& name) {
    bool const hashed = name.starts_with("weights-") && name.find_first_not_of("0123456789abcdef", 8) == 24;
    return hashed && (name == first_of(name) || name == copy_of(name));
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
  /// Weights of which only the second file is left have both again; nothing is done for one that is not whole any more.
  void restore() const {
    for (auto const& g : kept_) {
      auto const name = first_of(g.weights);
      if (exists(path_ + "/" + name)) continue;
      std::vector<std::string> known;
      whole(known, "", [&] {
        auto const bytes = read_file(path_ + "/" + g.weights);
        if (detail::is_hash_of(hash_in(name), bytes)) write_file_durably(path_ + "/" + name, bytes);
      });
    }
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
  std::optional<file_lock> lock_;  ///< none where it is looked at
  std::int64_t generation_ = 0;
  std::int64_t highest_ = 0;  ///< number of any snapshot in the folder
  std::vector<entry> kept_;   ///< newest first; all of them were read or written whole
  std::vector<std::string> passed_over_;
  bool damaged_ = false;  ///< and nothing is set aside yet
};

/// Newest first: the generations that CURRENT lists, or, if that is not whole, all that have a snapshot. Notes what is wrong
/// with CURRENT.
inline auto life_store::candidates(std::string const& path, std::vector<std::string>& reasons, std::int64_t& highest)
    -> std::vector<entry> {
  std::vector<entry> all;
  for (auto const& name : entries_of(path)) {
    auto e = entry_of(name);
    highest = std::max(highest, e.number);
    if (is_snapshot(name)) all.push_back(std::move(e));
  }
  std::sort(all.begin(), all.end(),
            [](auto const& a, auto const& b) { return a.number != b.number ? a.number > b.number : a.file < b.file; });
  std::vector<entry> listed;
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

template <class Understand, class Read>
life_store life_store::opened(std::string const& path, bool locked, Understand&& understand, Read&& read) {
  auto const names = exists(path) ? entries_of(path) : std::vector<std::string>();
  require(std::any_of(names.begin(), names.end(),
                      [](auto const& name) { return name == "CURRENT" || entry_of(name).number > 0; }),
          errc::storage, "life", "there is no life at ", path);
  life_store s(path, locked);
  auto& reasons = s.passed_over_;
  for (auto& g : candidates(path, reasons, s.highest_)) {
    auto const what = "generation " + std::to_string(g.number);
    std::optional<safetensors_reader> snapshot;
    auto const read_snapshot = [&] {
      require(!g.hash.empty(), errc::storage, "life", "nothing says the hash of ", g.file);
      auto bytes = read_file(path + "/" + g.file);
      require(detail::is_hash_of(g.hash, bytes), errc::storage, "life", g.file, ": the hash is wrong");
      snapshot.emplace(g.file, std::move(bytes));
      for (char const* key : {"format", "config"}) static_cast<void>(text_of(*snapshot, key));
    };
    if (!whole(reasons, what, read_snapshot)) continue;
    if (s.kept_.empty()) {
      require(text_of(*snapshot, "format") == format, errc::storage, "life", path, ": ", what, " has the format ",
              json::quote(text_of(*snapshot, "format")), ", and this program knows ", json::quote(format));
      understand(what, *snapshot);
    }
    auto const read_rest = [&] {
      auto const& name = text_of(*snapshot, "weights");
      require(is_weights(name), errc::storage, "life", json::quote(name.substr(0, 80)), " is no file of weights");
      std::optional<safetensors_reader> tensors;
      auto const read_weights = [&](std::string const& file) {
        auto bytes = read_file(path + "/" + file);
        require(detail::is_hash_of(hash_in(name), bytes), errc::storage, "life", file, ": the hash is wrong");
        tensors.emplace(file, std::move(bytes));
        g.weights = file;
      };
      auto const same = [&](entry const& k) { return k.has(name); };
      if (auto const known = std::find_if(s.kept_.begin(), s.kept_.end(), same); known != s.kept_.end())
        g.weights = known->weights;
      else if (!exists(path + "/" + copy_of(name))) read_weights(name);
      else if (!whole(reasons, what, [&] { read_weights(name); })) read_weights(copy_of(name));
      if (s.kept_.empty()) read(*snapshot, *tensors);
    };
    if (whole(reasons, what, read_rest)) s.kept_.push_back(std::move(g));
  }
  std::string problems;
  for (auto const& r : reasons) problems += "\n  " + r;
  require(!s.kept_.empty(), errc::storage, "life", "no generation of ", path, " can be read:", problems);
  s.generation_ = s.kept_.front().number;
  s.damaged_ = !reasons.empty();
  return s;
}

inline void life_store::commit(weights const& network, safetensors_writer snapshot) {
  require_lock("life");
  require(lock_->is_at(path_ + "/LOCK"), errc::storage, "life", path_,
          " is not the folder that was opened any more: nothing is saved");
  bool const damaged = damaged_;
  if (damaged) set_aside(), restore();
  damaged_ = false;  // once: what this commit writes, if it fails, is not of a damaged generation
  // What is there under this name is believed only if this object has read or written it.
  auto const file_of_weights = path_ + "/" + network.name;
  bool const known = std::any_of(kept_.begin(), kept_.end(), [&](entry const& g) { return g.weights == network.name; });
  if (!known || !exists(file_of_weights)) write_file_durably(file_of_weights, network.bytes);
  else if (auto const copy = path_ + "/" + copy_of(network.name); !exists(copy))
    write_file_durably(copy, network.bytes);

  snapshot.set("format", format);
  snapshot.set("weights", network.name);
  auto const bytes = snapshot.str();
  auto const hash = detail::hash_of(bytes);
  auto const next = highest_ + 1;
  require(elementary::is_count(next), errc::storage, "life", "there is no number after generation ", highest_);
  auto const file = "snapshot-" + std::to_string(next) + "-" + hash + ".safetensors";
  auto kept = kept_;
  kept.insert(kept.begin(), {next, hash, file, network.name});
  if (kept.size() > 3) kept.resize(3);
  std::string current;
  for (auto const& g : kept) current += std::to_string(g.number) + " " + g.hash + "\n";
  highest_ = next;  // whatever comes of it, no other snapshot gets this number
  write_file_durably(path_ + "/" + file, bytes);
  write_file_durably(path_ + "/CURRENT", current);
  generation_ = next;
  kept_ = std::move(kept);
  if (!damaged) tidy();  // the first commit after damage deletes nothing
}

inline void life_store::fork(std::string const& path) const {
  require_lock("fork");
  require(!exists(path), errc::storage, "fork", path, " exists already");
  require(!is_inside(parent_of(path), path_), errc::argument, "fork", path, " is inside the life");
  make_whole_directory(path, [&](std::string const& making) {
    for (auto const& name : entries_of(path_))
      if (auto const file = path_ + "/" + name; name != "LOCK" && is_file(file))
        write_file_durably(making + "/" + name, read_file(file));
  });
}

}  // namespace ouro
