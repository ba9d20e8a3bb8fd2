// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A corpus of any bytes: bad lines are skipped and counted, the rest is given whole and in order, and any position that was taken
// or made up is gone on from exactly or refused.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ouro/data/corpus.hpp>
#include <ouro_test/folder.hpp>

#include "fuzz.hpp"

using ouro::corpus;
using ouro::corpus_cursor;
using ouro::errc;
using ouro_fuzz::accepted;
using ouro_fuzz::hold;

namespace {

/// An epoch from where a corpus stands, to its end.
struct epoch {
  std::vector<ouro::text_lesson> lessons;
  std::vector<corpus_cursor> before;  ///< each of them
  bool whole = false;                 ///< no error came between

  epoch(corpus& c, std::size_t most) {
    whole = accepted({errc::data}, [&] {
      ouro::text_lesson l;
      for (auto at = c.position(); c.next(l); at = c.position()) {
        before.push_back(at);
        lessons.push_back(l);
        hold(lessons.size() <= most, "a text has no more blocks than its bytes fill");
      }
    });
  }
};

bool same(ouro::text_lesson const& a, ouro::text_lesson const& b) {
  return a.input.bytes == b.input.bytes && a.target.next.bytes == b.target.next.bytes && a.target.live == b.target.live;
}

/// What the lessons say, one after the other.
std::vector<std::int32_t> joined(std::vector<ouro::text_lesson> const& lessons, ouro::corpus_options const& o) {
  auto const block = static_cast<std::size_t>(o.chunk * o.patch);
  auto const patch = static_cast<std::size_t>(o.patch);
  std::vector<std::int32_t> all;
  for (auto const& l : lessons) {
    auto const& in = l.input.bytes;
    auto const& out = l.target.next.bytes;
    hold(in.size() == block && out.size() == block && l.target.live.size() == block, "a lesson has its sizes");
    hold(std::equal(in.begin() + o.patch, in.end(), out.begin()), "a target is the input, a patch later");
    for (std::size_t i = 0; i < block; ++i) {
      hold(out[i] >= 0 && out[i] < ouro::byte_vocabulary, "a byte is a byte");
      hold(out[i] == ouro::pad_byte ? !l.target.live[i] : o.answers_only || l.target.live[i],
           "what is text counts, what is padding does not");
    }
    if (all.empty() || !o.overlap) all.insert(all.end(), in.begin(), in.begin() + o.patch);
    else hold(std::equal(in.begin(), in.begin() + o.patch, all.end() - o.patch), "a block begins where the last ended");
    all.insert(all.end(), out.begin(), out.end());
  }
  while (!all.empty() && all.back() == ouro::pad_byte) all.pop_back();
  hold(std::count(all.begin(), all.end(), ouro::pad_byte) == 0, "padding is at the end");
  hold(lessons.empty() || all.size() + block + patch > (o.overlap ? block : block + patch) * lessons.size(),
       "only the last block is padded");
  return all;
}

/// Lines of a .jsonl that are not blank.
std::int64_t lines(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  std::int64_t count = 0;
  while (!text.empty()) {
    auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    count += line.find_first_not_of(" \t") != std::string_view::npos;
  }
  return count;
}

/// `place` chooses a position, `made_up` what is wrong with another.
void read(std::string const& path, std::string_view text, ouro::corpus_options const& o, std::size_t place,
          std::size_t made_up) {
  std::size_t const most = text.size() / static_cast<std::size_t>(o.chunk * o.patch) + 2;
  corpus c({path}, o);
  hold(c.bytes() == static_cast<std::int64_t>(text.size()), "a corpus knows its bytes");
  epoch const all(c, most);
  auto const said = joined(all.lessons, o);
  if (path.ends_with(".txt")) {
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    hold(all.whole && said.size() == text.size() + 1 && said.back() == ouro::eos_byte, "a plain file is one document");
    for (std::size_t i = 0; i < text.size(); ++i)
      hold(said[i] == static_cast<unsigned char>(text[i]), "a plain file is given as it is");
  } else {
    auto const count = lines(text);
    if (all.whole)
      hold(std::count(said.begin(), said.end(), ouro::eos_byte) == count - c.skipped(), "a line is given or counted");
    hold(c.complaints().size() == std::min<std::size_t>(10, static_cast<std::size_t>(c.skipped())), "reasons are kept");
    hold(!o.strict || c.skipped() == 0, "nothing is skipped where that is an error");
    hold(all.whole || o.strict || c.skipped() == count, "lines that can be read are an epoch");
  }
  if (!all.whole) return;

  // Any position is gone on from, by this corpus and by another one.
  auto const k = place % all.lessons.size();
  corpus other({path}, o);
  for (auto* from : {&c, &other}) {
    from->seek(all.before[k]);
    epoch const rest(*from, most);
    hold(rest.whole && rest.lessons.size() == all.lessons.size() - k, "an epoch goes on to its end");
    for (std::size_t i = 0; i < rest.lessons.size(); ++i)
      hold(same(rest.lessons[i], all.lessons[k + i]), "a position is gone on from exactly");
  }
  hold(same(c.endless(), all.lessons[0]) && c.position().epoch == 1, "an epoch ends where the next begins");

  // One that was made up is refused, or what follows is an epoch.
  auto cursor = all.before[k];
  auto const any = [&](std::int64_t& member) {
    std::int64_t const values[] = {-1,
                                   0,
                                   member + 1,
                                   static_cast<std::int64_t>(place % (text.size() + 2)),
                                   static_cast<std::int64_t>(text.size()),
                                   std::numeric_limits<std::int64_t>::max() - 1,
                                   std::numeric_limits<std::int64_t>::max(),
                                   std::numeric_limits<std::int64_t>::min()};
    member = values[(made_up >> 4U) % 8];
  };
  if ((made_up & 1U) != 0) any(cursor.file);
  if ((made_up & 2U) != 0) any(cursor.offset);
  if ((made_up & 4U) != 0) any(cursor.skip);
  if ((made_up & 8U) != 0) any(cursor.blocks);
  if ((made_up & 128U) != 0) any(cursor.epoch);
  if (!accepted({errc::data}, [&] { other.seek(cursor); })) return;
  static_cast<void>(joined(epoch(other, most).lessons, o));
  accepted({errc::data}, [&] { other.rewind(); });
}

}  // namespace

