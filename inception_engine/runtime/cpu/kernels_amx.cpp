// The tile kernels for AMX: activations are bfloat16, a V16 is a register of AVX-512 (with AVX512-BF16).
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

  // All registers are 16 rows of 64 bytes, until end(). A thread that has none in use is cheaper to switch.
  static void begin() {
    static constexpr Shapes kShapes = {
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    asm volatile("ldtilecfg %0" : : "m"(kShapes));
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
  // Sums of products of pairs: [16 rows][16 pairs] of kRows with [16 pairs][16 columns] of kColumns.
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
// Direct convolutions are faster here than Winograd's algorithm.
const Kernels kAmxKernels = kernels_with(conv, conv, nullptr);
}  // namespace ie::cpu
