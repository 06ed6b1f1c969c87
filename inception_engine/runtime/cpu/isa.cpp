#include "isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ie::cpu {
namespace {

// The registers of AMX are large, so Linux (5.16 and newer) hands them out to processes that ask. The permission is of
// the whole process; from then on Linux refuses alternate signal stacks that are too small for them (some 11 KB).
bool has_amx() {
  constexpr unsigned kAmxBfloat16 = 1u << 22, kAmxTiles = 1u << 24;  // leaf 7, EDX
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBfloat16) == 0 || (d & kAmxTiles) == 0) {
    return false;
  }
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

bool has_avx512_bf16() {
  constexpr unsigned kAvx512Bfloat16 = 1u << 5;  // leaf 7.1, EAX
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kAvx512Bfloat16) != 0;
}

ie_isa find_best_isa() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    if (!has_avx512_bf16()) return IE_ISA_AVX512;
    return has_amx() ? IE_ISA_AMX : IE_ISA_AVX512_BF16;
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? IE_ISA_AVX2 : IE_ISA_PORTABLE;
}

}  // namespace

// Asked once. The permission is refused while a thread has an alternate signal stack that AMX would not fit on, and what
// is refused to a process's first context must not be given to its second: weights are gone by then (weights.h).
ie_isa best_isa() {
  static const ie_isa best = find_best_isa();
  return best;
}

}  // namespace ie::cpu
