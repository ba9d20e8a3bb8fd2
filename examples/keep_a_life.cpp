// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Keeping a life: it is made once, and every later run of this program goes on where the last one ended.
#include <cstdio>

#include <ouro/ouro.hpp>

int main() {
  using life = ouro::life<ouro::cpu>;
  char const* path = "alice.ouro";
  auto config = ouro::gridman_config::of(128, 2, 1, 1, 1);
  config.memory_rows = 32, config.state_rows = 16;

  auto alice = life::open_or_create(path, config, ouro::seed{42}, ouro::seed{7});  // locks it
  std::printf("%lld steps old\n", static_cast<long long>(alice.state.clock));
  auto const before = alice.state.clock;

  ouro::speech_options const briefly{.bytes = 20};
  ouro::speak(alice.model, alice.state, "Do you remember me?", briefly, [](std::string const& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);  // always valid UTF-8, as soon as a character is complete
  });
  alice.state = ouro::sleep(alice.model, std::move(alice.state));  // Mem and State exchange
  alice.commit();                                                  // survives kill -9 from here on
  std::printf("\n%lld steps old\n", static_cast<long long>(alice.state.clock));
  return alice.state.clock > before ? 0 : 1;
}
