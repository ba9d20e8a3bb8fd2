// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Gridman with a mixer chosen for each layer on the cpu backend.
#include <ouro/backend/cpu_gridman.hpp>

namespace ouro {
OURO_CPU_GRIDMAN(template, hybrid);
}  // namespace ouro
