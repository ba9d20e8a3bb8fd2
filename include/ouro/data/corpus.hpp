// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Text files as an endless stream of lessons. Files are read as they are needed, so memory does not grow with them.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/io/file.hpp>
#include <ouro/io/hash.hpp>
#include <ouro/io/json.hpp>
#include <ouro/sensor/patches.hpp>
#include <ouro/system/config.hpp>
#include <ouro/tensor/elementary.hpp>
#include <ouro/train/lesson.hpp>

namespace ouro {

/// Where a corpus stands: enough to go on with the very next block.
struct corpus_cursor {
  std::int64_t epoch = 0;
  std::int64_t file = 0;    ///< index of the file the next block starts in
  std::int64_t offset = 0;  ///< byte offset of the document it starts in
  std::int64_t skip = 0;    ///< values of that document already given
  std::int64_t blocks = 0;  ///< blocks given in this epoch
  std::int64_t text = 0;    ///< which files it belongs to: their names, sizes, first and last 4 KiB, hashed
  friend bool operator==(corpus_cursor const&, corpus_cursor const&) = default;
};

struct corpus_options {
  std::int64_t patch = 16;    ///< P
  std::int64_t chunk = 128;   ///< S
  bool answers_only = false;  ///< fine-tuning: only what the assistant says, and its end, are targets
  bool strict = false;        ///< a bad line stops the run instead of being skipped
  bool overlap = false;       ///< a block begins with the last patch of the one before: all but the first are targets
};

/// One step's worth of text: a lesson for any system that reads and writes bytes.
using text_lesson = basic_lesson<patches, byte_target>;

/// Documents (UTF-8 bytes, then EOS) joined and cut into blocks of (S+1)·P bytes, in order: input = patches 0..S−1,
/// target = patches 1..S; the last block of an epoch is padded and its padding is not live. A plain file is one document, a line of
/// a `.jsonl` file is one: {"text": …} or {"conversations": [{"role", "content"}, …]}; only the latter under `answers_only`.
class corpus {
 public:
  /// Errors (argument): a patch or chunk below 1, or a block of more than 2^30 bytes. Errors (data): a path that does not
  /// exist, is empty, or is neither file nor folder; no byte at all; a plain file under `answers_only`. Errors (storage): a
  /// file that cannot be read.
  corpus(std::vector<std::string> const& paths, corpus_options const& options) : options_(options) {
    constexpr auto most = gridman_config::longest_block;
    for (auto const& [name, size] : {std::pair("patch", options.patch), std::pair("chunk", options.chunk)})
      require(size >= 1 && size <= most, errc::argument, "corpus", name, " must be in 1..2^30, got ", size);
    require(options.chunk < most / options.patch, errc::argument, "corpus", "a block of ", options.chunk,
            " + 1 patches of ", options.patch, " bytes has more than 2^30");
    for (auto const& p : paths) add(p);
    require(!files_.empty(), errc::data, "corpus", "no text to read");
    cursor_.text = text_;
  }
  /// The same in patches and chunks of a network. (Braces are options.)
  corpus(std::vector<std::string> const& paths, std::same_as<gridman_config> auto const& network)
      : corpus(paths, corpus_options{.patch = network.patch, .chunk = network.chunk}) {}

  /// The next lesson of this epoch; false at its end. Errors (data): a bad line under `strict`; an epoch without any
  /// readable document.
  bool next(text_lesson& out) {
    auto const need = static_cast<std::size_t>((options_.chunk + 1) * options_.patch);
    auto const shared = static_cast<std::size_t>(options_.overlap ? options_.patch : 0);
    while (waiting() < need && more()) {
    }
    std::size_t const count = std::min(need, waiting());
    if (count == 0 || (count <= shared && cursor_.blocks > 0)) {  // nothing is left to be a target
      require(cursor_.blocks > 0, errc::data, "corpus", "no readable document",
              complaints_.empty() ? std::string() : "; the first problem: " + complaints_[0]);
      return false;
    }
    auto const first = held_.begin() + static_cast<std::ptrdiff_t>(given_);
    std::vector<value> block(first, first + static_cast<std::ptrdiff_t>(count));
    block.resize(need, {pad_byte, false});
    std::int64_t const s = options_.chunk;
    std::int64_t const p = options_.patch;
    out.input = {1, s, p, {}};
    out.target = {{1, s, p, {}}, {}};
    for (std::int64_t i = 0; i < s * p; ++i) {
      out.input.bytes.push_back(block[static_cast<std::size_t>(i)].byte);
      auto const& t = block[static_cast<std::size_t>(i + p)];
      out.target.next.bytes.push_back(t.byte);
      out.target.live.push_back(t.live ? 1 : 0);
    }
    consume(std::min(count, need - shared));
    ++cursor_.blocks;
    return true;
  }
  /// The next lesson, going round at the end of an epoch.
  text_lesson endless() {
    text_lesson l;
    if (next(l)) return l;
    rewind();
    require(next(l), errc::data, "corpus", "no readable document");
    return l;
  }
  /// The next `count` of them, for one update.
  std::vector<text_lesson> cycle(std::int64_t count) {
    std::vector<text_lesson> lessons;
    for (std::int64_t i = 0; i < count; ++i) lessons.push_back(endless());
    return lessons;
  }
  void rewind() { seek({cursor_.epoch + 1, 0, 0, 0, 0, text_}); }

