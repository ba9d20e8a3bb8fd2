// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The parts of systems, compiled once.
#include <ouro/backend/cpu_parts.hpp>

namespace ouro {
OURO_CPU_OPERATIONS(template);
OURO_CPU_MODULES(template);
}  // namespace ouro
