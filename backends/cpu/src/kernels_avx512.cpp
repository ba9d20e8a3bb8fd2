// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The kernels for avx512.
#define OURO_KERNELS avx512
#include "kernels.inl"
#include "scan_kernels.inl"
