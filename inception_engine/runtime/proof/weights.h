// What ops read of the weights' section.
#pragma once

#include <cstdint>

#include "../program.h"

namespace ie::proof {

void prove_weights(const Program& p, uint32_t i, uint64_t weight_bytes);

// What the CPU makes of weights, for Winograd's algorithm and of half precision, is made of no byte of the file twice in one way.
void prove_made_weights(const Program& p, uint64_t weight_bytes);

}  // namespace ie::proof
