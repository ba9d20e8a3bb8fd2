// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
#include "disk.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

// The names are the linker's, NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {
int __real_access(char const*, int);
int __real_close(int);
int __real_flock(int, int);
int __real_fstat(int, struct stat*);
int __real_fsync(int);
off_t __real_lseek(int, off_t, int);
int __real_mkdir(char const*, mode_t);
int __real_open(char const*, int, mode_t);
DIR* __real_opendir(char const*);
ssize_t __real_read(int, void*, size_t);
struct dirent* __real_readdir(DIR*);
char* __real_realpath(char const*, char*);
int __real_rename(char const*, char const*);
int __real_rmdir(char const*);
int __real_stat(char const*, struct stat*);
int __real_unlink(char const*);
int __real_unlinkat(int, char const*, int);
ssize_t __real_write(int, void const*, size_t);
}

namespace disk {
namespace {

// --- faults ---

struct {
  long left = 0;  ///< calls until one fails; 0: none will
  int number = 0;
  bool happened = false;
  char const* which = "";
  int unsynced = -1;  ///< the descriptor whose sync failed
  bool synced_again = false;
} plan;

/// Whether this call is the one.
bool fails(char const* which) {
  if (plan.left == 0 || --plan.left > 0) return false;
  plan.happened = true;
  plan.which = which;
  errno = plan.number;
  return plan.number != 0;
}

// --- what is written down ---

constexpr std::size_t none = static_cast<std::size_t>(-1);

struct entry {
  std::size_t folder;
  std::string name;
  std::size_t node;  ///< none: it is no more
};
struct change {
  enum class kind { entries, write, cut, sync, mark } what;
  std::size_t node = none;  ///< that is written to, cut or synced
  std::string bytes;
  std::vector<entry> entries;
  int acknowledged = 0;
};
/// A folder has entries, a file bytes.
struct node {
  bool folder = false;
  std::string bytes;
  std::map<std::string, std::size_t> entries;
};
struct record {
  std::string root;
  std::vector<node> before{{true, {}, {}}};  ///< as it was, the folder first
  std::vector<node> now;
  std::vector<change> changes;
  std::map<int, std::size_t> open;  ///< nodes by descriptors
};
record* active = nullptr;

std::size_t found(std::vector<node> const& nodes, std::size_t folder, std::string const& name) {
  auto const at = nodes[folder].entries.find(name);
  return at == nodes[folder].entries.end() ? none : at->second;
}
/// The folder and the name of a path; none if it is not in what is written down.
std::pair<std::size_t, std::string> place(std::string_view path) {
  if (active == nullptr || !path.starts_with(active->root)) return {none, ""};
  path.remove_prefix(active->root.size());
  std::size_t folder = none;
  std::string name;  // of what is in `folder`; the root has none
  while (!path.empty()) {
    auto const start = path.find_first_not_of('/');
    if (start == std::string_view::npos) break;
    auto const end = std::min(path.find('/', start), path.size());
    folder = folder == none ? 0 : found(active->now, folder, name);
    if (folder == none) return {none, ""};
    name = path.substr(start, end - start);
    path.remove_prefix(end);
  }
  return {folder, name};
}
/// The node at a path, or none.
std::size_t node_at(std::string const& path) {
  auto const [folder, name] = place(path);
  if (folder != none) return found(active->now, folder, name);
  return active != nullptr && path == active->root ? 0 : none;
}
void change_entries(std::vector<node>& nodes, change const& c) {
  for (auto const& e : c.entries)
    if (e.node == none) nodes[e.folder].entries.erase(e.name);
    else nodes[e.folder].entries[e.name] = e.node;
}
void note(change c) {
  change_entries(active->now, c);
  active->changes.push_back(std::move(c));
}
std::size_t made(bool folder) {
  active->before.push_back({folder, {}, {}});
  active->now.push_back({folder, {}, {}});
  return active->now.size() - 1;
}
void opened(int fd, std::string const& path, int flags, bool was_there) {
  active->open.erase(fd);  // of a folder that was closed
  auto const [folder, name] = place(path);
  auto at = node_at(path);
  if (at == none && folder == none) return;
  if (!was_there) {
    at = made(false);
    note({change::kind::entries, none, {}, {{folder, name, at}}, 0});
  } else if ((flags & O_TRUNC) != 0) {
    note({change::kind::cut, at, {}, {}, 0});
  }
  active->open[fd] = at;
}
std::size_t node_of(int fd) {
  if (active == nullptr) return none;
  auto const at = active->open.find(fd);
  return at == active->open.end() ? none : at->second;
}
void removed(std::size_t folder, std::string_view name) {
  if (folder != none) note({change::kind::entries, none, {}, {{folder, std::string(name), none}}, 0});
}

// --- what is left ---

contents_ptr kept(std::string bytes) {
  auto const hash = std::hash<std::string>()(bytes);
  return std::make_shared<contents const>(contents{std::move(bytes), hash});
}
void list(std::vector<node> const& nodes, std::vector<contents_ptr> const& bytes, std::size_t folder,
          std::string const& prefix, remains& r) {
  for (auto const& [name, at] : nodes[folder].entries) {
    if (!nodes[at].folder) {
      r.files[prefix + name] = bytes[at];
    } else {
      r.folders.push_back(prefix + name);
      list(nodes, bytes, at, prefix + name + "/", r);
    }
  }
}
std::string name_of(remains const& r) {
  auto text = std::to_string(r.acknowledged);
  for (auto const& f : r.folders) text += "|" + f;
  for (auto const& [path, c] : r.files) text += "|" + path + " " + std::to_string(c->hash);
  return text;
}
void read(record& r, std::string const& path, std::size_t folder) {
  for (auto const& e : std::filesystem::directory_iterator(path)) {
    auto const name = e.path().filename().string();
    r.before.push_back({e.is_directory(), {}, {}});
    auto const at = r.before.size() - 1;
    r.before[folder].entries[name] = at;
    if (e.is_directory()) {
      read(r, e.path().string(), at);
    } else {
      std::ifstream in(e.path(), std::ios::binary);
      r.before[at].bytes.assign(std::istreambuf_iterator<char>(in), {});
    }
  }
}

/// What a file may hold: what is durable, and more or less of the rest.
struct versions {
  std::size_t file;
  std::vector<contents_ptr> all;
};
versions versions_of(std::size_t file, std::string const& durable, std::string const& whole) {
  versions v{file, {kept(durable), kept(whole), kept(std::string(whole.size(), '\0'))}};
  for (std::size_t n : {0U, 1U, 512U, 4096U})
    if (n < whole.size()) v.all.push_back(kept(whole.substr(0, n)));
  return v;
}

}  // namespace

fault::fault(long n, int number) {
  plan = {};
  plan.left = n;
  plan.number = number;
}
fault::~fault() { plan = {}; }
bool fault::happened() const { return plan.happened; }
char const* fault::failed() const { return plan.which; }
bool fault::synced_again() const { return plan.synced_again; }

void remains::write_to(std::string const& folder) const {
  for (auto const& f : folders) std::filesystem::create_directory(folder + "/" + f);
  for (auto const& [path, c] : files) std::ofstream(folder + "/" + path, std::ios::binary) << c->bytes;
}

recorder::recorder(std::string const& folder) {
  if (active != nullptr) throw std::logic_error("one recorder at a time");
  auto r = std::make_unique<record>();
  r->root = folder;
  read(*r, folder, 0);
  r->now = r->before;
  active = r.release();
}
recorder::~recorder() { delete std::exchange(active, nullptr); }
void recorder::mark(int acknowledged) { note({change::kind::mark, none, {}, {}, acknowledged}); }

std::size_t recorder::for_each_crash(std::function<void(remains const&)> const& f) {
  std::unique_ptr<record const> const r(std::exchange(active, nullptr));
  std::set<std::string> seen;
  auto durable = r->before;  // entries and bytes
  std::vector<contents_ptr> bytes;
  for (auto const& n : durable) bytes.push_back(kept(n.bytes));
  std::vector<change const*> pending;        // changes of entries, in their order
  std::map<std::size_t, std::string> whole;  // of files with bytes that are not durable
  int acknowledged = 0;

  auto crash = [&] {
    std::vector<versions> files;
    for (auto const& [file, all] : whole) files.push_back(versions_of(file, durable[file].bytes, all));
    if (pending.size() > 12) throw std::logic_error("too many changes that are not durable");
    for (std::size_t subset = 0; subset < std::size_t{1} << pending.size(); ++subset) {
      auto nodes = durable;
      for (std::size_t i = 0; i < pending.size(); ++i)
        if ((subset >> i & 1U) != 0) change_entries(nodes, *pending[i]);
      std::vector<std::size_t> choice(files.size(), 0);
      for (bool more = true; more;) {
        auto held = bytes;
        for (std::size_t i = 0; i < files.size(); ++i) held[files[i].file] = files[i].all[choice[i]];
        remains left;
        left.acknowledged = acknowledged;
        list(nodes, held, 0, "", left);
        if (seen.insert(name_of(left)).second) f(left);
        more = false;
        for (std::size_t i = 0; i < files.size() && !more; ++i) {
          more = ++choice[i] < files[i].all.size();
          if (!more) choice[i] = 0;
        }
      }
    }
  };

  crash();
  for (auto const& c : r->changes) {
    switch (c.what) {
      case change::kind::entries: pending.push_back(&c); break;
      case change::kind::write:
      case change::kind::cut: {
        auto& all = whole.try_emplace(c.node, durable[c.node].bytes).first->second;
        all = c.what == change::kind::cut ? std::string() : all + c.bytes;
        break;
      }
      case change::kind::sync:
        if (durable[c.node].folder) {
          auto const synced = [&](change const* p) {
            bool const all =
                std::all_of(p->entries.begin(), p->entries.end(), [&](auto const& e) { return e.folder == c.node; });
            if (all) change_entries(durable, *p);
            return all;
          };
          std::erase_if(pending, synced);
        } else if (auto const at = whole.find(c.node); at != whole.end()) {
          durable[c.node].bytes = at->second;
          bytes[c.node] = kept(at->second);
          whole.erase(at);
        }
        break;
      case change::kind::mark: acknowledged = c.acknowledged; break;
    }
    crash();
  }
  return seen.size();
}

}  // namespace disk

