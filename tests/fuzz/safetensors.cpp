// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Safetensors: any bytes are refused with an error of their kind, or hold tensors that lie in them without holes, and that
// can be written and read again.
#include <cstring>
#include <optional>
#include <string>

#include <ouro/io/safetensors.hpp>

#include "fuzz.hpp"

using ouro::safetensors_reader;
using ouro::safetensors_writer;
using ouro_fuzz::accepted;
using ouro_fuzz::hold;

namespace {

std::optional<safetensors_reader> read(std::string bytes) {
  std::optional<safetensors_reader> in;
  accepted({ouro::errc::storage}, [&] { in.emplace("input", std::move(bytes)); });
  return in;
}

std::string file(std::string header, std::string const& data) {
  std::uint64_t const length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + data;
}

/// All that can be read of it, as a file.
std::string written(safetensors_reader const& in, std::size_t size) {
  safetensors_writer out;
  std::size_t held = 0;
  for (auto const& [key, value] : in.metadata()) out.set(key, value);
  for (auto const& name : in.names()) {
    hold(in.contains(name), "what has a name is there");
    accepted({ouro::errc::storage}, [&] {
      auto const t = in.at(name);
      std::uint64_t elements = 1;
      for (auto d : t.dims) elements *= static_cast<std::uint64_t>(d);  // less than 2^63, as it must be
      hold(t.bytes.size() == elements * ouro::detail::stored_size(t.type), "a tensor has the bytes of its extents");
      std::string const copy(t.bytes);  // reads them all
      held += copy.size();
      out.add(name, t.type, t.dims, copy);
    });
  }
  hold(held <= size, "tensors lie in the file and not on each other");
  hold(!accepted({ouro::errc::storage}, [&] { static_cast<void>(in.at("no such tensor, surely")); }),
       "what has no name is not there");
  return out.str();
}

}  // namespace

std::vector<std::string> ouro_fuzz::seeds() {
  safetensors_writer all;
  all.set("format", "\"quoted\"\n");
  for (char const* type : {"F64", "F32", "BF16", "I64", "U64", "I32", "U16", "U8"})
    all.add(type, type, {2, 1}, std::string(2 * ouro::detail::stored_size(type), 'x'));
  all.add("scalar", "F32", {}, "abcd");
  all.add("none", "F64", {0, 9}, "");
  std::string const empty = R"("dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[)";
  return {
      all.str(),
      file("{}", ""),
      file(
          R"({"a":{"dtype":"F8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
          "abcd"),
      file(
          R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
          "abcd"),                                                                      // in another order
      file(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1],"data_offsets":[0,1]}})", "a"),  // more extents than a shape
      file("{\"a\":{" + empty + "0,0]},\"b\":{" + empty + "0,0]}}", ""),
      file(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", ""),
      file(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          "ab"),  // twice
      file(
          R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
          "abcd"),                                                             // overlap
      file(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "ab"),  // a hole
      std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10),
      std::string("\0\xE1\xF5\x05\0\0\0\0{}", 10)};  // 100 MB
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const in = read(std::string(reinterpret_cast<char const*>(data), size));
  if (!in) return 0;
  auto const once = written(*in, size);
  auto const again = read(once);
  hold(again && again->metadata() == in->metadata(), "what is written is read back");
  for (auto const& name : again->names()) {
    auto const a = in->at(name);
    auto const b = again->at(name);
    hold(a.type == b.type && a.dims == b.dims && a.bytes == b.bytes, "a tensor is read back as it was");
  }
  hold(written(*again, once.size()) == once, "the same is written again");
  return 0;
}