  [[nodiscard]] corpus_cursor position() const { return cursor_; }
  /// Goes on where a cursor was taken, if it was taken in these files; else it stays where it is. Whether it does. Errors (data): it
  /// points outside the files.
  bool resume(corpus_cursor const& c) {
    bool const known = c.text == text_;
    if (known) seek(c);
    return known;
  }
  /// Goes on where a cursor was taken in these files. Errors (data): it was not, or points outside of them.
  void seek(corpus_cursor const& c) {
    require(c.text == text_ && c.file >= 0 && c.file <= static_cast<std::int64_t>(files_.size()) && c.offset >= 0 &&
                c.offset <= bytes_ && c.skip >= 0 && c.skip - 1 <= bytes_ && elementary::is_count(c.epoch) &&
                elementary::is_count(c.blocks),
            errc::data, "corpus", "the position does not belong to these files (resume() goes on only if it does)");
    cursor_ = c;
    held_.clear();
    given_ = 0;
    documents_.clear();
    file_ = c.file;
    reader_.reset();
    offset_ = c.offset;
    line_known_ = c.offset == 0;
    std::int64_t const skip = c.skip;
    if (skip > 0) {
      while (static_cast<std::int64_t>(waiting()) < skip && more()) {
      }
      require(static_cast<std::int64_t>(waiting()) >= skip, errc::data, "corpus", "the text is shorter than it was");
      cursor_.skip = 0;
      consume(static_cast<std::size_t>(skip));
    }
  }

  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  /// Lines that were skipped, and the first ten reasons as `path:line: reason`.
  [[nodiscard]] std::int64_t skipped() const { return skipped_; }
  [[nodiscard]] std::vector<std::string> const& complaints() const { return complaints_; }

 private:
  static constexpr std::size_t longest_line = 64U << 20U;
  struct value {  // of 2 bytes: a line of 64 MiB is held whole
    std::uint16_t byte : 15;
    bool live : 1;
  };
  /// A document (or a slice of a plain file) of which some values are held: where it starts and how many are left.
  struct origin {
    std::int64_t file, offset, left, given;
  };

  /// Adds a file, or what is found in a folder and in those in it, in the order of the paths.
  void add(std::string const& path) {
    struct ::stat info {};
    require(::stat(path.c_str(), &info) == 0, errc::data, "corpus", path, " does not exist or cannot be read");
    if (S_ISDIR(info.st_mode)) {
      std::vector<std::string> found;
      list(path, found);
      std::sort(found.begin(), found.end());
      require(!found.empty(), errc::data, "corpus", "the folder ", path, " holds no text");
      for (auto const& f : found) add(f);
      return;
    }
    require(S_ISREG(info.st_mode), errc::data, "corpus", path, " is neither a file nor a folder");
    require(info.st_size > 0, errc::data, "corpus", path, " is empty");
    require(!options_.answers_only || is_lines(path), errc::data, "corpus", path,
            " is plain text, which has no answers: they are in conversations, in .jsonl files");
    files_.push_back(path);
    bytes_ += info.st_size;
    identify(path.substr(path.find_last_of('/') + 1) + ' ' + std::to_string(info.st_size) + '\n');
    for (std::int64_t start : {std::int64_t{0}, std::max<std::int64_t>(0, info.st_size - 4096)})
      identify(file_reader(path, start).slice().substr(0, 4096));
  }
  /// Goes on with the hash of what tells these files from others.
  void identify(std::string_view what) {
    text_ = static_cast<std::int64_t>(fnv_1a(what, static_cast<std::uint64_t>(text_)));
  }

