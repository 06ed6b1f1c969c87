// What this machine's processor can do.
#pragma once

#include "../include/inception_engine.h"

namespace ie::cpu {

// Best instruction set of this machine that its system lets this process use: the same whenever it is asked for.
ie_isa best_isa();

}  // namespace ie::cpu
