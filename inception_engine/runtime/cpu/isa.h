// What this machine's processor can do.
#pragma once

#include "../include/inception_engine.h"

namespace ie::cpu {

// Best instruction set of this machine that its system lets this process use: the same whenever it is asked for.
ie_isa best_isa();

// The instruction sets in their order, of which each machine has those up to its best. Not their numbers, which stay.
constexpr int rank(ie_isa isa) {
  return isa == IE_ISA_AVX512_BF16 ? IE_ISA_AMX : isa == IE_ISA_AMX ? IE_ISA_AMX + 1 : isa;
}

}  // namespace ie::cpu
