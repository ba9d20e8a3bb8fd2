// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Corpora: every byte once, in order, from any position, whatever the lines hold.
#include <catch2/catch_test_macros.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include <ouro/data/corpus.hpp>
#include <ouro_test/folder.hpp>

namespace {

struct folder : ouro_test::folder {
  std::string write(std::string const& name, std::string const& text) const {
    std::ofstream(at(name), std::ios::binary) << text;
    return at(name);
  }
};

ouro::corpus_options const tiny{.patch = 4, .chunk = 3};

/// No corpus is made of it, for a reason of this kind that names `culprit`.
void refused(std::string const& path, ouro::corpus_options const& options, ouro::errc code,
             std::string const& culprit) {
  try {
    ouro::corpus c({path}, options);
    FAIL("accepted in spite of " << culprit);
  } catch (ouro::error const& e) {
    CHECK(e.code() == code);
    CHECK(std::string(e.what()).find(culprit) != std::string::npos);
  }
}

std::string shown(ouro::patches const& first, ouro::byte_target const& t) {
  std::string s;
  auto add = [&](std::int32_t b) { s += b == ouro::eos_byte ? '$' : b == ouro::pad_byte ? '_' : static_cast<char>(b); };
  for (int i = 0; i < 4; ++i) add(first.bytes[static_cast<std::size_t>(i)]);
  for (auto b : t.next.bytes) add(b);
  return s;
}

}  // namespace

TEST_CASE("documents are joined, ended and padded") {
  folder f;
  auto const a = f.write("a.txt", "abcdefgh");
  auto const b = f.write("b.txt", "0123456789");
  ouro::corpus c({a, b}, tiny);
  ouro::text_lesson l;
  REQUIRE(c.next(l));
  CHECK(shown(l.input, l.target) == "abcdefgh$0123456");
  REQUIRE(c.next(l));
  CHECK(shown(l.input, l.target) == "789$____________");
  CHECK(l.target.live_count() == 0);
  CHECK_FALSE(c.next(l));
  CHECK(shown(c.endless().input, l.target).substr(0, 4) == "abcd");
  CHECK(c.position().epoch == 1);
}

TEST_CASE("lessons for an update are the next ones, in the sizes of a network") {
  folder f;
  auto const a = f.write("a.txt", "abcdefghijklmnopqrstuvwxyz");
  auto config = ouro::gridman_config::of(64, 2, 1, 1, 1);
  config.patch = 4, config.chunk = 3;
  ouro::corpus c({a}, config);
  auto const cycle = c.cycle(3);
  REQUIRE(cycle.size() == 3);
  CHECK(shown(cycle[0].input, cycle[0].target) == "abcdefghijklmnop");
  CHECK(shown(cycle[1].input, cycle[1].target) == "qrstuvwxyz$_____");
  CHECK(shown(cycle[2].input, cycle[2].target) == "abcdefghijklmnop");
  CHECK(c.position().epoch == 1);
}

TEST_CASE("a seek to any position goes on exactly") {
  folder f;
  std::string lines;
  for (int i = 0; i < 40; ++i) lines += "{\"text\": \"line number " + std::to_string(i * i) + "\"}\r\n";
  auto const a = f.write("a.txt", std::string(70000, 'x') + "end");
  auto const b = f.write("b.jsonl", "\xEF\xBB\xBF" + lines);
  std::vector<std::string> const paths{f.write("0.txt", "zero"), a, b};
  for (bool overlap : {false, true}) {
    ouro::corpus_options const options{.patch = 16, .chunk = 31, .overlap = overlap};
    ouro::corpus whole(paths, options);
    std::vector<std::vector<std::int32_t>> blocks;
    std::vector<ouro::corpus_cursor> cursors;
    ouro::text_lesson l;
    for (;;) {
      cursors.push_back(whole.position());
      if (!whole.next(l)) break;
      blocks.push_back(l.input.bytes);
    }
    REQUIRE(blocks.size() > 100);
    for (std::size_t i = 0; i <= blocks.size(); ++i) {
      ouro::corpus again(paths, options);
      again.seek(cursors[i]);
      std::size_t const last = std::min(blocks.size(), i + 3);
      for (std::size_t k = i; k < last; ++k) {
        REQUIRE(again.next(l));
        CHECK(l.input.bytes == blocks[k]);
        CHECK(again.position() == cursors[k + 1]);
      }
      if (last == blocks.size()) CHECK_FALSE(again.next(l));
    }
  }
}

