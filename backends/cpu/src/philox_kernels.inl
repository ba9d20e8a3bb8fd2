// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Philox4x32-7 (mask_words of ouro/tensor/random.hpp) for sixteen counters at once, and the dropout that uses it. A 64-bit lane
// holds a counter's word in its lower half; the upper half is never looked at: products take the lower halves, and
// bitwise operations keep the halves apart.

using word = std::uint32_t;
using wide = std::uint64_t;

typedef wide w8 __attribute__((vector_size(64)));
constexpr w8 all(wide v) { return w8{v, v, v, v, v, v, v, v}; }
constexpr w8 upper = all(32);
constexpr w8 lower = all(0xFFFFFFFF);
constexpr w8 every_fourth = {0, 4, 8, 12, 16, 20, 24, 28};

inline w8 lower_product(w8 a, w8 b) {
#if defined(__AVX512F__)
  return (w8)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);  // the plain form warns in g++ 12
#elif defined(__AVX2__)
  union halves {
    w8 whole;
    __m256i part[2];
  } x{a}, y{b}, z;
  for (int i = 0; i < 2; ++i) z.part[i] = _mm256_mul_epu32(x.part[i], y.part[i]);
  return z.whole;
#else
  return (a & lower) * (b & lower);
#endif
}

/// Bits of 32 elements each that a dropout keeps (dropout_mask::kept): those of `count` groups, up to sixteen at once, from
/// `group` on.
void kept_words(drop_rule const& rule, wide group, index count, word* out) {
  constexpr index at_once = 16;
  w8 const m0 = all(0xD2511F53);
  w8 const m1 = all(0xCD9E8D57);
  for (index i = 0; i < count; i += at_once) {
    w8 kept[2] = {lower, lower};
    for (int block = rule.bits / 4 - 1; block >= 0; --block) {
      w8 c0[2], c1[2], c2[2], c3[2];
      for (int h = 0; h < 2; ++h) {
        c0[h] = all(4 * (group + static_cast<wide>(i + 8 * h)) + static_cast<wide>(block)) + every_fourth;
        c1[h] = c0[h] >> upper;
        c2[h] = all(rule.site);
        c3[h] = c2[h] >> upper;
      }
      w8 k0 = all(rule.key & 0xFFFFFFFF);
      w8 k1 = all(rule.key >> 32U);
      for (int round = 0; round < mask_rounds; ++round) {
        for (int h = 0; h < 2; ++h) {
          w8 const p0 = lower_product(m0, c0[h]);
          w8 const p1 = lower_product(m1, c2[h]);
          c0[h] = (p1 >> upper) ^ c1[h] ^ k0;
          c2[h] = (p0 >> upper) ^ c3[h] ^ k1;
          c1[h] = p1;
          c3[h] = p0;
        }
        k0 += all(0x9E3779B9);
        k1 += all(0xBB67AE85);
      }
      auto compare = [&](w8 const(&words)[2], int k) {
        bool const set = (rule.threshold >> (rule.bits - 1 - (4 * block + k)) & 1U) != 0;
        for (int h = 0; h < 2; ++h) kept[h] = set ? kept[h] & words[h] : kept[h] | words[h];
      };
      compare(c3, 3);
      compare(c2, 2);
      compare(c1, 1);
      compare(c0, 0);
    }
    for (index l = 0; l < at_once && i + l < count; ++l) out[i + l] = static_cast<word>(kept[l / 8][l % 8]);
  }
}

/// y = x times the factor where a bit of `kept` is set, from the first on, else 0; or that added to before, which may be y.
void k_keep(float* y, float const* before, float const* x, word const* kept, float factor, index n) {
  constexpr index some = 128;
  alignas(64) int set[some];
  for (index i = 0; i < n; i += some) {
    index const m = n - i < some ? n - i : some;
    for (index g = 0; 32 * g < m; ++g) {
      word const w = kept[i / 32 + g];
      for (unsigned b = 0; b < 32; ++b) set[32 * g + b] = static_cast<int>(w >> b & 1U);
    }
    float* to = y + i;
    float const* from = x + i;
    if (before != nullptr) {
      float const* there = before + i;
      for (index j = 0; j < m; ++j) to[j] = there[j] + select(set[j] != 0, from[j] * factor, 0.0F);
    } else {
      for (index j = 0; j < m; ++j) to[j] = select(set[j] != 0, from[j] * factor, 0.0F);
    }
  }
}

/// y = dropout(x), or before + dropout(x); before may be y.
void k_dropout(float* y, float const* before, float const* x, drop_rule const& rule, wide first, index n) {
  constexpr index groups = 64;
  word kept[groups + 1] = {};
  auto const skipped = static_cast<index>(first % 32);  // elements of the first group
  index const most = 32 * (skipped == 0 ? groups : groups - 1);
  for (index i = 0; i < n; i += most) {
    index const m = n - i < most ? n - i : most;
    kept_words(rule, (first + static_cast<wide>(i)) / 32, (m + skipped + 31) / 32, kept);
    if (skipped > 0)
      for (index g = 0; g < groups; ++g) kept[g] = kept[g] >> skipped | kept[g + 1] << (32 - skipped);
    k_keep(y + i, before == nullptr ? nullptr : before + i, x + i, kept, rule.factor, m);
  }
}
