// A proven program in memory: what the loader hands to an executor.
#pragma once

#include <string>
#include <vector>

#include "plan_format.h"

namespace ie {

// A proven program: the tables of plan_format.h, copied out of the file. Immutable.
struct Program {
  ProgramHeader header;
  std::vector<BufferRecord> buffers;
  std::vector<OutputRecord> outputs;
  std::vector<OpRecord> ops;
  std::vector<LaunchRecord> launches;
  std::vector<TaskRecord> tasks;
  std::vector<WaitRecord> waits;
  std::string strings;
};

// Whether an op normalises across channels, be it alone or behind what else it does.
inline bool has_lrn(const OpRecord& op) {
  return op.kind == uint32_t(OpKind::kLrn) || (op.flags & kThenLrn) != 0;
}

// Whether an op pools, be it alone or in front of what else it does.
inline bool has_pool(const OpRecord& op) {
  return op.kind == uint32_t(OpKind::kMaxPool) || op.kind == uint32_t(OpKind::kAveragePool) ||
         (op.flags & kMaxPoolFirst) != 0;
}

// Pixels that a convolution multiplies with weights for one output: those of its window, or what a pool makes of them.
inline uint32_t taps(const OpRecord& op) {
  return op.flags & kMaxPoolFirst ? 1 : op.kernel_h * op.kernel_w;  // at most 2^20
}

// Those side by side.
inline uint32_t taps_across(const OpRecord& op) { return op.flags & kMaxPoolFirst ? 1 : op.kernel_w; }

// How many parts K of an op has, and so tasks each of its tiles.
inline uint64_t part_count(const OpRecord& op) {
  const uint64_t depth = uint64_t{op.kernel_h} * op.kernel_w * op.in_channels;
  return op.part_depth == 0 ? 1 : (depth + op.part_depth - 1) / op.part_depth;
}

// Height and width of the patches of a convolution by Winograd's algorithm.
inline uint32_t patch_size(const OpRecord& op) { return op.flags & kSmallPatches ? 4 : 6; }

// The number of a tile in its op: from left to right, then down.
inline uint64_t tile_number(const OpRecord& op, uint64_t row, uint64_t column) {
  const uint64_t across = (uint64_t{op.out_padded} + op.tile_columns - 1) / op.tile_columns;
  return row / op.tile_rows * across + column / op.tile_columns;
}

}  // namespace ie