TEST_CASE("who resumes goes on in the same text, and begins another at its beginning") {
  folder f;
  ouro::corpus_options const options{.patch = 4, .chunk = 2};
  ouro::corpus one({f.write("one.txt", "abcdefghijklmnopqrstuvwxyz")}, options);
  ouro::text_lesson l;
  REQUIRE(one.next(l));
  auto const here = one.position();
  REQUIRE(one.next(l));
  CHECK_FALSE(one.resume({}));  // of a life that has read nothing
  CHECK_FALSE(one.position() == here);
  CHECK(one.resume(here));
  CHECK(one.position() == here);
  ouro::corpus two({f.write("two.txt", "0123456789")}, options);
  auto const beginning = two.position();
  CHECK_FALSE(two.resume(here));
  CHECK(two.position() == beginning);
  CHECK_THROWS_AS(two.seek(here), ouro::error);
}

TEST_CASE("blocks that overlap hear every patch once, and all but the first are targets") {
  folder f;
  for (std::size_t length = 0; length < 100; ++length) {  // with its end one byte more
    std::string text;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>('a' + i % 23);
    auto const path = f.write("a.jsonl", R"({"text": "x)" + text + "\"}");
    ouro::corpus c({path}, {.patch = 4, .chunk = 3, .overlap = true});
    std::string heard;
    std::string said;
    ouro::text_lesson l;
    while (c.next(l)) {
      auto const block = shown(l.input, l.target);
      heard += block.substr(0, 12);
      said += block.substr(4);
      CHECK(static_cast<std::size_t>(l.target.live_count()) == std::min(block.find('_', 4), block.size()) - 4);
    }
    CHECK_FALSE(c.next(l));
    auto const whole = 'x' + text + '$';
    auto bare = [](std::string const& padded) { return padded.substr(0, padded.find('_')); };
    CHECK(bare(said) == whole.substr(std::min<std::size_t>(4, whole.size())));
    CHECK(whole.rfind(bare(heard), 0) == 0);
    CHECK(bare(heard).size() + 4 >= whole.size());  // only the last patch may be said and not heard
    CHECK(shown(c.endless().input, {}) == (whole + "___").substr(0, 4));
    CHECK(c.position().epoch == 1);
  }
}

TEST_CASE("conversations: only answers are targets when tuning") {
  folder f;
  auto const path = f.write(
      "talk.jsonl", R"({"conversations":[{"role":"user","content":"hi"},{"role":"assistant","content":"yo"}]})");
  ouro::corpus c({path}, {.patch = 4, .chunk = 8, .answers_only = true});
  ouro::text_lesson l;
  REQUIRE(c.next(l));
  CHECK(shown(l.input, l.target) == "\nUser: hi\nGridman: yo$______________");
  std::string live;
  for (std::size_t i = 0; i < l.target.live.size(); ++i)
    if (l.target.live[i])
      live += static_cast<char>(l.target.next.bytes[i] == ouro::eos_byte ? '$' : l.target.next.bytes[i]);
  CHECK(live == "yo$");
}

TEST_CASE("what has no answers is no target when tuning") {
  folder f;
  ouro::corpus_options const answers{.patch = 4, .chunk = 8, .answers_only = true};
  refused(f.write("book.txt", "abcdefgh"), answers, ouro::errc::data, "book.txt is plain text");
  ouro::text_lesson l;
  ouro::corpus text({f.write("text.jsonl", R"({"text": "abcdefgh"})")}, answers);
  CHECK_THROWS_AS(text.next(l), ouro::error);
  REQUIRE(text.complaints().size() == 1);
  CHECK(text.complaints()[0].find("text.jsonl:1: ") != std::string::npos);
  ouro::corpus asked({f.write("asked.jsonl", R"({"conversations":[{"role":"user","content":"hi"}]})")}, answers);
  REQUIRE(asked.next(l));
  CHECK(shown(l.input, l.target).substr(0, 10) == "\nUser: hi$");
  CHECK(l.target.live_count() == 0);
}

