// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The kernels for avx2.
#define OURO_KERNELS avx2
#include "kernels.inl"
#include "scan_kernels.inl"
