// The tile kernels for AMX: activations are bfloat16, a V16 is a register of AVX-512 (with AVX512-BF16).
#include "largest_bfloat16.h"
#include "vector_avx512.h"

namespace ie::cpu {
namespace {

using Element = Bfloat16;

// The registers of AMX, by their numbers. Assembly, for the compilers' own functions take no template's constant for a
// number, nor say that they read and write memory.
struct MatrixUnit {
  struct alignas(64) Shapes {
    uint8_t palette, start;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Shapes) == 64);

  // Until end(): 0 to 3 for sums; 4 and 5 for rows of `step` elements, an even number; 6 and 7 for as many rows of weights.
  // A thread that has none in use is cheaper to switch.
  static void begin(uint32_t step) {
    const auto bytes = uint16_t(step * sizeof(Bfloat16));
    const auto pairs = uint8_t(step / 2);
    const Shapes shapes = {
        1, 0, {}, {64, 64, 64, 64, bytes, bytes, 64, 64}, {16, 16, 16, 16, 16, 16, pairs, pairs}};
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }
  static void end() { asm volatile("tilerelease"); }

  template <int kRegister>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kRegister));
  }
  template <int kRegister>
  static void load(const void* p, ptrdiff_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kRegister) : "memory");
  }
  template <int kRegister>
  static void store(void* p, ptrdiff_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(kRegister) : "memory");
  }
  // Sums of products of pairs: [16 rows][pairs] of kRows with [pairs][16 columns] of kColumns.
  template <int kSums, int kRows, int kColumns>
  static void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kRows), "i"(kColumns));
  }

  static void copy(Bfloat16* to, const Bfloat16* from, uint32_t count) {
    for (; count >= 32; count -= 32, to += 32, from += 32) _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    const auto rest = static_cast<__mmask32>((1u << count) - 1);
    _mm512_mask_storeu_epi16(to, rest, _mm512_maskz_loadu_epi16(rest, from));
  }
};

}  // namespace
}  // namespace ie::cpu

#include "tile_kernels.h"

// Behind what it uses.
#include "convolution_amx.h"

namespace ie::cpu {
// Direct convolutions are faster here than Winograd's algorithm (takes_points).
const Kernels kAmxKernels = kernels_with<conv>(nullptr, nullptr);
}  // namespace ie::cpu
