// Counts, sizes and work that no program passes.
#pragma once

#include <cstdint>

namespace ie::proof {

// Products of these fit 64 bits: rows of a whole batch < 2^31, times pitch < 2^24, times 4 bytes.
constexpr uint64_t kMaxRows = uint64_t{1} << 31;
constexpr uint32_t kMaxSize = 1u << 24;  // channels, heights, widths, strides
constexpr uint32_t kMaxWindow = 1u << 10;
constexpr uint32_t kMaxBatch = 4096;
constexpr uint32_t kMaxBuffers = 1024, kMaxOps = 1024, kMaxLaunches = 4096, kMaxOutputs = 4096;
constexpr uint32_t kMaxTasks = 1u << 22, kMaxWaits = 1u << 25, kMaxCounters = 1u << 22;
constexpr uint32_t kMaxStrings = 1u << 24;
constexpr uint64_t kMaxArena = uint64_t{1} << 36;
constexpr uint64_t kMaxWork = uint64_t{1} << 44;  // multiply-adds of one run: minutes, not days
// The proof holds little more memory than the tables: for each task at most so many words of sets of complete ops,
// beside some that every program may have.
constexpr uint64_t kProofWordsPerTask = 3, kFreeProofWords = uint64_t{1} << 16;
constexpr uint64_t kFreeNames = uint64_t{1} << 16;  // bytes of outputs' names beyond those of the strings
constexpr uint32_t kMaxOpsPerCounter = 16;
constexpr uint64_t kMaxParts = 64;  // of K

}  // namespace ie::proof
