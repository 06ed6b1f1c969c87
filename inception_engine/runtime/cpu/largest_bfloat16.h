// Largest for bfloat16, by AVX-512: the vector in which maximum pools compare elements.
#pragma once

#include <immintrin.h>

#include "kernels.h"

namespace ie::cpu {
namespace {

// 32 bfloat16 in the order of their values, as integers. With the bits of a number for a two's complement, all but the
// sign of negative ones flipped, integers are in that order, -0 below +0. kNaNs less, the NaNs of negative sign, which
// were the least, wrap around to the others above infinity.
struct Largest {
  static constexpr uint32_t kLanes = 32;
  using Number = int16_t;

  static constexpr Number kNaNs = 127;  // of one sign
  __m512i key;

  static __mmask32 mask(uint32_t count) { return static_cast<__mmask32>((1u << count) - 1); }
  static __m512i flipped(__m512i x) {
    const __m512i magnitude = _mm512_set1_epi16(0x7FFF);
    return _mm512_ternarylogic_epi32(x, _mm512_srai_epi16(x, 15), magnitude, 0x78);  // x ^ (sign & magnitude)
  }
  static Largest of(__m512i bits) { return {_mm512_sub_epi16(flipped(bits), _mm512_set1_epi16(kNaNs))}; }
  __m512i bits() const { return flipped(_mm512_add_epi16(key, _mm512_set1_epi16(kNaNs))); }

  static Largest load(const Bfloat16* p) { return of(_mm512_loadu_si512(p)); }
  static Largest load(const Bfloat16* p, uint32_t count) {
    return of(_mm512_maskz_loadu_epi16(mask(count), p));
  }
  static Largest load(const Number* keys) { return {_mm512_loadu_si512(keys)}; }
  void store(Number* keys) const { _mm512_storeu_si512(keys, key); }
  void store(Bfloat16* p) const { _mm512_storeu_si512(p, bits()); }
  void store(Bfloat16* p, uint32_t count) const { _mm512_mask_storeu_epi16(p, mask(count), bits()); }
  // Zeros behind.
  Largest first(uint32_t count) const {
    return {_mm512_mask_mov_epi16(_mm512_set1_epi16(-kNaNs), mask(count), key)};
  }
  static Largest max(Largest a, Largest b) { return {_mm512_max_epi16(a.key, b.key)}; }
};

}  // namespace
}  // namespace ie::cpu
