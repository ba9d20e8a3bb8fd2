// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Any bytes are heard and answered in valid UTF-8, the life that follows is whole, and how a text was split does not matter.
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <ouro/backend/reference.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/ops/norm.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro_test/small_gridman.hpp>

#include "fuzz.hpp"

using ouro_fuzz::hold;

namespace {

/// The Unicode Standard, table 3-7.
bool is_utf8(std::string_view text) {
  auto const byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  for (std::size_t at = 0; at < text.size();) {
    auto const first = byte(at);
    std::size_t const more = first < 0x80 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
    std::uint32_t scalar = first & (more == 0 ? 0x7FU : 0x3FU >> more);
    for (std::size_t i = 1; i <= more; ++i) {
      if ((byte(at + i) & 0xC0U) != 0x80U) return false;
      scalar = scalar << 6U | (byte(at + i) & 0x3FU);
    }
    constexpr std::uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    if ((first >= 0x80 && first < 0xC2) || first > 0xF4 || scalar < least[more] || scalar > 0x10FFFF) return false;
    if (scalar >= 0xD800 && scalar < 0xE000) return false;
    at += more + 1;
  }
  return true;
}

/// The bytes as a stream gives them that gets them in parts; `cuts` says how long each is.
std::string streamed(std::string_view bytes, std::string_view cuts) {
  ouro::utf8_stream s;
  std::string out;
  for (std::size_t i = 0; !bytes.empty(); ++i) {
    auto const part =
        cuts.empty() ? bytes.size() : std::size_t{1} + static_cast<unsigned char>(cuts[i % cuts.size()]) % 8;
    out += s.feed(bytes.substr(0, part));
    hold(is_utf8(out), "what was given is valid UTF-8 at every moment");
    bytes.remove_prefix(std::min(part, bytes.size()));
  }
  return out + s.finish();
}

/// One text for all splits, which is what it is if that was valid.
std::string text_of(std::string_view bytes, std::string_view cuts) {
  auto const text = streamed(bytes, "");
  hold(is_utf8(text), "a stream gives valid UTF-8");
  hold(streamed(bytes, cuts) == text && streamed(bytes, std::string(1, '\0')) == text, "splits do not matter");
  hold(is_utf8(bytes) == (text == bytes), "valid text passes, other text does not");
  return text;
}

}  // namespace

std::vector<std::string> ouro_fuzz::seeds() {
  std::string const heard[] = {"Hello", "a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80z", std::string("\0\xFF\0\xC0\xAF", 5),
                               "\xED\xA0\x80\xF4\x90\x80\x80\xE4\xB8",
                               "a\xF1\x80\x80\xE1\x80\xC2"
                               "b\x80"
                               "c\x80\xBF"
                               "d"};
  std::vector<std::string> all;
  for (auto const& text : heard)
    for (int how = 0; how < 5; ++how) all.push_back(std::string{static_cast<char>(how * 37), 2, 5, 1, 3} + text);
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static ouro::gridman<ouro::reference> const model(ouro_test::small_gridman(8), ouro::seed{1});
  static auto const newborn = model.newborn(ouro::seed{2});
  ouro_fuzz::input in(data, size);
  auto const how = in.byte();
  auto const cuts = in.text(4);
  auto const bytes = in.rest();
  static_cast<void>(text_of(bytes, cuts));

  constexpr double temperatures[] = {0, 0.38, 1, 1e6};
  constexpr std::int64_t tops[] = {0, 1, 10, std::int64_t{1} << 62U};
  auto const prompt = bytes.substr(0, 64);  // each patch of it is a step of the life
  ouro::speech_options const o{.bytes = static_cast<std::int64_t>(how % 8),
                               .temperature = temperatures[how / 8 % 4],
                               .top_k = tops[how / 32 % 4],
                               .stops_at_end = how >= 128};
  auto life = newborn;
  std::string text;
  std::string said;
  auto const spoke = ouro_fuzz::accepted({ouro::errc::argument}, [&] {
    said = ouro::speak(model, life, prompt, o, [&](std::string const& part) {
      hold(is_utf8(part), "what is said is valid UTF-8, part by part");
      text += part;
    });
  });
  hold(spoke == !prompt.empty(), "only an empty prompt is refused");
  hold(static_cast<std::int64_t>(said.size()) <= o.bytes, "no more is said than was asked for");
  hold(text == text_of(said, cuts), "what is said is what was chosen");
  hold(std::isfinite(ouro::norm_of(life.tensors())), "the life that follows is finite");
  auto const patches = (static_cast<std::int64_t>(prompt.size()) + 4) / 5;
  hold(life.clock >= patches - (o.bytes > 0 ? 1 : 0), "all that was heard was lived through");
  return 0;
}
