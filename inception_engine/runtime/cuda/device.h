// A plan's CUDA programs on one GPU: what all contexts of an engine share, and nothing that a run changes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../plan.h"
#include "archive.h"
#include "driver.h"
#include "module.h"

namespace ie::cuda {

// A kernel as it is launched for one LaunchRecord.
struct Kernel {
  CUfunction function = nullptr;
  uint32_t threads = 0, shared = 0;
  uint32_t blocks = 0;    // of the grid: no more than there are tasks, nor than the GPU holds at once
  bool overlaps = false;  // with the end of the kernel before it
};

// Addresses of the tables on the GPU, and a kernel for each launch.
struct BoundProgram {
  uint64_t tasks, waits, ops, buffers;
  std::vector<Kernel> launches;
  std::vector<std::unique_ptr<BoundModule>> modules;  // of each launch; null: `walk` runs it
  std::vector<uint32_t> ends;                         // of each output: behind the last task that writes it

  bool is_last_walk(size_t launch) const;
  // Whether `walk` writes the buffer, and so can store it for the caller, too.
  bool exports(uint32_t buffer) const;
};

class Device {
 public:
  // `programs`: proven, of one dtype. `archive`: a path, or empty for the one beside the library. Throws Refusal: what
  // driver() throws, IE_ERROR_DEVICE, IE_ERROR_GPU, IE_ERROR_KERNELS, IE_ERROR_NO_PROGRAM, IE_ERROR_MEMORY.
  Device(const Plan& plan, const std::vector<const Program*>& programs, uint32_t ordinal,
         const std::string& archive, ie_specialise specialise);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int ordinal() const { return ordinal_; }
  CUcontext context() const { return primary_.context; }
  uint64_t weights() const { return shared_->weights.get(); }
  const BoundProgram& program(uint32_t index) const { return shared_->programs[index]; }
  const Kernel& copy_output() const { return shared_->copy_output; }
  // Launches of all programs that the kernel `module` runs.
  uint32_t modules() const;

 private:
  // The context that CUDA's runtime, and so PyTorch, uses too.
  struct Primary {
    CUdevice device = 0;
    CUcontext context = nullptr;
    ~Primary();
  };
  // Made and released while the context is current.
  struct Shared {
    std::vector<Module> modules;
    DeviceMemory weights, module_weights;
    std::vector<DeviceMemory> tables;
    std::vector<BoundProgram> programs;
    Kernel copy_output;
  };
  class Loader;

  int ordinal_;
  Primary primary_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace ie::cuda
