// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Files: errors name them, a failed write leaves the old bytes and nothing else, locks exclude.
#include <catch2/catch_test_macros.hpp>

#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <ouro/io/file.hpp>
#include <ouro_test/folder.hpp>
#include <ouro_test/problem.hpp>

namespace {
struct folder : ouro_test::folder {
  [[nodiscard]] auto count() const { return std::distance(std::filesystem::directory_iterator(path), {}); }
};

/// A limit of the process, lowered for a scope.
struct lowered {
  decltype(RLIMIT_FSIZE) what;
  ::rlimit old{};
  lowered(decltype(RLIMIT_FSIZE) w, ::rlim_t value) : what(w) {
    ::getrlimit(what, &old);
    ::rlimit fresh = old;
    fresh.rlim_cur = value;
    ::setrlimit(what, &fresh);
  }
  lowered(lowered const&) = delete;
  lowered& operator=(lowered const&) = delete;
  ~lowered() { ::setrlimit(what, &old); }
};

std::string problem(auto const& f) { return ouro_test::problem(ouro::errc::storage, f); }
bool names(std::string const& message, std::string const& path) { return message.find(path) != std::string::npos; }
}  // namespace

TEST_CASE("file: what is written is read, whole") {
  folder f;
  for (std::size_t n : {0U, 1U, 4096U, 3000000U}) {
    std::string bytes(n, '\0');
    for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<char>(i * 31 % 256);
    ouro::write_file_durably(f.at("x"), bytes);
    CHECK(ouro::read_file(f.at("x")) == bytes);
    CHECK(f.count() == 1);
  }
}

TEST_CASE("file: a write that fails in the middle leaves the old file and nothing else") {
  folder f;
  ouro::write_file_durably(f.at("x"), "old");
  auto const before = std::signal(SIGXFSZ, SIG_IGN);
  std::string message;
  {
    lowered const limit(RLIMIT_FSIZE, 4096);  // the first write is short, the second fails
    message = problem([&] { ouro::write_file_durably(f.at("x"), std::string(10000, 'n')); });
  }
  static_cast<void>(std::signal(SIGXFSZ, before));
  CHECK(names(message, f.at("x")));
  CHECK(ouro::read_file(f.at("x")) == "old");
  CHECK(f.count() == 1);
}

TEST_CASE("file: no descriptors left is an error that names the file") {
  folder f;
  ouro::write_file_durably(f.at("x"), "old");
  std::string read;
  std::string write;
  std::string lock;
  {
    lowered const limit(RLIMIT_NOFILE, 0);
    read = problem([&] { static_cast<void>(ouro::read_file(f.at("x"))); });
    write = problem([&] { ouro::write_file_durably(f.at("x"), "new"); });
    lock = problem([&] { ouro::file_lock const l(f.at("x")); });
  }
  CHECK(names(read, f.at("x")));
  CHECK(names(write, f.at("x")));
  CHECK(names(lock, f.at("x")));
  CHECK(ouro::read_file(f.at("x")) == "old");
  CHECK(f.count() == 1);
}

TEST_CASE("file: what cannot be read or replaced is named, and nothing hangs") {
  folder f;
  CHECK(names(problem([&] { static_cast<void>(ouro::read_file(f.at("none"))); }), f.at("none")));
  CHECK(names(problem([&] { static_cast<void>(ouro::read_file(f.path.string())); }), f.path.string()));
  CHECK(names(problem([&] { static_cast<void>(ouro::read_file("/dev/zero")); }), "/dev/zero"));
  REQUIRE(::mkfifo(f.at("pipe").c_str(), 0600) == 0);
  CHECK(names(problem([&] { static_cast<void>(ouro::read_file(f.at("pipe"))); }), f.at("pipe")));
  ouro::make_directory(f.at("sub"));
  CHECK(names(problem([&] { ouro::make_directory(f.at("sub")); }), f.at("sub")));
  CHECK(names(problem([&] { ouro::write_file_durably(f.at("sub"), "x"); }), f.at("sub")));  // rename fails
  CHECK(names(problem([&] { ouro::write_file_durably(f.at("no/x"), "x"); }), f.at("no/x")));
  CHECK(names(problem([&] { ouro::sync_directory(f.at("no")); }), f.at("no")));
  CHECK(f.count() == 2);
}

