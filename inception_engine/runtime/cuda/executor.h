// Runs programs on a GPU: one executor is one context, its stream, its activations and its graphs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device.h"

namespace ie::cuda {

class Executor {
 public:
  // `programs`: those of the device, sorted by max_batch; they outlive the executor. Throws Refusal.
  Executor(std::shared_ptr<const Device> device, const std::vector<const Program*>& programs, bool poison);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // The arguments were checked, but for where their memory lies. All throw Refusal; after IE_ERROR_DEVICE_LOST every
  // later call does so again.
  //
  // Images and results in host memory or on the GPU; returns when the results are there.
  void run(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count);
  // All on the GPU, on the caller's stream, which may be capturing. Returns at once.
  void enqueue(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count,
               CUstream stream);
  // Waits for what was enqueued; IE_ERROR_TIMEOUT if a wait inside gave up since the last check.
  void check_enqueued();

 private:
  // A run between host memory and host memory, ready to be repeated.
  struct Replay {
    uint32_t program, batch, format;
    std::vector<uint32_t> outputs;
    uint64_t last_use;
    GraphExec graph;
  };
  // Made and released while the context is current.
  struct Resources {
    Stream stream;
    Event enqueued;
    DeviceMemory arena, image, results_and_state;
    std::vector<std::vector<ModuleParameters>> modules;  // of each program, in the order of its launches
    PinnedMemory pinned;
    std::vector<Replay> replays;
  };

  template <typename Body>
  void entered(Body body);
  std::unique_ptr<Resources> make_resources();
  size_t output_bytes(uint32_t index, uint32_t batch) const;
  bool on_gpu(const void* data, const char* what) const;
  void wait_for_enqueued(CUstream stream);
  void clear_state(CUstream stream);
  size_t place(const ie_output* outputs, uint32_t count, uint32_t batch, bool* all_on_host);
  CUgraphExec replay(uint32_t program, const ie_input& input, size_t image_bytes, size_t result_bytes);
  void transfer_and_issue(uint32_t program, const ie_input& input, size_t image_bytes, size_t result_bytes);
  void issue(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count,
             CUstream stream);
  void finish(CUstream stream);
  size_t status_bytes() const { return module_bytes_ + sizeof(uint32_t); }

  const std::shared_ptr<const Device> device_;
  const std::vector<const Program*> programs_;
  const bool poison_;
  size_t arena_bytes_ = 0, image_bytes_ = 0, results_bytes_ = 0, state_words_ = 0;
  size_t module_bytes_ = 0;  // of the state: the modules', which stands first
  std::unique_ptr<Resources> resources_;
  uint64_t state_ = 0;               // on the GPU; results end where it begins
  std::byte* host_image_ = nullptr;  // pinned
  std::byte* host_status_ =
      nullptr;  // pinned; the modules' state and walk's status; results end where it begins
  std::vector<size_t>
      result_offsets_;  // of each output before the state, in the current run; 0: not asked for
  std::vector<ie_output> gpu_outputs_;  // of the current run
  uint64_t runs_ = 0;
  bool pending_ = false;  // something was enqueued that nobody has waited for
  bool dirty_ = false;    // a run broke off between its launches: its counters are not zero
  std::string lost_;      // why the GPU cannot be used any more
};

}  // namespace ie::cuda
