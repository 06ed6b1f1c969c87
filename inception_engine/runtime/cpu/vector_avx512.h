// V16 for AVX-512 (F, BW, DQ, VL): one register.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels.h"

#if !defined(__clang__)
// GCC 12 sees its own _mm512_undefined_ps() as an uninitialised variable (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace ie::cpu {
namespace {

struct V16 {
  static constexpr uint32_t kLanes = kPanel;
  using Number = float;

  __m512 r;

  static __mmask16 mask(uint32_t count) { return static_cast<__mmask16>((1u << count) - 1); }
  static V16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static V16 load(const float* p, uint32_t count) { return {_mm512_maskz_loadu_ps(mask(count), p)}; }
  static V16 broadcast(float value) { return {_mm512_set1_ps(value)}; }
  void store(float* p) const { _mm512_storeu_ps(p, r); }
  void store(float* p, uint32_t count) const { _mm512_mask_storeu_ps(p, mask(count), r); }
  V16 first(uint32_t count) const { return {_mm512_maskz_mov_ps(mask(count), r)}; }
#if defined(__AVX512BF16__)
  static V16 load(const Bfloat16* p) {
    return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static V16 load(const Bfloat16* p, uint32_t count) {
    return widened(_mm256_maskz_loadu_epi16(mask(count), p));
  }
  static V16 widened(__m256i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  void store(Bfloat16* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrowed()); }
  void store(Bfloat16* p, uint32_t count) const { _mm256_mask_storeu_epi16(p, mask(count), narrowed()); }
  // To the nearest, and the even one in the middle; numbers below the normal ones become zeros.
  __m256i narrowed() const { return (__m256i)_mm512_cvtneps_pbh(r); }
#endif
  // To the power of -3/4.
  V16 inverse_root_of_cube() const {
    const V16 y = inverse_root();
    return y * V16{_mm512_sqrt_ps(y.r)};
  }
  // An estimate of 14 bits and one step of Newton: twice as fast as a root and a division. Infinity counts as
  // the largest float, for which the step is defined; vminps returns its second operand, a NaN too.
  V16 inverse_root() const {
    const __m512 x = _mm512_min_ps(_mm512_set1_ps(3.40282347e38f), r), y = _mm512_rsqrt14_ps(x);
    const __m512 half_xy = _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.5f)), y);
    const __m512 error = _mm512_fnmadd_ps(half_xy, y, _mm512_set1_ps(0.5f));
    return {_mm512_fmadd_ps(y, error, y)};
  }
  // vmaxps returns its second operand when one is NaN. So does max() below, but where it is the first that is NaN, quiet
  // or signaling, which vfixupimmps puts back.
  V16 relu() const { return {_mm512_max_ps(_mm512_setzero_ps(), r)}; }
  static V16 max(V16 a, V16 b) {
    const __m512i nan_of_first = _mm512_set1_epi32(0x11);
    return {_mm512_fixupimm_ps(_mm512_max_ps(a.r, b.r), a.r, nan_of_first, 0)};
  }
  static V16 multiply_add(V16 a, V16 b, V16 c) { return {_mm512_fmadd_ps(a.r, b.r, c.r)}; }
  V16 operator+(V16 b) const { return {_mm512_add_ps(r, b.r)}; }
  V16 operator-(V16 b) const { return {_mm512_sub_ps(r, b.r)}; }
  V16 operator*(V16 b) const { return {_mm512_mul_ps(r, b.r)}; }
  V16 operator/(V16 b) const { return {_mm512_div_ps(r, b.r)}; }
};

// Shape of the micro-kernels: up to 24 of 32 registers hold sums.
struct Blocks {
  static constexpr int kPanels = 4;
  static constexpr int rows(int panels) { return panels == 4 ? 6 : panels == 3 ? 8 : panels == 2 ? 10 : 12; }
  // Panels of the next group when `panels` are left: 5 are 3 + 2 rather than 4 + 1.
  static constexpr uint32_t group(uint32_t panels) { return panels <= 4 ? panels : panels <= 6 ? 3 : 4; }
};

}  // namespace
}  // namespace ie::cpu
