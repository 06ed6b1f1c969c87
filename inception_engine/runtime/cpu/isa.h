// What this machine's processor can do.
#pragma once

#include "../include/inception_engine.h"

namespace ie::cpu {

// Best instruction set of this machine, and that its system lets this process use.
ie_isa best_isa();

}  // namespace ie::cpu
