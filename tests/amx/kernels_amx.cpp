// Takes the place of kernels_amx.cpp, in portable C++. The tile kernels are the library's own; the registers of AMX are
// imitated.
#include <cstdlib>

#include "cpu/vector_portable.h"
#include "largest.h"

namespace ie::cpu {
namespace {

using Element = Bfloat16;

// As Intel's manual describes the instructions. A product of two bfloat16 is exact in float32, so that a product and a sum
// are one rounding here, too; but numbers below the normal ones are not made zeros.
struct MatrixUnit {
  union Register {
    float sums[16][16];
    Bfloat16 pairs[16][16][2];
    char rows[16][64];
  };
  static thread_local Register registers[8];
  static thread_local int pairs;  // in a row of input; 0: not ready

  static void begin(uint32_t step) {
    if (pairs != 0 || step == 0 || step > 32 || step % 2 != 0) abort();
    pairs = int(step / 2);
  }
  static void end() {
    if (pairs == 0) abort();
    pairs = 0;
    memset(registers, 0xFF, sizeof registers);
  }
  static Register& at(int number) {
    if (pairs == 0) abort();
    return registers[number];
  }
  template <int kRegister>
  static void zero() {
    at(kRegister) = {};
  }
  template <int kRegister>
  static void load(const void* p, ptrdiff_t stride) {
    static_assert(kRegister >= 4);
    const bool weights = kRegister >= 6;
    const size_t bytes = weights ? 64 : size_t(pairs) * 4;
    for (ptrdiff_t i = 0; i < (weights ? pairs : 16); ++i)
      memcpy(at(kRegister).rows[i], static_cast<const char*>(p) + i * stride, bytes);
  }
  template <int kRegister>
  static void store(void* p, ptrdiff_t stride) {
    for (ptrdiff_t i = 0; i < 16; ++i) memcpy(static_cast<char*>(p) + i * stride, at(kRegister).rows[i], 64);
  }
  template <int kSums, int kRows, int kColumns>
  static void multiply_add() {
    float b[16][16][2];
    for (int k = 0; k < pairs; ++k) {
      for (int n = 0; n < 16; ++n) {
        for (int i = 0; i < 2; ++i) b[k][n][i] = from_bfloat16(at(kColumns).pairs[k][n][i].bits);
      }
    }
    for (int m = 0; m < 16; ++m) {
      float even[16] = {}, odd[16] = {};
      for (int k = 0; k < pairs; ++k) {
        const Bfloat16* pair = at(kRows).pairs[m][k];
        const float first = from_bfloat16(pair[0].bits), second = from_bfloat16(pair[1].bits);
        for (int n = 0; n < 16; ++n) even[n] += first * b[k][n][0], odd[n] += second * b[k][n][1];
      }
      for (int n = 0; n < 16; ++n) at(kSums).sums[m][n] += even[n] + odd[n];
    }
  }
  static void copy(Bfloat16* to, const Bfloat16* from, uint32_t count) {
    memcpy(to, from, count * sizeof *to);
  }
};

thread_local MatrixUnit::Register MatrixUnit::registers[8];
thread_local int MatrixUnit::pairs = 0;

}  // namespace
}  // namespace ie::cpu

#include "cpu/tile_kernels.h"

// Behind what it uses.
#include "cpu/convolution_amx.h"

namespace ie::cpu {

const Kernels kAmxKernels = kernels_with<conv>(nullptr, nullptr);
}  // namespace ie::cpu
