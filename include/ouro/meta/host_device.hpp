// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// OURO_HOST_DEVICE marks the few functions that the kernels of a device call too. (Those that are constexpr need no mark.)
#pragma once

#if defined(__CUDACC__)
#define OURO_HOST_DEVICE __host__ __device__
#else
#define OURO_HOST_DEVICE
#endif
