// Takes the place of isa.cpp: the best machine that there is. What it has and this one lacks is imitated.
#include "cpu/isa.h"

namespace ie::cpu {

ie_isa best_isa() { return IE_ISA_AMX; }

}  // namespace ie::cpu
