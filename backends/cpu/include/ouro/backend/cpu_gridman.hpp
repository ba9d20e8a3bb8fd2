// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Gridman on the cpu backend is part of the library ouro::cpu: a program that uses it does not compile it again. (An
// example compiles in a third of the time.)
#pragma once

#include <ouro/backend/cpu_parts.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/life/life.hpp>
#include <ouro/nn/mixers/hybrid.hpp>
#include <ouro/train/trainer.hpp>

/// Everything that is long to compile in a Gridman of one mixer: `prefix` is `extern template` or `template`.
#define OURO_CPU_GRIDMAN(prefix, mixer)                                                                         \
  prefix struct gridman<cpu, mixer>;                                                                            \
  prefix class trainer<gridman<cpu, mixer>>;                                                                    \
  prefix class basic_life<gridman<cpu, mixer>>;                                                                 \
  prefix wake_result<cpu> wake(gridman<cpu, mixer> const&, context<cpu>&, state<cpu>, patches const&);          \
  prefix wake_result<cpu> wake(gridman<cpu, mixer> const&, state<cpu>, patches const&);                         \
  prefix state<cpu> sleep(gridman<cpu, mixer> const&, context<cpu>&, state<cpu>);                               \
  prefix state<cpu> sleep(gridman<cpu, mixer> const&, state<cpu>);                                              \
  prefix step_loss<cpu> loss(gridman<cpu, mixer> const&, context<cpu>&, impression<cpu> const&, patches const&, \
                             byte_target const&);                                                               \
  prefix std::string speak(gridman<cpu, mixer> const&, state<cpu>&, std::string_view, speech_options const&, text_sink)

#if defined(OURO_HAS_CPU)
namespace ouro {
OURO_CPU_GRIDMAN(extern template, attention);
OURO_CPU_GRIDMAN(extern template, hybrid);
}  // namespace ouro
#endif