using namespace disk;  // what follows is it, seen by the linker

extern "C" {
int __wrap_access(char const* path, int how) { return fails("access") ? -1 : __real_access(path, how); }
int __wrap_close(int fd) {
  if (active != nullptr) active->open.erase(fd);
  if (fd == plan.unsynced) plan.unsynced = -1;
  return __real_close(fd);
}
int __wrap_flock(int fd, int how) { return fails("flock") ? -1 : __real_flock(fd, how); }
int __wrap_fstat(int fd, struct stat* to) { return fails("fstat") ? -1 : __real_fstat(fd, to); }
int __wrap_fsync(int fd) {
  plan.synced_again = plan.synced_again || fd == plan.unsynced;
  if (fails("fsync")) {
    plan.unsynced = fd;
    return -1;
  }
  if (auto const at = node_of(fd); at != none) note({change::kind::sync, at, {}, {}, 0});
  return 0;  // nothing here needs to outlive this machine
}
off_t __wrap_lseek(int fd, off_t to, int from) { return fails("lseek") ? -1 : __real_lseek(fd, to, from); }
int __wrap_mkdir(char const* path, mode_t mode) {
  if (fails("mkdir")) return -1;
  int const result = __real_mkdir(path, mode);
  if (auto const [folder, name] = place(path); result == 0 && folder != none)
    note({change::kind::entries, none, {}, {{folder, name, made(true)}}, 0});
  return result;
}
int __wrap_open(char const* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t const mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (fails("open")) return -1;
  bool const was_there = __real_access(path, F_OK) == 0;
  int const fd = __real_open(path, flags, mode);
  if (fd >= 0 && active != nullptr) opened(fd, path, flags, was_there);
  return fd;
}
DIR* __wrap_opendir(char const* path) {
  if (fails("opendir")) return nullptr;
  DIR* const d = __real_opendir(path);
  if (d != nullptr && active != nullptr) active->open[::dirfd(d)] = node_at(path);
  return d;
}
ssize_t __wrap_read(int fd, void* to, size_t count) { return fails("read") ? -1 : __real_read(fd, to, count); }
struct dirent* __wrap_readdir(DIR* d) {
  return fails("readdir") ? nullptr : __real_readdir(d);
}
char* __wrap_realpath(char const* path, char* to) { return fails("realpath") ? nullptr : __real_realpath(path, to); }
int __wrap_rename(char const* from, char const* to) {
  if (fails("rename")) return -1;
  int const result = __real_rename(from, to);
  auto const [folder, name] = place(from);
  auto const [other, fresh] = place(to);
  if (result == 0 && folder != none && other != none)
    note(
        {change::kind::entries, none, {}, {{folder, name, none}, {other, fresh, found(active->now, folder, name)}}, 0});
  return result;
}
int __wrap_rmdir(char const* path) {
  int const result = __real_rmdir(path);
  if (auto const [folder, name] = place(path); result == 0) removed(folder, name);
  return result;
}
int __wrap_stat(char const* path, struct stat* to) { return fails("stat") ? -1 : __real_stat(path, to); }
int __wrap_unlink(char const* path) {
  int const result = __real_unlink(path);
  if (auto const [folder, name] = place(path); result == 0) removed(folder, name);
  return result;
}
int __wrap_unlinkat(int at, char const* name, int flags) {
  int const result = __real_unlinkat(at, name, flags);
  if (result == 0) removed(node_of(at), name);
  return result;
}
ssize_t __wrap_write(int fd, void const* from, size_t count) {
  bool const whole = plan.left != 1 || plan.number != 0;
  if (fails("write")) return -1;
  auto const n = __real_write(fd, from, whole ? count : (count + 1) / 2);
  if (auto const at = node_of(fd); at != none && n > 0)
    note({change::kind::write, at, {static_cast<char const*>(from), static_cast<std::size_t>(n)}, {}, 0});
  return n;
}
}
// NOLINTEND(bugprone-reserved-identifier)
