// Takes the place of kernels_avx512_bf16.cpp, in portable C++.
#include "cpu/vector_portable.h"
#include "largest.h"

namespace ie::cpu {
namespace {
using Element = Bfloat16;
}  // namespace
}  // namespace ie::cpu

#include "cpu/tile_kernels.h"

// Behind what it uses.
#include "cpu/step.h"

namespace ie::cpu {
namespace {

struct Pairs {
  Bfloat16 pairs[kPanel][2];
};

// As Intel's manual describes vdpbf16ps: the second product is added first, and each sum is rounded. Numbers below the normal
// ones are not made zeros.
template <>
struct Step<Bfloat16> {
  static constexpr size_t kElements = 2;
  using Vector = Pairs;

  static Pairs weights(const float* line) {
    Pairs loaded;
    memcpy(&loaded, line, sizeof loaded);
    return loaded;
  }
  static Pairs broadcast(const Bfloat16* elements) { return all(elements[0], elements[1]); }
  static Pairs broadcast_last(const Bfloat16* element) { return all(*element, Bfloat16{0}); }
  static Pairs all(Bfloat16 first, Bfloat16 second) {
    Pairs made;
    for (auto& pair : made.pairs) pair[0] = first, pair[1] = second;
    return made;
  }
  static V16 multiply_add(const Pairs& elements, const Pairs& weights, V16 sum) {
    float lanes[kPanel];
    sum.store(lanes);
    for (uint32_t lane = 0; lane < kPanel; ++lane) {
      for (int i = 1; i >= 0; --i) {
        lanes[lane] +=
            from_bfloat16(elements.pairs[lane][i].bits) * from_bfloat16(weights.pairs[lane][i].bits);
      }
    }
    return V16::load(lanes);
  }
};

}  // namespace
}  // namespace ie::cpu

#include "cpu/convolution.h"
#include "cpu/winograd.h"
#include "cpu/winograd_weights.h"

namespace ie::cpu {
const Kernels kAvx512Bf16Kernels = kernels_with<conv>(winograd, windows_to_points);
}  // namespace ie::cpu
