// A plan in memory: read, checked against plan_format.h, proven (proof/proof.h), and never changed again, but for
// weights that nobody reads any more.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "include/inception_engine.h"
#include "memory.h"
#include "program.h"

namespace ie {

// Why a plan or a call is refused. Thrown inside the runtime, turned into a status at the C boundary.
struct Refusal {
  ie_status status;
  std::string message;
};

// What an errno means, in English whatever locale the program has set.
std::string error_text(int error);

// The whole file, in private memory, 64-byte aligned; the sections that are not tables stay there.
struct Image {
  Memory data;
  size_t bytes = 0;
};

struct Plan {
  Image image;
  std::byte* weights = nullptr;  // an engine on the CPU gives pages of them back (cpu/weights.h)
  uint64_t weight_bytes = 0;
  std::string_view metadata;
  std::vector<Program> programs;
};

// Throw Refusal or std::bad_alloc.
Image read_file(const char* path, const Allocator& allocator);
Image copy_memory(const void* data, size_t bytes, const Allocator& allocator);
Plan load_plan(Image image);

}  // namespace ie