TEST_CASE("bad lines are skipped and counted, or stop a strict run") {
  folder f;
  auto const path =
      f.write("bad.jsonl", "{\"text\": \"good\"}\nnot json\n{\"text\": 3}\n{\"other\": 1}\n\n{\"text\": \"fine\"}");
  ouro::corpus c({path}, tiny);
  ouro::text_lesson l;
  REQUIRE(c.next(l));
  CHECK(shown(l.input, l.target) == "good$fine$______");
  CHECK(c.skipped() == 3);
  CHECK(c.complaints()[0].find("bad.jsonl:2: ") != std::string::npos);
  ouro::corpus strict({path}, {.patch = 4, .chunk = 3, .strict = true});
  CHECK_THROWS_AS(strict.next(l), ouro::error);
  ouro::corpus nothing({f.write("none.jsonl", "x\ny\n")}, tiny);
  CHECK_THROWS_AS(nothing.next(l), ouro::error);
}

TEST_CASE("a line longer than 64 MiB is skipped as any bad line") {
  folder f;
  std::string const text = R"({"text": ")";
  std::size_t const room = (std::size_t{64} << 20U) - text.size() - 2;  // for what is said in a line
  auto const path = f.write("long.jsonl", text + std::string(room + 1, 'x') + "\"}\r\n" + text + "abcdefgh\"}\r\n");
  ouro::corpus c({path}, tiny);
  ouro::text_lesson l;
  REQUIRE(c.next(l));
  CHECK(shown(l.input, l.target) == "abcdefgh$_______");
  CHECK(c.skipped() == 1);
  CHECK(c.complaints()[0].find("long.jsonl:1: ") != std::string::npos);
}

TEST_CASE("a long line is given whole, block by block") {
  folder f;
  std::string line;
  for (int i = 0; i < 100'000; ++i) line += static_cast<char>('a' + i % 23);
  ouro::corpus c({f.write("wide.jsonl", R"({"text": ")" + line + "\"}\n")}, {.patch = 4, .chunk = 15});
  std::string given;
  auto add = [&](std::vector<std::int32_t> const& bytes, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i)
      if (bytes[i] < 256) given += static_cast<char>(bytes[i]);
  };
  for (ouro::text_lesson l; c.next(l);) {  // the first patch is read, the others are said too
    add(l.input.bytes, 4);
    add(l.target.next.bytes, l.target.next.bytes.size());
  }
  CHECK((given == line));
}

TEST_CASE("files of one name and size are told apart by their ends") {
  folder f;
  auto identity = [&](std::string const& text) { return ouro::corpus({f.write("book.txt", text)}, tiny).position(); };
  std::string const text(20000, 'x');
  auto const first = identity('y' + text);
  auto const last = identity(text + 'y');
  CHECK(first.text != last.text);
  CHECK(first.text == identity('y' + text).text);
  ouro::corpus other({(f.path / "book.txt").string()}, tiny);
  other.seek(first);
  f.write("book.txt", text + 'z');
  ouro::corpus another({(f.path / "book.txt").string()}, tiny);
  CHECK_THROWS_AS(another.seek(first), ouro::error);
}

TEST_CASE("options outside their range are named") {
  folder f;
  auto const path = f.write("a.txt", "abc");
  for (auto const& [options, name] : {std::pair<ouro::corpus_options, std::string>{{.patch = 0, .chunk = 3}, "patch"},
                                      {{.patch = -1, .chunk = 3}, "patch"},
                                      {{.patch = 4, .chunk = 0}, "chunk"},
                                      {{.patch = 4, .chunk = std::numeric_limits<std::int64_t>::max()}, "chunk"}}) {
    refused(path, options, ouro::errc::argument, name);
  }
}

TEST_CASE("paths that hold no text are named") {
  folder f;
  for (auto const& path : {f.write("empty.txt", ""), std::string("/dev/null"), (f.path / "missing").string()}) {
    refused(path, tiny, ouro::errc::data, path);
  }
}
