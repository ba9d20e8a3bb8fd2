// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Configurations: any text is refused with an error of its kind, or is a configuration that keeps its rules, is written and read
// again, and whose network is made and lives, or is refused.
#include <optional>
#include <set>
#include <string>

#include <ouro/backend/reference.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/life/config_text.hpp>
#include <ouro/nn/mixers/hybrid.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro_test/small_gridman.hpp>

#include "fuzz.hpp"

using ouro::errc;
using ouro::gridman_config;
using ouro_fuzz::accepted;
using ouro_fuzz::hold;

namespace {

/// Whether a network of these sizes is made, and lives through a step, in milliseconds.
bool is_small(gridman_config const& c) {
  return c.width <= 16 && c.sensor_layers <= 3 && c.brain_layers <= 3 && c.actor_layers <= 3 && c.patch <= 16 &&
         c.state_rows <= 16 && c.memory_rows <= 32 && c.anchors <= 8;
}

/// The network is made, hears a patch, and its state has the sizes that the configuration says.
void live(gridman_config const& c) {
  std::optional<ouro::gridman<ouro::reference, ouro::hybrid>> network;
  if (!accepted({errc::config}, [&] { network.emplace(c, ouro::seed{1}); })) return;
  auto life = network->newborn(ouro::seed{2});
  hold(life.mem.dims() == ouro::shape{1, c.memory_rows, c.width} &&
           life.working.dims() == ouro::shape{1, c.state_rows, c.width},
       "a newborn has the sizes of its configuration");
  static_cast<void>(ouro::speak(*network, life, "hm", {.bytes = 0}));
  hold(life.clock == 1, "what is made lives");
}

}  // namespace

std::vector<std::string> ouro_fuzz::seeds() {
  auto c = ouro_test::small_gridman(8);
  std::vector<std::string> all{ouro::to_text(c), ouro::to_text(ouro::presets::nano()), "{}"};
  c.sensor_layers = 2, c.brain_layers = 3;
  for (char const* mixers : {"rwkv7", "mamba2", "attention", "rwkv7*2 | rwkv7 mamba2 attention", "rwkv7*4 attention"})
    all.push_back(ouro::to_text(c.layers(mixers)));
  auto const old = ouro::to_text(c);
  all.push_back(old.substr(0, old.find(",\"mixers\"")) + "}");  // of an older version
  std::string const tiny = R"("width":8,"heads":2,"patch":4,"state_rows":1,"memory_rows":1,"actor_layers":1)";
  for (char const* rest :
       {"", R"(,"dropout":0.999,"sleep":0)", R"(,"oscillator_noise":1e6,"sleep_noise":1e-320)", R"(,"heads":8)",
        R"(,"width":4,"heads":1)", R"(,"width":12,"heads":3)", R"(,"chunk":1048576,"wake":1048576,"bptt":65536)",
        R"(,"mixers":"rwkv7","brain_layers":2)", R"(,"mixers":"mamba2 | attention rwkv7")", R"(,"anchors":4096)"}) {
    auto text = "{" + tiny + rest + "}";
    // A field that is named again takes the place of the first.
    for (auto const* name : {"\"heads\":2,", "\"width\":8,"})
      if (auto const at = text.find(name); at != std::string::npos && text.rfind(std::string(name).substr(0, 8)) != at)
        text.erase(at, std::string(name).size());
    all.push_back(text);
  }
  for (char const* hostile :
       {R"({"width":9223372036854775807})", R"({"width":2147483648,"heads":2147483648})", R"({"heads":0})",
        R"({"width":-4})", R"({"dropout":1e999})", R"({"wake":1.5})", R"({"mixers":"rwkv7*1025"})",
        R"({"mixers":"rwkv7*99999999999999999999"})", R"({"colour":"blue"})", R"({"mixers":7,"reset_read":"yes"})"})
    all.push_back(hostile);
  all.push_back(R"({"mixers":")" + std::string(256, 'm') + "\"}");
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string const text(reinterpret_cast<char const*>(data), size);
  for (bool whole : {true, false}) {
    std::optional<gridman_config> c;
    accepted({errc::data, errc::config, errc::storage}, [&] {
      c = whole ? ouro::config_from_text<gridman_config>(text) : ouro::changed(ouro::presets::nano(), text);
    });
    if (!c) continue;
    c->validate();
    auto const once = ouro::to_text(*c);
    hold(ouro::config_from_text<gridman_config>(once) == *c, "what is written is read back");
    hold(ouro::to_text(ouro::changed(gridman_config{}, once)) == once, "the same is written again");
    if (!is_small(*c)) continue;
    auto sizes = *c;  // what a network is made of
    sizes.dropout = sizes.oscillator_noise = sizes.sleep_noise = 0;
    sizes.chunk = sizes.wake = sizes.sleep = sizes.bptt = 1;
    static std::set<std::string> made;
    if (made.insert(ouro::to_text(sizes)).second) live(*c);
  }
  return 0;
}
