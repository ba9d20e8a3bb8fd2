// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The safetensors container: eight bytes of header length, a JSON header, and the tensors' bytes. Everything is checked
// before it is believed.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/io/file.hpp>
#include <ouro/io/json.hpp>
#include <ouro/tensor/shape.hpp>

namespace ouro {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and so must the machine be");

namespace detail {
/// Bytes of one element of a dtype that this library reads and writes; 0 for any other.
constexpr std::uint64_t stored_size(std::string_view type) {
  if (type == "F64" || type == "I64" || type == "U64") return 8;
  if (type == "F32" || type == "I32") return 4;
  if (type == "BF16" || type == "U16") return 2;
  return type == "U8" ? 1 : 0;
}
/// a·b, or the largest value where that does not fit.
constexpr std::uint64_t product(std::uint64_t a, std::uint64_t b) {
  constexpr auto most = std::numeric_limits<std::uint64_t>::max();
  return b != 0 && a > most / b ? most : a * b;
}
}  // namespace detail

/// One stored tensor: a dtype of the format ("F64", "F32", "BF16", "I64", "U64", "I32", "U16", "U8"), its extents, and
/// its little-endian bytes.
struct stored_tensor {
  std::string type;
  std::vector<std::int64_t> dims;
  std::string_view bytes;
};

class safetensors_reader {
 public:
  /// Reads a file. Errors (storage): path, offset and expectation.
  static safetensors_reader open(std::string const& path) { return {path, read_file(path)}; }

  /// `name` stands for the bytes in messages.
  safetensors_reader(std::string name, std::string bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {
    check(bytes_.size() >= 8, 0, "8 bytes of header length");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), 8);
    check(length <= most_header && length <= bytes_.size() - 8, 0, "a header length inside the file");
    std::uint64_t const room = bytes_.size() - 8 - length;
    json header;
    try {
      header = json::parse(std::string_view(bytes_).substr(8, static_cast<std::size_t>(length)));
    } catch (error const& e) {
      fail(errc::storage, "safetensors", name_, ": header at byte 8: ", e.what());
    }
    check(header.is(json::kind::object), 8, "an object as header");
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
    for (std::size_t i = 0; i < header.keys().size(); ++i) {
      auto const& key = header.keys()[i];
      auto const& value = header.items()[i];
      if (key == "__metadata__") {
        check(value.is(json::kind::object), 8, "an object as __metadata__");
        for (std::size_t j = 0; j < value.keys().size(); ++j) {
          check(value.items()[j].is(json::kind::string), 8, "strings in __metadata__");
          metadata_[value.keys()[j]] = value.items()[j].text();
        }
        continue;
      }
      ranges.push_back(describe(key, value, room, 8 + length));
    }
    std::sort(ranges.begin(), ranges.end());
    std::uint64_t end = 0;
    for (auto const& [from, to] : ranges) {
      check(from == end, 8 + length + end, "tensors without holes or overlaps");
      end = to;
    }
    check(end == room, 8 + length + end, "the end of the file after the last tensor");
  }

  [[nodiscard]] std::map<std::string, std::string> const& metadata() const { return metadata_; }
  [[nodiscard]] std::vector<std::string> const& names() const { return names_; }
  [[nodiscard]] bool contains(std::string const& name) const { return tensors_.count(name) != 0; }
  /// Errors (storage): there is no such tensor, its dtype is none of those of `stored_tensor`, or it has more extents than
  /// a shape. The bytes live as long as the reader stays where it is.
  [[nodiscard]] stored_tensor at(std::string const& name) const {
    auto const found = tensors_.find(name);
    require(found != tensors_.end(), errc::storage, "safetensors", name_, ": no tensor '", name, "'");
    auto const& e = found->second;
    require(detail::stored_size(e.type) != 0, errc::storage, "safetensors", name_, ": tensor '", name, "' at byte ",
            e.start, ": expected dtype F64, F32, BF16, I64, U64, I32, U16 or U8, got ", e.type);
    require(e.dims.size() <= static_cast<std::size_t>(max_rank), errc::storage, "safetensors", name_, ": tensor '",
            name, "' at byte ", e.start, ": expected at most ", max_rank, " extents, got ", e.dims.size());
    return {e.type, e.dims, std::string_view(bytes_).substr(e.start, e.size)};
  }

 private:
  static constexpr std::uint64_t most_header = 100'000'000;
  struct entry {
    std::string type;
    std::vector<std::int64_t> dims;
    std::size_t start;
    std::size_t size;
  };

