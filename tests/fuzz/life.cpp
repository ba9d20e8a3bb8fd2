// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life of three generations whose files were edited in any way is one of the three, bit for bit, or refused; nothing of it is
// deleted, and it can be kept again. Where the hashes are made right again, what is behind them is reached: then it is refused with
// an error of its kind, or lives.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/backend/reference.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/life/life.hpp>
#include <ouro_test/folder.hpp>
#include <ouro_test/small_gridman.hpp>

#include "fuzz.hpp"

namespace {

using ouro::errc;
using ouro::safetensors_reader;
using ouro::safetensors_writer;
using ouro_fuzz::accepted;
using ouro_fuzz::hold;
using life = ouro::life<ouro::reference>;
using files = std::map<std::string, std::string>;

/// All that a life is, bit for bit.
std::string image(life const& l) {
  safetensors_writer out;
  ouro::store_module(out, l.model);
  ouro::store_fields(out, "state.", l.state);
  ouro::store_fields(out, "progress.", l.progress);
  for (std::size_t i = 0; i < l.memory.size(); ++i) {
    auto const& m = l.memory[i];
    out.set(std::to_string(i), std::to_string(m.steps));
    if (!m.first) continue;
    ouro::store(out, "first." + std::to_string(i), m.first);
    ouro::store(out, "second." + std::to_string(i), m.second);
  }
  return out.str();
}

struct home {
  ouro_test::folder around;
  std::string path = around.at("life");
  std::vector<std::string> images;  ///< of the generations
  files kept;
  std::vector<std::string> snapshots;  ///< the names of their files
  std::vector<std::string> weights;

  /// The first two generations share their weights, the third has learned.
  home() {
    auto l = life::create(path, ouro_test::small_gridman(8), ouro::seed{1}, ouro::seed{2});
    images.push_back(image(l));
    static_cast<void>(ouro::speak(l.model, l.state, "hello", {.bytes = 0}));
    l.commit();
    images.push_back(image(l));
    auto t = l.resume({.learning_rate = 0.01, .warmup = 0});
    static_cast<void>(t.update(l.state, {ouro_test::any_lesson(1)}));
    l.commit(t);
    images.push_back(image(l));
    kept = there();
    for (auto const& [name, bytes] : kept) {
      if (!name.starts_with("snapshot-")) continue;
      snapshots.push_back(name);
      weights.push_back(safetensors_reader(name, bytes).metadata().at("weights"));
    }
  }
  [[nodiscard]] files there() const {
    files all;
    for (auto const& name : ouro::entries_of(path))
      if (name != "LOCK") all[name] = ouro::read_file(path + "/" + name);
    return all;
  }
  void put(files const& wanted) const {
    auto const now = there();
    for (auto const& [name, bytes] : now)  // also before it is written again, which may be waited for else
      if (auto const at = wanted.find(name); at == wanted.end() || at->second != bytes)
        std::filesystem::remove(path + "/" + name);
    for (auto const& [name, bytes] : wanted)
      if (auto const at = now.find(name); at == now.end() || at->second != bytes)
        std::ofstream(path + "/" + name, std::ios::binary) << bytes;
  }
  /// The number of the newest generation of which these files hold all; 0 if there is none.
  [[nodiscard]] std::int64_t newest(files const& now) const {
    auto const has = [&](std::string const& name) {
      auto const at = now.find(name);
      auto const was = kept.find(name);
      return at != now.end() && was != kept.end() && at->second == was->second;
    };
    std::int64_t number = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      auto const copy = weights[i].substr(0, 24) + "-copy.safetensors";
      if (has(snapshots[i]) && (has(weights[i]) || has(copy))) number = static_cast<std::int64_t>(i + 1);
    }
    return number;
  }
};

