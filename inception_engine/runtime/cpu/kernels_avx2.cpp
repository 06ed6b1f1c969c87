// The tile kernels for AVX2 with FMA: a V16 is two registers.
#include <immintrin.h>

#include <cstdint>

namespace ie::cpu {
namespace {

struct V16 {
  static constexpr uint32_t kLanes = 16;
  using Number = float;

  __m256 a, b;

  // Lanes [0, count) of eight, as a mask.
  static __m256i mask(int32_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static V16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static V16 load(const float* p, int32_t count) {
    return {_mm256_maskload_ps(p, mask(count)), _mm256_maskload_ps(p + 8, mask(count - 8))};
  }
  static V16 broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  void store(float* p) const {
    _mm256_storeu_ps(p, a);
    _mm256_storeu_ps(p + 8, b);
  }
  void store(float* p, int32_t count) const {
    _mm256_maskstore_ps(p, mask(count), a);
    _mm256_maskstore_ps(p + 8, mask(count - 8), b);
  }
  V16 first(int32_t count) const {
    return {_mm256_and_ps(a, _mm256_castsi256_ps(mask(count))),
            _mm256_and_ps(b, _mm256_castsi256_ps(mask(count - 8)))};
  }
  // To the power of -3/4, within 2e-7: an estimate of 12 bits, its root, and one step for both. What the estimate is not
  // for goes another way.
  V16 inverse_root_of_cube() const {
    const __m256 odd_a = is_odd(a), odd_b = is_odd(b);
    V16 power = {estimate(a), estimate(b)};
    if (_mm256_movemask_ps(_mm256_or_ps(odd_a, odd_b)) != 0) {
      power.a = _mm256_blendv_ps(power.a, by_roots(a), odd_a);
      power.b = _mm256_blendv_ps(power.b, by_roots(b), odd_b);
    }
    return power;
  }
  // All but positive normal numbers: as integers, they are those outside [2^-126, infinity).
  static __m256 is_odd(__m256 x) {
    const __m256i shifted = _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(0x7F800000));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(shifted, _mm256_set1_epi32(-0x01000001)));
  }
  // With y about x^(-1/2) and d = 1 - x y^2, below 2^-10, the power is y^(3/2) * (1 - d)^(-3/4).
  static __m256 estimate(__m256 x) {
    const __m256 y = _mm256_rsqrt_ps(x), power = _mm256_mul_ps(y, _mm256_sqrt_ps(y));
    const __m256 d = _mm256_fnmadd_ps(_mm256_mul_ps(x, y), y, _mm256_set1_ps(1.0f));
    const __m256 series = _mm256_fmadd_ps(d, _mm256_set1_ps(0.65625f), _mm256_set1_ps(0.75f));
    return _mm256_fmadd_ps(power, _mm256_mul_ps(d, series), power);
  }
  static __m256 by_roots(__m256 x) {
    const __m256 y = _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_sqrt_ps(x));
    return _mm256_mul_ps(y, _mm256_sqrt_ps(y));
  }
  // vmaxps returns its second operand when one is NaN.
  V16 relu() const { return {_mm256_max_ps(_mm256_setzero_ps(), a), _mm256_max_ps(_mm256_setzero_ps(), b)}; }
  static __m256 max(__m256 x, __m256 y) {
    return _mm256_blendv_ps(_mm256_max_ps(x, y), x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  static V16 max(V16 x, V16 y) { return {max(x.a, y.a), max(x.b, y.b)}; }
  static V16 multiply_add(V16 x, V16 y, V16 z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  V16 operator+(V16 y) const { return {_mm256_add_ps(a, y.a), _mm256_add_ps(b, y.b)}; }
  V16 operator-(V16 y) const { return {_mm256_sub_ps(a, y.a), _mm256_sub_ps(b, y.b)}; }
  V16 operator*(V16 y) const { return {_mm256_mul_ps(a, y.a), _mm256_mul_ps(b, y.b)}; }
  V16 operator/(V16 y) const { return {_mm256_div_ps(a, y.a), _mm256_div_ps(b, y.b)}; }
};

// Shape of the micro-kernels: 12 of 16 registers hold sums.
struct Blocks {
  static constexpr int kPanels = 1;
  static constexpr int rows(int) { return 6; }
  // Panels of the next group when some are left.
  static constexpr uint32_t group(uint32_t) { return 1; }
};

using Element = float;
using Largest = V16;

}  // namespace
}  // namespace ie::cpu

#include "tile_kernels.h"

// Behind what they use.
#include "convolution.h"
#include "winograd.h"
#include "winograd_weights.h"

namespace ie::cpu {
const Kernels kAvx2Kernels = kernels_with<conv>(winograd, windows_to_points);
}  // namespace ie::cpu
