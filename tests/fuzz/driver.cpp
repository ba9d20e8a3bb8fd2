// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Runs a fuzzer without libFuzzer: its seeds, and inputs made from them, the same ones each time.
//
//   fuzz_NAME [RUNS]          all seeds, then so many more inputs; 2000 by default
//   fuzz_NAME --seeds FOLDER  writes the seeds as files, for libFuzzer
//   fuzz_NAME FILE...         runs these inputs, as one that was found
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz.hpp"

namespace {

std::string current;  ///< the input that is running

void run(std::string input) {
  current = std::move(input);
  // A copy without room behind it: what reads past the end is seen by a sanitizer.
  std::vector<std::uint8_t> const bytes(current.begin(), current.end());
  static_cast<void>(LLVMFuzzerTestOneInput(bytes.data(), bytes.size()));
}
extern "C" void found(int) {
  char const* const path = "fuzz-finding";
  std::ofstream(path, std::ios::binary) << current;
  std::fprintf(stderr, "the input is in the file %s\n", path);
}

std::string read(char const* path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) std::fprintf(stderr, "cannot read %s\n", path), std::exit(2);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Makes inputs from others.
class mutator {
 public:
  explicit mutator(std::vector<std::string> seeds) : seeds_(std::move(seeds)) {}

  std::string next() {
    auto text = seeds_[below(seeds_.size())];
    for (auto changes = 1 + below(4); changes > 0; --changes) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t end) { return end == 0 ? 0 : static_cast<std::size_t>(draw_() % end); }
  char any() { return static_cast<char>(static_cast<unsigned char>(below(256))); }

  void change(std::string& text) {
    static std::string const tokens[] = {"\"",
                                         "\\",
                                         "{",
                                         "}",
                                         "[",
                                         "]",
                                         ":",
                                         ",",
                                         "\n",
                                         "\r\n",
                                         "\xEF\xBB\xBF",
                                         "-1",
                                         "0",
                                         "1e999",
                                         "-0.0",
                                         "1e-9",
                                         "null",
                                         "true",
                                         "\\u0000",
                                         " ",
                                         "\\ud800",
                                         "\\udbff\\udfff",
                                         "F32",
                                         "BF16",
                                         "[0,0]",
                                         "*1024",
                                         "rwkv7",
                                         "\xF0\x9F",
                                         "\xC0",
                                         "\xED\xA0",
                                         "\"\"",
                                         "4294967296",
                                         "9223372036854775807",
                                         "9223372036854775808",
                                         "18446744073709551616",
                                         "\"dtype\":",
                                         "\"text\":",
                                         std::string(1, '\0'),
                                         std::string(8, '\xFF')};
    auto const at = below(text.size() + 1);
    auto const length = below(std::min<std::size_t>(text.size() - at, 64) + 1);
    auto const& other = seeds_[below(seeds_.size())];
    switch (below(8)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < text.size()) text[at] = any();
        break;
      case 2: text.insert(at, 1 + below(4), any()); break;
      case 3: text.erase(at, length); break;
      case 4: text.insert(below(text.size() + 1), text.substr(at, length)); break;
      case 5: text = text.substr(0, at) + other.substr(below(other.size())); break;
      case 6: text.insert(at, tokens[below(std::size(tokens))]); break;
      default: text.replace(at, std::min<std::size_t>(length, 8), tokens[below(std::size(tokens))]);
    }
  }

  std::vector<std::string> seeds_;
  std::mt19937_64 draw_;  // NOLINT: the same inputs each time
};

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> const given(arguments + 1, arguments + count);
  auto const seeds = ouro_fuzz::seeds();
  if (given.size() == 2 && given[0] == "--seeds") {
    for (std::size_t i = 0; i < seeds.size(); ++i)
      std::ofstream(given[1] + "/seed-" + std::to_string(i), std::ios::binary) << seeds[i];
    return 0;
  }
  bool const number = given.size() == 1 && given[0].find_first_not_of("0123456789") == std::string::npos;
  if (!given.empty() && !number) {
    for (auto const& path : given) run(read(path.c_str()));
    std::printf("%zu inputs, nothing found\n", given.size());
    return 0;
  }
  static_cast<void>(std::signal(SIGABRT, found));
  auto const runs = number ? std::stoull(given[0]) : 2000;
  for (auto const& seed : seeds) run(seed);
  mutator mutated(seeds);
  for (std::size_t i = 0; i < runs; ++i) run(mutated.next());
  std::printf("%zu seeds and %llu inputs made from them, nothing found\n", seeds.size(), runs + 0ULL);
  return 0;
}