  /// The regular files in a folder, at any depth, that are neither hidden nor empty. Links to folders are not followed.
  static void list(std::string const& path, std::vector<std::string>& found) {
    for (auto const& name : entries_of(path)) {
      auto const inner = path + (path.back() == '/' ? "" : "/") + name;
      struct ::stat info {};
      if (::lstat(inner.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) list(inner, found);
      else if (name[0] != '.' && ::stat(inner.c_str(), &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0)
        found.push_back(inner);
    }
  }

  static bool is_lines(std::string const& path) { return path.size() > 6 && path.substr(path.size() - 6) == ".jsonl"; }

  /// Reads the next document, or the next 64 KiB of a plain one, into held_. False at the end of the last file.
  bool more() {
    if (file_ >= static_cast<std::int64_t>(files_.size())) return false;
    auto const& path = files_[static_cast<std::size_t>(file_)];
    if (!reader_) {
      reader_.emplace(path, offset_);
      line_ = 0;
    }
    if (!is_lines(path)) {
      auto const part = reader_->slice();
      bool const end = part.empty();
      std::int64_t const start = offset_;
      std::size_t const mark = start == 0 && part.rfind("\xEF\xBB\xBF", 0) == 0 ? 3 : 0;
      std::size_t const before = held_.size();
      say(std::string_view(part).substr(mark), true);
      offset_ = reader_->position();
      if (end) held_.push_back({eos_byte, true});
      note(start, held_.size() - before);
      if (end) leave();
      return true;
    }
    auto const line = reader_->line(longest_line + 2);  // with its end; or it is longer
    std::int64_t const start = offset_;
    if (line.empty()) {
      leave();
      return true;
    }
    ++line_;
    offset_ = reader_->position();
    std::string_view text = line;
    if (text.back() == '\n') text.remove_suffix(1);
    if (start == 0 && text.rfind("\xEF\xBB\xBF", 0) == 0) text.remove_prefix(3);
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    if (text.find_first_not_of(" \t") == std::string_view::npos) return true;
    std::size_t const before = held_.size();
    try {
      require(text.size() <= longest_line, errc::data, "corpus", "the line is longer than 64 MiB");
      read_line(text);
      note(start, held_.size() - before);
    } catch (error const& e) {
      held_.resize(before);
      std::string const where = path + ":" + (line_known_ ? std::to_string(line_) : "byte " + std::to_string(start));
      require(!options_.strict, errc::data, "corpus", where, ": ", e.what());
      ++skipped_;
      if (complaints_.size() < 10) complaints_.push_back(where + ": " + e.what());
    }
    return true;
  }

  void read_line(std::string_view line) {
    auto const j = json::parse(line);
    require(j.is(json::kind::object), errc::data, "corpus", "expected an object");
    if (auto const* text = j.find("text")) {
      require(!options_.answers_only, errc::data, "corpus", "\"text\" has no answers: they are in \"conversations\"");
      require(text->is(json::kind::string) && !text->text().empty(), errc::data, "corpus",
              "\"text\" must be a string that is not empty");
      say(text->text(), true);
      held_.push_back({eos_byte, true});
      return;
    }
    auto const* turns = j.find("conversations");
    require(turns != nullptr && turns->is(json::kind::array) && !turns->items().empty(), errc::data, "corpus",
            "expected \"text\" or \"conversations\"");
    bool answered = false;
    for (auto const& turn : turns->items()) {
      auto const* role = turn.find("role");
      auto const* content = turn.find("content");
      require(role != nullptr && content != nullptr && role->is(json::kind::string) &&
                  content->is(json::kind::string) && (role->text() == "user" || role->text() == "assistant"),
              errc::data, "corpus", "a turn needs \"role\" (user or assistant) and \"content\"");
      answered = role->text() == "assistant";
      say(answered ? "\nGridman: " : "\nUser: ", !options_.answers_only);
      say(content->text(), answered || !options_.answers_only);
    }
    held_.push_back({eos_byte, answered || !options_.answers_only});
  }

  void say(std::string_view bytes, bool live) {
    for (char c : bytes) held_.push_back({static_cast<unsigned char>(c), live});
  }
  void note(std::int64_t start, std::size_t count) {
    if (count > 0) documents_.push_back({file_, start, static_cast<std::int64_t>(count), 0});
    settle_cursor();
  }
  void leave() {
    reader_.reset();
    ++file_;
    offset_ = 0;
    line_known_ = true;
  }
  /// How many values are held that were not given yet.
  [[nodiscard]] std::size_t waiting() const { return held_.size() - given_; }
  void consume(std::size_t count) {
    given_ += count;
    if (given_ > held_.size() / 2) {  // so that a value moves less than once, on average
      held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(given_));
      given_ = 0;
    }
    auto left = static_cast<std::int64_t>(count);
    auto d = documents_.begin();
    while (left > 0) {
      std::int64_t const n = std::min(left, d->left);
      d->left -= n;
      d->given += n;
      left -= n;
      if (d->left == 0) ++d;
    }
    documents_.erase(documents_.begin(), d);
    settle_cursor();
  }
  /// The cursor names the first value that was not given yet.
  void settle_cursor() {
    if (documents_.empty()) {
      cursor_.file = file_;
      cursor_.offset = offset_;
      cursor_.skip = 0;
    } else {
      cursor_.file = documents_.front().file;
      cursor_.offset = documents_.front().offset;
      cursor_.skip = documents_.front().given;
    }
  }

  corpus_options options_;
  std::vector<std::string> files_;
  std::int64_t bytes_ = 0;
  std::int64_t text_ = 0x4bf29ce484222325LL;
  std::optional<file_reader> reader_;
  std::int64_t file_ = 0;
  std::int64_t offset_ = 0;
  std::int64_t line_ = 0;
  bool line_known_ = true;
  std::vector<value> held_;
  std::size_t given_ = 0;  ///< of those held: the first so many
  std::vector<origin> documents_;
  corpus_cursor cursor_;
  std::int64_t skipped_ = 0;
  std::vector<std::string> complaints_;
};

}  // namespace ouro
