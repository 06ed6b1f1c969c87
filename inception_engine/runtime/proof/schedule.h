// Launches and tasks: each tile of each op is computed once, and in one launch.
#pragma once

#include <cstdint>
#include <vector>

#include "../program.h"

namespace ie::proof {

struct OpTiles {
  uint64_t down = 0, across = 0;   // tiles of the output
  uint64_t parts = 1;              // of each tile
  uint64_t first = 0;              // of this op, in the flat tables of tiles' parts
  uint64_t count = 0;              // tasks seen
  uint32_t launch = kNone;         // that holds its tasks
  std::vector<uint32_t> band;      // per row of tiles: the counter that all its tasks signal, or kNone
  std::vector<uint32_t> band_end;  // per row of tiles: the first row behind it with another counter

  uint64_t end() const { return first + down * across * parts; }
};

struct Schedule {
  std::vector<OpTiles> tiles;                  // per op
  std::vector<uint32_t> signals, last_signal;  // per counter: how many; the last task
};

void prove_launches(const Program& p);

// Rules 3 and 4 for tasks.
Schedule prove_tasks(const Program& p);

}  // namespace ie::proof
