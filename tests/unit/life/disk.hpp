// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A disk whose calls can fail, and which can lose its power. The linker leads this program's calls of the system here (--wrap):
// one of them can be made to fail, and what they change in a folder is written down, so that all that could be left of it
// after a crash can be made.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace disk {

/// From now on, until the end of a scope, the n-th call (from 1 on) fails with this errno; 0: if it is a write, it is short.
class fault {
 public:
  fault(long n, int number);
  fault(fault const&) = delete;
  fault& operator=(fault const&) = delete;
  ~fault();
  /// Whether there were so many calls.
  [[nodiscard]] bool happened() const;
  /// Which one failed.
  [[nodiscard]] char const* failed() const;
  /// Whether a file was synced again under the descriptor that a sync had failed for.
  [[nodiscard]] bool synced_again() const;
};

/// The bytes of a file, and what tells them from others.
struct contents {
  std::string bytes;
  std::size_t hash = 0;
};
using contents_ptr = std::shared_ptr<contents const>;

/// What could be in a folder: the bytes of files by their paths from there, "" for those of folders.
struct remains {
  std::map<std::string, contents_ptr> files;
  std::vector<std::string> folders;  ///< each after the one it is in
  int acknowledged = 0;              ///< the last mark before the crash
  /// Makes it in an empty folder.
  void write_to(std::string const& folder) const;
};

/// Writes down what this program does to a folder, from now on until the end of a scope. What is there now is durable.
///
/// After a crash there is what was durable and any of the rest. A change of a folder's entries, of which a rename is one, is durable
/// when the folder is synced, and what is written to a file when the file is. Of changes of entries that are not durable any may be
/// lost, whatever came after them; of what was written to a file, all but the first 0, 1, 512 or 4096 bytes, or it is all zeros.
class recorder {
 public:
  explicit recorder(std::string const& folder);
  recorder(recorder const&) = delete;
  recorder& operator=(recorder const&) = delete;
  ~recorder();
  /// What came before was acknowledged.
  void mark(int acknowledged);
  /// f(remains) for all that differ, for a crash before and after each change. Writes no more down.
  std::size_t for_each_crash(std::function<void(remains const&)> const& f);
};

}  // namespace disk
