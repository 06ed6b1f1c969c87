// A plan file taken apart, so that a mutator can change one thing and put the rest together again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "program.h"

namespace hardening {

using Bytes = std::vector<uint8_t>;

struct SectionParts {
  uint32_t kind = 0;
  Bytes content;                       // unless it is a program whose tables fill its section
  std::optional<ie::Program> program;  // then its tables, whatever they say
};

struct PlanParts {
  uint32_t version = 1;
  std::vector<SectionParts> sections;
};

// Nothing if the sections cannot be found; the hash is not looked at.
std::optional<PlanParts> take_apart(const uint8_t* data, size_t bytes);

// A file with a right header, section table and hash. Counts in the headers of programs follow their tables.
Bytes put_together(const PlanParts& plan);

// Writes the length and the hash of what follows the header into it; nothing if there is no whole header.
void mend(uint8_t* data, size_t bytes);

// Multiply-adds, and comparisons of pools, of one run at the largest batch.
double work(const ie::Program& program);

}  // namespace hardening