std::vector<std::string> ouro_fuzz::seeds() {
  std::string const documents[] = {
      "{\"text\":\"abc\"}\n{\"text\":\"\"}\n\n  \t\n{\"text\":\"defghijklmnopqrstuvwxyz\\n\\u00e9\"}\r\n",
      "\xEF\xBB\xBF{\"conversations\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":"
      "\"ho\"}]}",
      "not json\n{\"text\":1}\n{\"conversations\":[]}\n[]\n{\"text\":\"ok\"}\n{\"conversations\":[{\"role\":\"system\","
      "\"content\":\"\"}]}",
      std::string("plain text\0with a zero, \xFF\xC0 and no end", 38),
      "\xEF\xBB\xBF",
      "\n\n\r\n \t",
      "{\"text\":\"a"};
  std::vector<std::string> all;
  for (auto const& d : documents)
    for (unsigned kind : {0U, 1U, 2U, 4U, 8U, 9U, 12U, 17U})
      all.push_back(std::string{static_cast<char>(kind), 3, 2, 0, 0, 7, static_cast<char>(16 * kind + 6)} + d);
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static ouro_test::folder const around;
  ouro_fuzz::input in(data, size);
  auto const how = in.byte();
  auto const patch = 1 + in.byte() % 9;
  auto const chunk = 1 + in.byte() % 9;
  auto const place = in.below(1U << 24U);
  auto const made_up = in.byte();
  std::string text(in.rest());
  ouro::corpus_options o{.patch = static_cast<std::int64_t>(patch),
                         .chunk = static_cast<std::int64_t>(chunk),
                         .answers_only = (how & 2U) != 0,
                         .strict = (how & 4U) != 0,
                         .overlap = (how & 8U) != 0};
  auto const path = around.at((how & 1U) != 0 ? "x.txt" : "x.jsonl");
  if (how / 16 == 1 && text.size() > 64) {  // longer than what is read at once
    auto const part = text;
    while (text.size() < 70'000) text += part;
    o.patch *= 16, o.chunk *= 16;
  }
  std::filesystem::remove(path);  // a file that is cut and written again may be waited for until it is on the disk
  std::ofstream(path, std::ios::binary) << text;
  accepted({errc::data}, [&] { read(path, text, o, place, made_up); });
  return 0;
}
