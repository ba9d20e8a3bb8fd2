// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// A mixer of one's own as Gridman's brain, alone and beside attention.
#include <cstdio>
#include <string>

#include <ouro/backend/cpu_parts.hpp>
#include <ouro/nn/mixers/hybrid.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/train/trainer.hpp>

#include "moving_average.hpp"

namespace {

// The mixers a layer may have; which it has is said when the program runs. Alone it is gridman<ouro::cpu, moving_average>.
using network = ouro::gridman<ouro::cpu, ouro::hybrid_of<moving_average, ouro::attention>::mixer>;

ouro::patches page(ouro::gridman_config const& c, std::size_t at) {
  static std::string const book = "To be, or not to be, that is the question: ";
  ouro::patches p{1, c.chunk, c.patch, {}};
  for (std::int64_t i = 0; i < c.chunk * c.patch; ++i) p.bytes.push_back(book[at++ % book.size()]);
  return p;
}

bool learns(char const* layers) {
  auto config = ouro::gridman_config::of(64, 2, 1, 2, 1);
  config.chunk = 8, config.memory_rows = 16, config.state_rows = 8, config.anchors = 1, config.dropout = 0;
  network model{config.layers(layers), ouro::seed{42}};
  auto state = model.newborn(ouro::seed{7});
  ouro::trainer trainer{model, ouro::adamw{.learning_rate = 3e-3, .warmup = 2}};
  double first = 0;
  double last = 0;
  for (std::size_t update = 0; update < 8; ++update) {
    std::vector<ouro::lesson<network>> cycle;
    for (std::size_t wake = 0; wake < 4; ++wake) {
      auto const at = (4 * update + wake) * 64;
      auto const live = std::vector<char>(64, 1);
      cycle.push_back({page(config, at), {page(config, at + 8), live}});
    }
    last = trainer.update(state, cycle).cross_entropy;
    if (update == 0) first = last;
  }
  std::printf("%-44s %.3f nats per byte, then %.3f\n", model.config().mixers.str().c_str(), first, last);
  return last < 0.9 * first;
}

}  // namespace

int main() {
  bool const alone = learns("moving_average");
  bool const beside = learns("moving_average | moving_average attention");
  return alone && beside ? 0 : 1;
}
