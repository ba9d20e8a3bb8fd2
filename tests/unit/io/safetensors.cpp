// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Safetensors and JSON: what is written is read, and nothing damaged is believed.
#include <catch2/catch_test_macros.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <ouro/backend/reference.hpp>
#include <ouro/io/archive.hpp>
#include <ouro/system/state.hpp>

using R = ouro::reference;
using T = ouro::tensor<R>;
using ouro::errc;
using ouro::json;

namespace {
std::string sample() {
  ouro::safetensors_writer out;
  out.set("note", "a \"quoted\"\nline");
  ouro::store(out, "one", T::from(std::vector<float>{1, 2, 3}, {3}));
  ouro::store(out, "two", T::from(std::vector<double>{4, 5}, {1, 2}));
  ouro::store(out, "none", T::zeros({0, 4}));
  return out.str();
}
}  // namespace

TEST_CASE("what is written is read") {
  ouro::safetensors_reader const in("sample", sample());
  CHECK(in.metadata().at("note") == "a \"quoted\"\nline");
  CHECK(in.names() == std::vector<std::string>{"one", "two", "none"});
  CHECK(ouro::load<R>(in.at("one"), ouro::dtype::f64, "one").values<double>() == std::vector<double>{1, 2, 3});
  CHECK(ouro::load<R>(in.at("two"), ouro::dtype::f64, "two").dims() == ouro::shape{1, 2});
  CHECK(in.at("none").bytes.empty());
  CHECK_THROWS_AS(in.at("three"), ouro::error);
}

TEST_CASE("every truncation is refused, and every flipped header bit is refused or harmless") {
  auto const good = sample();
  for (std::size_t n = 0; n < good.size(); ++n)
    CHECK_THROWS_AS(ouro::safetensors_reader("cut", good.substr(0, n)), ouro::error);
  CHECK_THROWS_AS(ouro::safetensors_reader("long", good + "x"), ouro::error);
  for (std::size_t i = 0; i < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      auto bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      try {
        ouro::safetensors_reader const in("flipped", bad);
        std::size_t total = 0;
        for (auto const& name : in.names()) total += in.at(name).bytes.size();
        CHECK(total == 3 * 4 + 2 * 8);
      } catch (ouro::error const& e) {
        CHECK(e.code() == errc::storage);
      }
    }
}

TEST_CASE("hostile headers are refused before anything is allocated") {
  auto file = [](std::string header) {
    std::uint64_t const n = header.size();
    std::string length(8, '\0');
    std::memcpy(length.data(), &n, 8);
    return length + header + std::string(8, '\0');
  };
  for (
      auto const* header :
      {R"({"a":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
       R"({"a":{"dtype":"X9","shape":[2],"data_offsets":[0,9]}})",
       R"({"a":{"dtype":"X9","shape":[4294967296,4294967296],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"U8","shape":[0,9223372036854775807,3],"data_offsets":[0,0]},)"
       R"("b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"U8","shape":[8.0],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"U8","shape":8,"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,18446744073709551624]}})",
       R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
       R"("\u0061":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}})",
       R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
       R"({"__metadata__":{"a":1},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"U8","shape":[7],"data_offsets":[0,7]}})",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       R"({"a":{},"a":{}})",
       "[]",
       "",
       "{"})
    CHECK_THROWS_AS(ouro::safetensors_reader("hostile", file(header)), ouro::error);
  std::string huge(8, '\xFF');
  CHECK_THROWS_AS(ouro::safetensors_reader("huge", huge), ouro::error);
}

TEST_CASE("a reflected state comes back bit for bit") {
  ouro::state<R> s;
  s.mem = T::from(std::vector<double>{0.1, 0.2}, {1, 1, 2});
  s.working = s.oscillator = s.hormone = s.self = T::from(std::vector<float>{0.3F}, {1, 1, 1});
  s.clock = 41;
  s.random = ouro::random_stream(ouro::seed{5});
  static_cast<void>(s.random.next());
  ouro::safetensors_writer out;
  ouro::store_fields(out, "state.", s);
  ouro::state<R> t;
  t.thought = s.mem;
  ouro::load_fields<R>(ouro::safetensors_reader("state", out.str()), "state.", t);
  CHECK(t.mem.values<double>() == s.mem.values<double>());
  CHECK_FALSE(t.thought.has_value());
  CHECK(t.clock == 41);
  CHECK(t.random == s.random);
}

TEST_CASE("JSON is strict") {
  auto const j = json::parse(R"( {"a": [1, -2.5e3, true, null], "b": "\u00e9\ud83d\ude00\n"} )");
  CHECK(j.find("a")->items()[0].integer() == 1);
  CHECK(j.find("a")->items()[1].number() == -2500);
  CHECK(j.find("b")->text() == "\xC3\xA9\xF0\x9F\x98\x80\n");
  CHECK(json::parse(json::quote("\x01\"\\ tab\t")).text() == "\x01\"\\ tab\t");
  for (auto const* bad :
       {"", "{", "[1,]", "01", "1.", "\"\\x\"", "\"\\ud800\"", "tru", "{\"a\":1,\"a\":2}", "1 2", "\"\n\"", "nan"})
    CHECK_THROWS_AS(json::parse(bad), ouro::error);
  CHECK_THROWS_AS(json::parse(std::string(100, '[') + std::string(100, ']')), ouro::error);
}