  void check(bool ok, std::uint64_t offset, char const* what) const {
    require(ok, errc::storage, "safetensors", name_, ": at byte ", offset, " expected ", what);
  }

  std::pair<std::uint64_t, std::uint64_t> describe(std::string const& key, json const& value, std::uint64_t room,
                                                   std::uint64_t data) {
    auto const* type = value.find("dtype");
    auto const* dims = value.find("shape");
    auto const* range = value.find("data_offsets");
    check(type != nullptr && type->is(json::kind::string) && dims != nullptr && dims->is(json::kind::array) &&
              range != nullptr && range->is(json::kind::array) && range->items().size() == 2,
          8, "dtype, shape and data_offsets of each tensor");
    entry e{type->text(), {}, 0, 0};
    // A dtype that only others know is an error when it is asked for; how many bytes it takes is theirs to say.
    auto const element = detail::stored_size(e.type);
    try {
      std::uint64_t size = element;
      for (auto const& d : dims->items()) {
        auto const n = d.integer();
        check(n >= 0, 8, "extents that are not negative");
        size = detail::product(size, static_cast<std::uint64_t>(n));
        e.dims.push_back(n);
      }
      std::uint64_t nonzero = 1;  // the product that counts for overflow: a zero may come after huge extents
      for (auto n : e.dims) nonzero = detail::product(nonzero, n == 0 ? 1 : static_cast<std::uint64_t>(n));
      check(nonzero <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()), 8,
            "a shape without overflow");
      auto const from = range->items()[0].integer();
      auto const to = range->items()[1].integer();
      check(0 <= from && from <= to && static_cast<std::uint64_t>(to) <= room, 8, "data_offsets inside the file");
      auto const held = static_cast<std::uint64_t>(to - from);
      check(element == 0 || held == size, 8, "data_offsets that match dtype and shape");
      e.start = static_cast<std::size_t>(data) + static_cast<std::size_t>(from);
      e.size = static_cast<std::size_t>(held);
      tensors_[key] = e;
      names_.push_back(key);
      return {static_cast<std::uint64_t>(from), static_cast<std::uint64_t>(to)};
    } catch (error const& problem) {
      fail(errc::storage, "safetensors", name_, ": tensor '", key, "': ", problem.what());
    }
  }

  std::string name_;
  std::string bytes_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, entry> tensors_;
  std::vector<std::string> names_;
};

/// Collects tensors and gives the bytes of a file that holds them, in the order they were added.
class safetensors_writer {
 public:
  /// A line of `__metadata__`; the last value of a key counts.
  void set(std::string const& key, std::string const& value) { metadata_[key] = value; }
  /// Copies the little-endian bytes of a tensor. Errors (argument): a name that is taken, an unknown dtype, or bytes
  /// that are not those of the extents; nothing is added.
  void add(std::string const& name, std::string const& type, std::vector<std::int64_t> const& dims,
           std::string_view bytes) {
    std::uint64_t size = detail::stored_size(type);
    require(size != 0, errc::argument, "safetensors", "'", name, "': unknown dtype ", type);
    for (auto d : dims) {
      require(d >= 0, errc::argument, "safetensors", "'", name, "': extents must not be negative, got ", d);
      size = detail::product(size, static_cast<std::uint64_t>(d));
    }
    require(size == bytes.size(), errc::argument, "safetensors", "'", name, "' needs ", size, " bytes, got ",
            bytes.size());
    require(name != "__metadata__" && names_.insert(name).second, errc::argument, "safetensors", "'", name,
            "' is taken");
    std::string extents;
    for (auto d : dims) extents += (extents.empty() ? "" : ",") + std::to_string(d);
    header_ += "," + json::quote(name) + ":{\"dtype\":" + json::quote(type) + ",\"shape\":[" + extents +
               "],\"data_offsets\":[" + std::to_string(data_.size()) + "," +
               std::to_string(data_.size() + bytes.size()) + "]}";
    data_ += bytes;
  }
  [[nodiscard]] std::string str() const {
    std::string header = "{\"__metadata__\":{";
    char const* comma = "";
    for (auto const& [key, value] : metadata_) {
      header += comma + json::quote(key) + ":" + json::quote(value);
      comma = ",";
    }
    header += "}" + header_ + "}";
    while (header.size() % 8 != 0) header += ' ';
    std::uint64_t const length = header.size();
    std::string out(8, '\0');
    std::memcpy(out.data(), &length, 8);
    return out + header + data_;
  }

 private:
  std::map<std::string, std::string> metadata_;
  std::set<std::string> names_;
  std::string header_;
  std::string data_;
};

}  // namespace ouro
