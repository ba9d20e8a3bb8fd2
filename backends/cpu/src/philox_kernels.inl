// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Philox4x32-7 (mask_words of ouro/tensor/random.hpp) for sixteen counters at once, and the dropout that uses it. A 64-bit lane
// holds a counter's word in its lower half; the upper half is never looked at: products take the lower halves, and
// exclusive ors keep the halves apart.

using word = std::uint32_t;
using wide = std::uint64_t;

typedef wide w8 __attribute__((vector_size(64)));
constexpr w8 all(wide v) { return w8{v, v, v, v, v, v, v, v}; }
constexpr w8 upper = all(32);
constexpr w8 lower = all(0xFFFFFFFF);

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

/// out[4·l + j] is word j of counter + l, l = 0 … 15.
void philox(wide key, wide site, wide counter, word* out) {
  w8 c0[2], c1[2], c2[2], c3[2];
  for (int h = 0; h < 2; ++h) {
    for (int l = 0; l < 8; ++l) c0[h][l] = counter + static_cast<wide>(8 * h + l);
    c1[h] = c0[h] >> upper;
    c2[h] = all(site);
    c3[h] = c2[h] >> upper;
  }
  w8 const m0 = all(0xD2511F53);
  w8 const m1 = all(0xCD9E8D57);
  w8 k0 = all(key & 0xFFFFFFFF);
  w8 k1 = all(key >> 32U);
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
  wide pairs[32];  // words (0, 1) and (2, 3) of each counter
  for (int h = 0; h < 2; ++h) {
    w8 const low = (c0[h] & lower) | (c1[h] << upper);
    w8 const high = (c2[h] & lower) | (c3[h] << upper);
    for (int l = 0; l < 8; ++l) {
      pairs[16 * h + 2 * l] = low[l];
      pairs[16 * h + 2 * l + 1] = high[l];
    }
  }
  __builtin_memcpy(out, pairs, sizeof pairs);
}

/// y = dropout(x), or before + dropout(x); before may be y.
void k_dropout(float* y, float const* before, float const* x, drop_rule const& rule, wide first, index n) {
  std::uint16_t halves[128];
  for (index i = 0; i < n; i += 128) {
    philox(rule.key, rule.site, (first + static_cast<wide>(i)) / 8, reinterpret_cast<word*>(halves));
    index const m = n - i < 128 ? n - i : 128;
    float const factor = rule.factor;
    auto const threshold = static_cast<int>(rule.threshold);
    float* to = y + i;
    float const* from = x + i;
    if (before != nullptr) {
      float const* there = before + i;
      for (index j = 0; j < m; ++j)
        to[j] = there[j] + select(static_cast<int>(halves[j]) >= threshold, from[j] * factor, 0.0F);
    } else {
      for (index j = 0; j < m; ++j) to[j] = select(static_cast<int>(halves[j]) >= threshold, from[j] * factor, 0.0F);
    }
  }
}
