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

}  // namespace ie
