// The kernel `module` in the place of `walk` (archive.h, 9 and 10): which launches it can run, with which weights, and
// what they are passed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "../plan.h"
#include "archive.h"
#include "driver.h"

namespace ie::cuda {

constexpr uint32_t kProducts = 5;  // reduces, 1x1, 3x3, third branch, projection
constexpr size_t kModuleParameters = sizeof kModuleSizes / sizeof kModuleSizes[0];

// A launch that computes an Inception module. The numbers are those of buffers and ops.
struct InceptionModule {
  ModuleSizes sizes;
  uint32_t x, reduced, pooled, out;
  std::array<uint32_t, kProducts> ops;

  bool writes(uint32_t buffer) const { return buffer == reduced || buffer == pooled || buffer == out; }
};

// Nothing if the launch computes anything else, if its channels or lines are none that the kernel takes, or if two of
// its buffers share memory: r and p are written at the same time.
std::optional<InceptionModule> find_module(const Program& program, const LaunchRecord& launch);

// Addresses; offsets before the bytes have a place.
struct ModuleWeights {
  std::array<uint64_t, kProducts> products;
  uint64_t biases;
};

// Appends the weights of a module, (columns, K), and its biases.
ModuleWeights append_weights(const Plan& plan, const Program& program, const InceptionModule& module,
                             std::vector<std::byte>* bytes);

// A launch on a GPU.
struct BoundModule {
  InceptionModule module;
  ModuleRecord record;
  ModuleWeights weights;

  uint32_t groups(uint32_t batch) const { return (batch + record.group - 1) / record.group; }
  uint64_t tickets(uint32_t batch) const {
    return record.first + uint64_t{groups(batch)} * (uint64_t{record.first} + record.second);
  }
  // Lines of state: status, a counter for each group, ticket.
  uint32_t lines(uint32_t batch) const { return groups(batch) + 2; }
};

// What is passed, in the arena and the state of one context; for all batches of a program but for `batch` itself.
struct ModuleParameters {
  CUtensorMap maps[kMaps];
  uint32_t shapes[kMaps][4];   // the outermost first
  uint64_t strides[kMaps][4];  // elements
  uint64_t x, reduced, pooled, out, biases, state, ticket;
  uint32_t batch;
  uint64_t hidden[2];

  std::array<void*, kModuleParameters> pointers();
};

// `state`: of bound.lines() lines. Throws Refusal.
ModuleParameters describe(const BoundModule& bound, const Program& program, uint64_t arena, uint64_t state);

}  // namespace ie::cuda
