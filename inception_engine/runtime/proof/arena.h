// The buffers of the arena, and what shares memory there.
#pragma once

#include <vector>

#include "../program.h"
#include "op_set.h"

namespace ie::proof {

// Rules 1 and 2 for buffers.
void prove_buffers(const Program& p);

// For each buffer, the ops that must be complete before it is written.
std::vector<OpSet> prove_reuse(const Program& p);

}  // namespace ie::proof
