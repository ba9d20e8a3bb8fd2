// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Attention of long sequences by products of cuBLAS.
#pragma once

#include "attention.hpp"

namespace ouro::cuda_kernels {

#if defined(__CUDACC__)
inline constexpr index long_attention = 256;             // queries, and keys, from which products pay
inline constexpr index score_bytes = index{256} << 20U;  // of the scores that are written out at a time
inline constexpr index causal_run = 512;                 // queries of a run in which each sees one key more
#else                                                    // the tests' sequences are short: they go every way
inline constexpr index long_attention = 64;
inline constexpr index score_bytes = 400000;
inline constexpr index causal_run = 70;
#endif

/// Whether products are the better way.
bool attention_is_long(const_view const& q, const_view const& k);

template <class T>
void attention_by_products(view const& y, T* lse, const_view const& q, const_view const& k, const_view const& v,
                           attention_rule const& rule);

/// dots: y · dy of each row and head, in the order of lse.
template <class T>
void attention_gradient_by_products(destination const& dq, destination const& dk, destination const& dv,
                                    const_view const& q, const_view const& k, const_view const& v, T const* lse,
                                    T const* dots, const_view const& dy, attention_rule const& rule);

}  // namespace ouro::cuda_kernels
