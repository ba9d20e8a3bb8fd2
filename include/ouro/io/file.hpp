// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Files and folders on POSIX, with errors that name them; writes that survive a crash; a lock that dies with its process.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/tensor/error.hpp>

namespace ouro {

/// A system call on a file or folder that failed (storage).
class file_error : public error {
 public:
  file_error(std::string const& message, int number) : error(errc::storage, message), number_(number) {}
  /// Its errno.
  [[nodiscard]] int number() const noexcept { return number_; }

 private:
  int number_;
};

namespace detail {
[[noreturn]] inline void cannot(char const* what, std::string const& path) {
  int const number = errno;
  throw file_error("[file] cannot " + std::string(what) + " " + path + ": " + std::strerror(number), number);
}

/// A file descriptor that closes itself.
class descriptor {
 public:
  descriptor(std::string const& path, int flags, char const* what, ::mode_t mode = 0644) {
    do fd_ = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    while (fd_ < 0 && errno == EINTR);
    if (fd_ < 0) cannot(what, path);
  }
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor(descriptor const&) = delete;
  descriptor& operator=(descriptor const&) = delete;
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_ = -1;
};

/// Reads up to `count` bytes; fewer only at the end of the file.
inline std::size_t read_bytes(descriptor const& file, char* to, std::size_t count, std::string const& path) {
  std::size_t done = 0;
  while (done < count) {
    auto const n = ::read(file.get(), to + done, count - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) cannot("read", path);
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

/// Removes a file at the end of a scope, unless it was kept.
class scratch_file {
 public:
  explicit scratch_file(std::string path) : path_(std::move(path)) {}
  scratch_file(scratch_file const&) = delete;
  scratch_file& operator=(scratch_file const&) = delete;
  ~scratch_file() {
    if (!kept_) ::unlink(path_.c_str());
  }
  [[nodiscard]] std::string const& path() const { return path_; }
  void keep() { kept_ = true; }

 private:
  std::string path_;
  bool kept_ = false;
};
}  // namespace detail

/// The bytes of a regular file. Errors (storage): it cannot be read, or is not a regular file.
inline std::string read_file(std::string const& path) {
  detail::descriptor const file(path, O_RDONLY | O_NONBLOCK, "open");  // a pipe without a writer must not hang
  struct ::stat info {};
  if (::fstat(file.get(), &info) != 0) detail::cannot("inspect", path);
  require(S_ISREG(info.st_mode), errc::storage, "file", path, " is not a regular file");
  std::string bytes(static_cast<std::size_t>(info.st_size), '\0');
  bytes.resize(detail::read_bytes(file, bytes.data(), bytes.size(), path));
  return bytes;
}

/// A file read from a position on, in slices or lines, without holding more of it than 64 KiB or a line.
class file_reader {
 public:
  /// Errors (storage): it cannot be opened.
  file_reader(std::string path, std::int64_t offset)
      : path_(std::move(path)), file_(path_, O_RDONLY, "open"), position_(offset) {
    if (::lseek(file_.get(), offset, SEEK_SET) < 0) detail::cannot("seek in", path_);
  }

  /// The next bytes; empty at the end.
  std::string slice() {
    fill();
    return taken(held_.size());
  }
  /// The next line, with its end if it has one; empty at the end of the file. Of a line longer than `most` bytes, at least
  /// one, those behind them are passed over.
  std::string line(std::size_t most) {
    std::string line;
    for (bool ended = false; !ended;) {
      fill();
      if (held_.empty()) break;
      auto const end = held_.find('\n', at_);
      ended = end != std::string::npos;
      line.append(taken(ended ? end + 1 : held_.size()), 0, most - line.size());
    }
    return line;
  }
  /// Where in the file the next byte is.
  [[nodiscard]] std::int64_t position() const { return position_; }

 private:
  /// What is held until there.
  std::string taken(std::size_t end) {
    auto part = held_.substr(at_, end - at_);
    at_ = end;
    position_ += static_cast<std::int64_t>(part.size());
    return part;
  }
  void fill() {
    if (at_ < held_.size()) return;
    at_ = 0;
    held_.resize(1 << 16);
    held_.resize(detail::read_bytes(file_, held_.data(), held_.size(), path_));
  }

  std::string path_;
  detail::descriptor file_;
  std::int64_t position_;
  std::string held_;
  std::size_t at_ = 0;  ///< where in it the next byte is
};

/// The names in a folder, without "." and "..". Errors (storage): it cannot be read.
inline std::vector<std::string> entries_of(std::string const& path) {
  struct folder {
    ::DIR* handle;
    ~folder() {
      if (handle != nullptr) ::closedir(handle);
    }
  } const at{::opendir(path.c_str())};
  if (at.handle == nullptr) detail::cannot("open folder", path);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    auto const* e = ::readdir(at.handle);
    if (e == nullptr && errno != 0) detail::cannot("read folder", path);
    if (e == nullptr) return names;
    std::string name = e->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
}

/// Makes the entries of a folder durable.
inline void sync_directory(std::string const& path) {
  detail::descriptor const folder(path, O_RDONLY | O_DIRECTORY, "open folder");
  if (::fsync(folder.get()) != 0) detail::cannot("sync folder", path);
}

/// The folder that an entry is in: that of "a/b/" is "a".
inline std::string parent_of(std::string const& path) {
  auto const slash = path.find_last_of('/', path.find_last_not_of('/'));
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

/// Where a folder or file is, without links and "..". Errors (storage): there is none.
inline std::string real_path(std::string const& path) {
  std::unique_ptr<char, void (*)(void*)> const found(::realpath(path.c_str(), nullptr), std::free);
  if (found == nullptr) detail::cannot("find", path);
  return found.get();
}
/// Whether a folder, or a file, is another folder or in it. Errors (storage): one of them is not there.
[[nodiscard]] inline bool is_inside(std::string const& path, std::string const& folder) {
  auto const around = real_path(folder);
  return (real_path(path) + "/").starts_with(around == "/" ? around : around + "/");
}
/// Whether something is there. Errors (storage): that cannot be known.
[[nodiscard]] inline bool exists(std::string const& path) {
  if (::access(path.c_str(), F_OK) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) detail::cannot("inspect", path);
  return false;
}
/// Whether it is a regular file, or a link to one. Errors (storage): that cannot be known.
[[nodiscard]] inline bool is_file(std::string const& path) {
  struct stat what {};
  if (::stat(path.c_str(), &what) == 0) return S_ISREG(what.st_mode);
  if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP) detail::cannot("inspect", path);
  return false;
}

/// Replaces a file so that after any crash either the old or the new bytes are there, whole. Errors (storage): the
/// old file is as it was, and nothing is left behind; only if the folder cannot be synced are the new bytes in place
/// already, whole but not yet durable. Two threads of a process must not write one path at a time.
inline void write_file_durably(std::string const& path, std::string_view bytes) {
  detail::scratch_file fresh(path + ".tmp-" + std::to_string(::getpid()));
  {
    detail::descriptor const file(fresh.path(), O_WRONLY | O_CREAT | O_TRUNC, "create");
    while (!bytes.empty()) {
      auto const n = ::write(file.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n == 0) errno = EIO;  // no progress is no success
      if (n <= 0) detail::cannot("write", fresh.path());
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    if (::fsync(file.get()) != 0) detail::cannot("sync", fresh.path());
    if (::rename(fresh.path().c_str(), path.c_str()) != 0) detail::cannot("rename to", path);
    fresh.keep();
  }
  sync_directory(parent_of(path));
}

/// Makes a folder; one that exists already is an error (storage).
inline void make_directory(std::string const& path) {
  auto const parent = parent_of(path);
  if (::mkdir(path.c_str(), 0755) != 0) detail::cannot("make folder", path);
  try {
    sync_directory(parent);
  } catch (...) {
    ::rmdir(path.c_str());
    throw;
  }
}
/// Removes a folder and the files in it, as far as that can be done. Needs no memory.
inline void remove_directory(std::string const& path) noexcept {
  if (auto* const folder = ::opendir(path.c_str()); folder != nullptr) {
    while (auto const* e = ::readdir(folder)) ::unlinkat(::dirfd(folder), e->d_name, 0);  // neither "." nor ".."
    ::closedir(folder);
  }
  ::rmdir(path.c_str());
}

/// Makes a folder beside its place, lets fill(its path) fill it, and puts it there: whole or not at all, whatever comes
/// between. Errors (storage): something is there already, or it cannot be written; those of fill. Nothing is left then.
template <class F>
void make_whole_directory(std::string const& path, F&& fill) {
  auto const place = path.substr(0, path.find_last_not_of('/') + 1);
  auto const name = place + ".tmp-" + std::to_string(::getpid());
  auto making = name;
  for (int i = 1; exists(making); ++i) making = name + "-" + std::to_string(i);  // of one that was killed
  make_directory(making);
  auto const* at = &making;
  try {
    fill(making);
    if (::rename(making.c_str(), place.c_str()) != 0) detail::cannot("make folder", path);
    at = &place;
    sync_directory(parent_of(place));
  } catch (...) {
    remove_directory(*at);
    throw;
  }
}

/// Holds an exclusive lock on a file for as long as it lives; the lock of a dead process is no obstacle.
class file_lock {
 public:
  /// Errors (storage): it is held already, by another process or by this one.
  explicit file_lock(std::string const& path) : file_(path, O_RDWR | O_CREAT, "open") {
    int result = 0;
    do result = ::flock(file_.get(), LOCK_EX | LOCK_NB);
    while (result != 0 && errno == EINTR);
    if (result == 0) return;
    if (errno == EWOULDBLOCK) fail(errc::storage, "file", path, " is in use already");
    detail::cannot("lock", path);
  }
  /// Whether this path still leads to the file that is held.
  [[nodiscard]] bool is_at(std::string const& path) const {
    struct stat held {};
    struct stat there {};
    return ::fstat(file_.get(), &held) == 0 && ::stat(path.c_str(), &there) == 0 && held.st_dev == there.st_dev &&
           held.st_ino == there.st_ino;
  }

 private:
  detail::descriptor file_;
};

}  // namespace ouro
