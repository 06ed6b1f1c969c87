// Which kernels of an archive run a plan's launches on a GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../plan.h"
#include "archive.h"
#include "module.h"

namespace ie::cuda {

struct GpuProperties {
  int capability;  // 80 is 8.0
  int multiprocessors;
  int max_shared;  // bytes of a block

  std::string text() const {
    return "compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10);
  }
};

// What runs a launch: one of the two.
struct LaunchChoice {
  const KernelRecord* walk = nullptr;
  std::unique_ptr<BoundModule> module;
};

// The records are the archive's.
struct KernelChoice {
  std::vector<LaunchChoice> launches;  // of all programs, one after the other
  const KernelRecord* copy_output = nullptr;
};

// What the proof allows and walk cannot count. Throws Refusal: IE_ERROR_NO_PROGRAM.
void check_sizes(const Plan& plan, const std::vector<const Program*>& programs);

// `programs`: of one dtype. Throws Refusal: IE_ERROR_GPU, IE_ERROR_KERNELS, IE_ERROR_NO_PROGRAM.
KernelChoice choose_kernels(const Archive& archive, const GpuProperties& gpu,
                            const std::vector<const Program*>& programs, ie_specialise specialise);

}  // namespace ie::cuda
