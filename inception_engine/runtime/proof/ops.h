// Each op by itself: its values, what it reads and writes, and its work.
#pragma once

#include <cstdint>

#include "../program.h"

namespace ie::proof {

// Rules 1 and 2 for ops.
void prove_ops(const Program& p, uint64_t weight_bytes);

}  // namespace ie::proof
