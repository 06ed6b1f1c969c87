// The tile kernels for AVX512-BF16: activations are bfloat16, a V16 is a register of AVX-512.
#include "largest_bfloat16.h"
#include "vector_avx512.h"

namespace ie::cpu {
namespace {
using Element = Bfloat16;
}  // namespace
}  // namespace ie::cpu

#include "tile_kernels.h"

// Behind what it uses.
#include "step.h"

namespace ie::cpu {
namespace {

// Pairs of elements, whose products with a pair of weights are added to a sum in one instruction (vdpbf16ps).
template <>
struct Step<Bfloat16> {
  static constexpr size_t kElements = 2;
  using Vector = __m512i;

  static Vector weights(const float* line) { return _mm512_loadu_si512(line); }
  static Vector broadcast(const Bfloat16* elements) {
    int pair;
    memcpy(&pair, elements, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  // Of an odd number: what lies behind the last may be no number, which a weight of zero would not undo.
  static Vector broadcast_last(const Bfloat16* element) { return _mm512_set1_epi32(element->bits); }
  static V16 multiply_add(Vector elements, Vector weights, V16 sum) {
    return {_mm512_dpbf16_ps(sum.r, (__m512bh)elements, (__m512bh)weights)};
  }
};

}  // namespace
}  // namespace ie::cpu

#include "convolution.h"
#include "winograd.h"
#include "winograd_weights.h"

namespace ie::cpu {
const Kernels kAvx512Bf16Kernels = kernels_with<conv>(winograd, windows_to_points);
}  // namespace ie::cpu
