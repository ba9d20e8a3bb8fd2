// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The kernels for generic.
#define OURO_KERNELS generic
#include "kernels.inl"
#include "scan_kernels.inl"
