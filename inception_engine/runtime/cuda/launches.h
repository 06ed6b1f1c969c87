// The launches of one run, left to a stream.
#pragma once

#include <cstdint>
#include <vector>

#include "../include/inception_engine.h"
#include "device.h"

namespace ie::cuda {

// Of one context, on the GPU. `state`: that of `walk`, its status, counters and tickets, as a run leaves it: zero.
struct RunMemory {
  CUdeviceptr arena, state;
};

// A program of `device`, whose context is current. Images and outputs are on the GPU. `modules`: what its launches of the
// kernel `module` are passed. Throws Refusal; some launches may be on their way then, and the counters are not zero.
void launch_run(const Device& device, uint32_t index, const Program& program, const RunMemory& memory,
                std::vector<ModuleParameters>* modules, const ie_input& input, const ie_output* outputs,
                uint32_t count, CUstream stream);

}  // namespace ie::cuda
