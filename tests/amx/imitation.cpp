// Takes the place of isa.cpp and kernels_amx.cpp: a machine with AMX, in portable C++. The tile kernels are the library's
// own; the registers of AMX are imitated.
#include <cstdlib>

#include "cpu/isa.h"
#include "cpu/vector_portable.h"

namespace ie::cpu {
namespace {

using Element = Bfloat16;

// Keys as those of kernels_amx.cpp.
struct Largest {
  static constexpr uint32_t kLanes = 32;
  using Number = int16_t;

  static constexpr int kNaNs = 127;
  Number keys[kLanes];

  static int flipped(int bits) { return bits < 0 ? bits ^ 0x7FFF : bits; }
  static Largest load(const Bfloat16* p) { return load(p, kLanes); }
  static Largest load(const Bfloat16* p, uint32_t count) {
    Largest loaded = {};
    for (uint32_t i = 0; i < kLanes; ++i) {
      const int bits = i < count ? static_cast<Number>(p[i].bits) : 0;
      loaded.keys[i] = static_cast<Number>(flipped(bits) - kNaNs);
    }
    return loaded;
  }
  static Largest load(const Number* p) {
    Largest loaded;
    memcpy(&loaded, p, sizeof loaded);
    return loaded;
  }
  void store(Number* p) const { memcpy(p, keys, sizeof keys); }
  void store(Bfloat16* p) const { store(p, kLanes); }
  void store(Bfloat16* p, uint32_t count) const {
    for (uint32_t i = 0; i < count; ++i) {
      p[i].bits = static_cast<uint16_t>(flipped(static_cast<Number>(keys[i] + kNaNs)));
    }
  }
  Largest first(uint32_t count) const {
    Largest kept = *this;
    for (uint32_t i = count; i < kLanes; ++i) kept.keys[i] = -kNaNs;
    return kept;
  }
  static Largest max(const Largest& a, const Largest& b) {
    Largest larger = a;
    for (uint32_t i = 0; i < kLanes; ++i) {
      if (b.keys[i] > a.keys[i]) larger.keys[i] = b.keys[i];
    }
    return larger;
  }
};

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

const Kernels kAmxKernels = kernels_with<conv>(conv, nullptr);

ie_isa best_isa() { return IE_ISA_AMX; }

}  // namespace ie::cpu