/// A stored tensor or line of metadata is another one, or is missing.
std::string crafted(std::string const& bytes, ouro_fuzz::input& in) {
  std::optional<safetensors_reader> old;
  if (!accepted({errc::storage}, [&] { old.emplace("", bytes); })) return bytes;
  safetensors_writer out;
  auto const victim = in.byte() % (old->names().size() + old->metadata().size());
  auto const how = in.byte() % 8;
  auto const value = in.text(1 + in.byte() % 32);
  std::size_t i = 0;
  for (auto const& [key, text] : old->metadata()) {
    auto changed = text;
    if (i == victim) changed.replace(in.below(text.size() + 1), how, value);
    if (i++ != victim || how > 0) out.set(key, changed);
  }
  for (auto const& name : old->names()) {
    auto t = old->at(name);
    std::string data(t.bytes);
    if (i++ == victim) {
      auto const row =
          data.size() / static_cast<std::size_t>(t.dims.empty() ? 1 : std::max<std::int64_t>(1, t.dims[0]));
      if (how == 0) continue;
      if (how == 1) t.type = t.type == "F32" ? "I32" : "I64";
      if (how == 2) t.dims.push_back(1);
      if (how == 3) t.dims = {0}, data.clear();
      if (how == 4 && !t.dims.empty()) t.dims[0] += 1, data += std::string(row, '\0');
      if (how == 5) t.type = "U8", t.dims = {static_cast<std::int64_t>(data.size())};
      if (how >= 6)
        for (std::size_t k = 0; k < std::min(data.size(), value.size()); ++k) data[data.size() - 1 - k] = value[k];
    }
    accepted({errc::argument}, [&] { out.add(name, t.type, t.dims, data); });  // or it is missing
  }
  return out.str();
}

void edit(files& now, ouro_fuzz::input& in) {
  static std::string const others[] = {"snapshot-9-0123456789abcdef.safetensors",
                                       "snapshot-4611686018427387902-0123456789abcdef.safetensors",
                                       "snapshot-99999999999999999999-0123456789abcdef.safetensors",
                                       "snapshot-2.safetensors",
                                       "snapshot-3-0123456789abcdef.safetensors.quarantine",
                                       "weights-0123456789abcdef.safetensors",
                                       "CURRENT.tmp-1",
                                       "snapshot-"};
  auto const how = in.byte() % 10;
  if (now.empty()) return;
  auto const file = [&] { return std::next(now.begin(), static_cast<std::ptrdiff_t>(in.byte() % now.size())); };
  auto const chosen = file();
  auto& bytes = chosen->second;
  auto const at = in.below(std::min<std::size_t>(bytes.size(), in.byte() % 2 == 0 ? 4096 : 1U << 24U) + 1);
  switch (how) {
    case 0:
      if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << in.byte() % 8));
      break;
    case 1: bytes.resize(at); break;
    case 2: {
      auto const text = in.text(1 + in.byte() % 32);
      bytes.replace(at, text.size(), text);
      break;
    }
    case 3: now.erase(chosen); break;
    case 4: std::swap(bytes, file()->second); break;
    case 5: bytes = in.text(in.byte()); break;
    case 6: bytes.insert(at, in.text(1 + in.byte() % 32)); break;
    case 7: bytes.erase(at, 1 + in.byte()); break;
    case 8: now[others[in.byte() % std::size(others)]] = bytes; break;
    default: bytes = crafted(bytes, in);
  }
}

void replace_all(std::string& text, std::string const& from, std::string const& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

/// Gives the files the names that their contents have, and says so in the others.
void hash_again(files& now) {
  for (std::string const kind : {"weights-", "snapshot-"}) {
    files fresh;
    std::vector<std::pair<std::string, std::string>> renamed;
    for (auto const& [name, bytes] : now) {
      auto const end = name.rfind(".safetensors");
      if (!name.starts_with(kind) || end < 16 || end != name.size() - 12 || name.ends_with("-copy.safetensors")) {
        fresh[name] = bytes;
        continue;
      }
      auto const old = name.substr(end - 16, 16);
      renamed.emplace_back(old, ouro::detail::hash_of(bytes));
      fresh[name.substr(0, end - 16) + renamed.back().second + ".safetensors"] = bytes;
    }
    for (auto& [name, bytes] : fresh)
      if (name == "CURRENT" || (kind == "weights-" && name.starts_with("snapshot-")))
        for (auto const& [from, to] : renamed)
          if (from != to) replace_all(bytes, from, to);
    now = std::move(fresh);
  }
}

}  // namespace

