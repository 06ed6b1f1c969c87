// Walks programs on the CPU: one executor is one context, its threads and its memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../include/inception_engine.h"
#include "../memory.h"
#include "../program.h"
#include "bound_program.h"
#include "weights.h"

namespace ie::cpu {

// Already resolved: threads >= 1, an ISA that this machine has, a timeout above 0.
struct Settings {
  uint32_t threads;
  ie_isa isa;
  bool poison;
  uint32_t timeout_ms;
  Allocator allocator;  // of the arena and scratch
};

class Executor {
 public:
  // `programs`: proven, sorted by max_batch; they outlive the executor. `weights`: of the same programs. Returns
  // IE_ERROR_MEMORY or IE_ERROR_THREAD with nothing leaked; no exception escapes.
  static ie_status create(const std::vector<const Program*>& programs, std::shared_ptr<Weights> weights,
                          const Settings& settings, std::unique_ptr<Executor>* out, std::string* error);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs one program and copies `count` of its outputs to the caller. The arguments were checked. Allocates
  // nothing. `message`: IE_MESSAGE_BYTES, written on failure. After IE_ERROR_TIMEOUT every later run fails.
  ie_status run(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count,
                char* message);

  // Runs write the times of their tasks, of the first `count`; see ie_context_trace.
  void trace(uint64_t* times, size_t count);

 private:
  class Machine;
  explicit Executor(std::unique_ptr<Machine> machine);
  std::unique_ptr<Machine> machine_;
};

}  // namespace ie::cpu