TEST_CASE("file: a lock excludes other processes and dies with its holder") {
  folder f;
  auto const path = f.at("LOCK");
  auto locks = [&] { return problem([&] { ouro::file_lock const l(path); }); };
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  auto const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::close(ready[0]);
    ouro::file_lock const held(path);
    static_cast<void>(!::write(ready[1], "x", 1));
    for (;;) ::pause();
  }
  ::close(ready[1]);
  char c = 0;
  REQUIRE(::read(ready[0], &c, 1) == 1);
  ::close(ready[0]);
  CHECK(names(locks(), path + " is in use already"));
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(locks().empty());
  ouro::file_lock first(path);
  ouro::file_lock const moved(std::move(first));
  CHECK_FALSE(locks().empty());
}

TEST_CASE("file: the folder that an entry is in") {
  CHECK(ouro::parent_of("a") == ".");
  CHECK(ouro::parent_of("a/") == ".");
  CHECK(ouro::parent_of("a/b") == "a");
  CHECK(ouro::parent_of("a/b//") == "a");
  CHECK(ouro::parent_of("/a/") == "/");
  CHECK(ouro::parent_of("/") == "/");
}

TEST_CASE("file: why a call failed is known") {
  folder const f;
  try {
    static_cast<void>(ouro::read_file(f.at("none")));
    FAIL("read");
  } catch (ouro::file_error const& e) {
    CHECK(e.code() == ouro::errc::storage);
    CHECK(e.number() == ENOENT);
  }
}

TEST_CASE("file: read from a position on, by slices and by lines") {
  folder const f;
  std::string const long_line(100000, 'x');
  std::string const text = "one\n\n" + long_line + "\nno end";
  std::ofstream(f.at("text")) << text;
  auto lines_of = [&](std::size_t most) {
    std::vector<std::string> lines;
    ouro::file_reader reader(f.at("text"), 0);
    std::int64_t position = 0;
    for (auto l = reader.line(most); !l.empty(); l = reader.line(most)) {
      lines.push_back(l);
      position = static_cast<std::int64_t>(text.find('\n', static_cast<std::size_t>(position))) + 1;
      if (position == 0) position = static_cast<std::int64_t>(text.size());
      CHECK(reader.position() == position);
    }
    return lines;
  };
  CHECK(lines_of(long_line.size() + 1) == std::vector<std::string>{"one\n", "\n", long_line + "\n", "no end"});
  CHECK(lines_of(long_line.size()) == std::vector<std::string>{"one\n", "\n", long_line, "no end"});
  CHECK(lines_of(2) == std::vector<std::string>{"on", "\n", "xx", "no"});
  std::string joined;
  ouro::file_reader by_slice(f.at("text"), 5);
  for (auto s = by_slice.slice(); !s.empty(); s = by_slice.slice()) joined += s;
  CHECK(joined == text.substr(5));
  CHECK_THROWS_AS(ouro::file_reader(f.at("absent"), 0), ouro::error);
}

TEST_CASE("file: a folder is removed with its files, and stays if it holds others") {
  folder const f;
  auto const path = f.at("some");
  ouro::make_directory(path);
  CHECK_THROWS_AS(ouro::make_directory(path), ouro::error);
  for (int i = 0; i < 100; ++i) std::ofstream(path + "/" + std::to_string(i)) << i;
  ouro::remove_directory(path);
  CHECK_FALSE(ouro::exists(path));
  ouro::make_directory(path);
  ouro::make_directory(path + "/inner");
  ouro::remove_directory(path);
  CHECK(ouro::exists(path + "/inner"));
  ouro::remove_directory(f.at("absent"));
}

TEST_CASE("file: a folder that is made whole comes to its place with all that is in it, or not at all") {
  folder f;
  auto fill = [&](std::string const& making) {
    CHECK_FALSE(ouro::exists(f.at("new")));
    ouro::write_file_durably(making + "/x", "all");
  };
  ouro::make_whole_directory(f.at("new") + "/", fill);
  CHECK(ouro::read_file(f.at("new/x")) == "all");
  CHECK(f.count() == 1);
  CHECK(names(problem([&] { ouro::make_whole_directory(f.at("new"), [](auto const&) {}); }), f.at("new")));
  CHECK_THROWS_AS(ouro::make_whole_directory(f.at("other"), [](auto const&) { throw 1; }), int);
  CHECK(f.count() == 1);
  ouro::make_directory(f.at("other") + ".tmp-" +
                       std::to_string(::getpid()));  // left by a killed process of this number
  ouro::make_whole_directory(f.at("other"), [](auto const&) {});
  CHECK(f.count() == 3);
}

TEST_CASE("file: the names in a folder") {
  folder const f;
  CHECK(ouro::entries_of(f.path.string()).empty());
  std::ofstream(f.at("a")) << "a";
  std::filesystem::create_directory(f.path / ".b");
  auto names = ouro::entries_of(f.path.string());
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{".b", "a"});
  CHECK_THROWS_AS(ouro::entries_of(f.at("absent")), ouro::error);
}
