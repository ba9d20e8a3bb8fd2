// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A life in a dozen lines: a newborn Gridman reads, sleeps, and speaks. Run it in an empty folder.
#include <cstdio>
#include <fstream>

#include <ouro/ouro.hpp>

int main() {
  using backend = ouro::default_backend;  // or ouro::reference, ouro::cpu
  std::ofstream("book.txt")
      << std::string(20000, '.').replace(0, 60, "To be, or not to be, that is the question: whether it is nobler");

  auto config = ouro::gridman_config::of(128, 2, 1, 1, 1);
  config.chunk = 16, config.memory_rows = 32, config.state_rows = 16;
  ouro::gridman<backend> model{config, ouro::seed{42}};
  auto state = model.newborn(ouro::seed{7});  // a value: copy it, save it, move it on
  ouro::trainer trainer{model, ouro::adamw{.learning_rate = 3e-3, .warmup = 2}};
  ouro::corpus book({"book.txt"}, config);

  double first = 0;
  double last = 0;
  for (int i = 0; i < 6; ++i) {
    auto const report = trainer.update(state, book.cycle(config.bptt));  // wake, sleep, back through both
    std::printf("%lld %.3f nats per byte\n", static_cast<long long>(report.update), report.cross_entropy);
    (i == 0 ? first : last) = report.cross_entropy;
  }
  std::printf("%s\n", ouro::speak(model, state, "To be, or ", {.bytes = 60}).c_str());
  return last < first ? 0 : 1;
}
