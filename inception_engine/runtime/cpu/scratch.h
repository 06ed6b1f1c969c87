// The memory of workers beside activations and weights.
#pragma once

#include <cstdint>
#include <vector>

#include "../include/inception_engine.h"
#include "../memory.h"
#include "../program.h"
#include "kernels.h"

namespace ie::cpu {

// Of all workers of a context: as much as any op of its programs needs.
struct ScratchMemory {
  Memory memory;
  std::vector<Scratch> workers;
};

// `input`: of the run, wherever the context keeps it. Throws std::bad_alloc.
ScratchMemory make_scratch(const std::vector<const Program*>& programs, ie_isa isa, uint32_t threads,
                           const Allocator& allocator, const ie_input* input);

}  // namespace ie::cpu
