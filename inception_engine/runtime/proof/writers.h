// Who writes what ops and callers read.
#pragma once

#include <cstdint>
#include <vector>

#include "../program.h"

namespace ie::proof {

// Of the writers of some buffer: [begin, end).
struct Range {
  uint32_t begin = 0, end = 0;
  bool empty() const { return begin == end; }
};

struct Writers {
  std::vector<std::vector<uint32_t>> of_buffer;  // per buffer, by column
  std::vector<Range> sources;                    // per op: who writes what it reads
};

// Rule 3: who writes which columns of each buffer.
Writers prove_writers(const Program& p);

void prove_outputs(const Program& p, const Writers& writers);

}  // namespace ie::proof