std::vector<std::string> ouro_fuzz::seeds() {
  std::vector<std::string> all{std::string(1, '\0')};
  for (int again = 0; again < 2; ++again)
    for (int how = 0; how < 10; ++how)
      for (int file = how % 2; file < 6; file += 3)
        all.push_back(std::string{static_cast<char>(again + (file < 3 ? 2 : 0)), static_cast<char>(how),
                                  static_cast<char>(file), 0, static_cast<char>(how), static_cast<char>(3 * file), 0,
                                  static_cast<char>(file + 1), static_cast<char>(how + file), 9} +
                      "\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF");
  // The clock, the updates and the steps of a moment are the largest number.
  for (char const tensor : {'\x0A', '\x0C', '\x12'})
    all.push_back(std::string{15, 9, 3, 0, 0, 0, 0, tensor, 6, 7} + "\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF");
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static home const h;
  ouro_fuzz::input in(data, size);
  auto const how = in.byte();
  bool const again = (how & 1U) != 0;
  auto now = h.kept;
  for (int i = 0; i < 6 && !in.empty(); ++i) edit(now, in);
  if (again) hash_again(now);
  h.put(now);
  {
    std::optional<life> l;
    accepted(
        again ? std::initializer_list<errc>{errc::storage, errc::config} : std::initializer_list<errc>{errc::storage},
        [&] { l.emplace(life::open(h.path)); });
    hold(h.there() == now, "opening changes no file");
    auto const newest = h.newest(now);
    if (!again) hold(l.has_value() || newest == 0, "a life of which a generation is whole opens");
    if (!l) return 0;
    auto const was = image(*l);
    if (!again) {
      hold(std::find(h.images.begin(), h.images.end(), was) != h.images.end(), "what is opened was committed");
      auto const current = now.find("CURRENT");
      if (current != now.end() && current->second == h.kept.at("CURRENT"))
        hold(l->generation() == newest, "the newest generation that is whole is opened");
    } else if (how % 16 == 15) {  // what was read can be lived with
      accepted({errc::numeric, errc::argument},
               [&] { static_cast<void>(ouro::speak(l->model, l->state, "hello", {.bytes = 1})); });
      auto t = l->resume({.learning_rate = 0.01, .warmup = 0});
      accepted({errc::numeric, errc::argument},
               [&] { static_cast<void>(t.update(l->state, {ouro_test::any_lesson(1)})); });
      return 0;
    }
    if ((how & 2U) == 0) return 0;
    bool const damaged = !l->passed_over().empty();
    if (!accepted({errc::numeric}, [&] { l->commit(); })) {
      hold(again, "what was committed is committed again");
      return 0;
    }
    if (damaged) {  // nothing but CURRENT was written anew
      auto const after = h.there();
      for (auto const& [name, bytes] : now) {
        auto const is = [&, &b = bytes](auto const& file) { return file.second == b; };
        hold(
            name == "CURRENT" || name.find(".tmp-") != std::string::npos || std::any_of(after.begin(), after.end(), is),
            "no file of a damaged life is lost");
      }
    }
    auto const number = l->generation();
    l.reset();
    l.emplace(life::open(h.path));
    hold(l->generation() == number && image(*l) == was, "what is committed is opened");
    hold(again || l->passed_over().empty(), "what was damaged is set aside, and whole again");
  }
  return 0;
}