TEST_CASE("files are replaced whole, and locks exclude") {
  auto const folder = std::filesystem::temp_directory_path() / ("ouro-io-" + std::to_string(::getpid()));
  std::filesystem::create_directory(folder);
  auto const path = (folder / "file").string();
  ouro::write_file_durably(path, "old");
  ouro::write_file_durably(path, "new");
  CHECK(ouro::read_file(path) == "new");
  CHECK_THROWS_AS(ouro::write_file_durably((folder / "no" / "file").string(), "x"), ouro::error);
  CHECK_THROWS_AS(ouro::read_file(folder.string()), ouro::error);
  {
    ouro::file_lock const lock(path);
    CHECK_THROWS_AS(ouro::file_lock(path), ouro::error);
  }
  ouro::file_lock const again(path);
  CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 1);
  std::filesystem::remove_all(folder);
}

TEST_CASE("a dtype that only others know is an error when it is asked for") {
  std::string header = R"({"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},)"
                       R"("b":{"dtype":"U8","shape":[6],"data_offsets":[2,8]}})";
  std::uint64_t const n = header.size();
  std::string length(8, '\0');
  std::memcpy(length.data(), &n, 8);
  ouro::safetensors_reader const in("foreign", length + header + "12345678");
  CHECK(in.contains("a"));
  CHECK(in.at("b").bytes == "345678");
  try {
    static_cast<void>(in.at("a"));
    FAIL("accepted");
  } catch (ouro::error const& e) {
    CHECK(e.code() == errc::storage);
    for (auto const* part : {"foreign", "'a'", "F8_E4M3"}) CHECK(std::string(e.what()).find(part) != std::string::npos);
  }
}

TEST_CASE("every dtype, order, name and extent comes back from a file") {
  ouro::safetensors_writer out;
  std::string const bytes = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL";
  std::pair<char const*, std::int64_t> const types[] = {{"F64", 8}, {"F32", 4}, {"BF16", 2}, {"I64", 8},
                                                        {"U64", 8}, {"I32", 4}, {"U16", 2},  {"U8", 1}};
  std::vector<std::string> names;
  for (auto const& [type, size] : types) {
    names.push_back(std::string("z\"\\\n\xC3\xA9 ") + type);
    out.add(names.back(), type, {2, 3}, std::string_view(bytes).substr(0, static_cast<std::size_t>(6 * size)));
  }
  names.push_back("a scalar");
  out.add("a scalar", "U16", {}, "xy");
  names.push_back("nothing");
  out.add("nothing", "F64", {std::int64_t{1} << 40, 0}, "");
  auto const path =
      (std::filesystem::temp_directory_path() / ("ouro-safetensors-" + std::to_string(::getpid()))).string();
  ouro::write_file_durably(path, out.str());
  auto const in = ouro::safetensors_reader::open(path);
  std::filesystem::remove(path);
  CHECK(in.names() == names);
  for (std::size_t i = 0; i < 8; ++i) {
    auto const t = in.at(names[i]);
    CHECK(t.type == types[i].first);
    CHECK(t.dims == std::vector<std::int64_t>{2, 3});
    CHECK(t.bytes == bytes.substr(0, static_cast<std::size_t>(6 * types[i].second)));
  }
  CHECK(in.at("a scalar").dims.empty());
  CHECK(in.at("nothing").dims == std::vector<std::int64_t>{std::int64_t{1} << 40, 0});
  std::uint64_t length = 0;
  auto const file = out.str();
  std::memcpy(&length, file.data(), 8);
  CHECK(length % 8 == 0);
}

TEST_CASE("a writer refuses what a reader would") {
  ouro::safetensors_writer out;
  out.add("a", "F32", {1}, "1234");
  auto const before = out.str();
  CHECK_THROWS_AS(out.add("a", "F32", {1}, "1234"), ouro::error);
  CHECK_THROWS_AS(out.add("__metadata__", "F32", {1}, "1234"), ouro::error);
  CHECK_THROWS_AS(out.add("b", "F32", {2}, "1234"), ouro::error);
  CHECK_THROWS_AS(out.add("b", "F16", {2}, "1234"), ouro::error);
  CHECK_THROWS_AS(out.add("b", "F32", {-1}, ""), ouro::error);
  CHECK_THROWS_AS(out.add("b", "U8", {std::int64_t{1} << 62, 8}, ""), ouro::error);
  CHECK(out.str() == before);
}

TEST_CASE("a damaged file is named") {
  auto const path = (std::filesystem::temp_directory_path() / ("ouro-damaged-" + std::to_string(::getpid()))).string();
  std::ofstream(path, std::ios::binary) << sample().substr(0, 40);
  try {
    static_cast<void>(ouro::safetensors_reader::open(path));
    FAIL("accepted");
  } catch (ouro::error const& e) {
    CHECK(e.code() == errc::storage);
    CHECK(std::string(e.what()).find(path) != std::string::npos);
  }
  std::filesystem::remove(path);
}
