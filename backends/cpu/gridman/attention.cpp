// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Gridman with attention on the cpu backend.
#include <ouro/backend/cpu_gridman.hpp>

namespace ouro {
OURO_CPU_GRIDMAN(template, attention);
}  // namespace ouro
