// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A place for a test's files.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace ouro_test {

/// An empty folder of this process, gone at the end. A test has one at a time.
struct folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("ouro-test-" + std::to_string(::getpid()));

  folder() { std::filesystem::remove_all(path), std::filesystem::create_directory(path); }
  folder(folder const&) = delete;
  folder& operator=(folder const&) = delete;
  ~folder() { std::filesystem::remove_all(path); }

  [[nodiscard]] std::string at(std::string const& name) const { return (path / name).string(); }
};

}  // namespace ouro_test
