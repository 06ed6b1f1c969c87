// A plan in memory: read, checked against plan_format.h, proven (proof.h), and never changed again.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "include/inception_engine.h"
#include "program.h"

namespace ie {

// Why a plan or a call is refused. Thrown inside the runtime, turned into a status at the C boundary.
struct Refusal {
  ie_status status;
  std::string message;
};

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// The whole file, in private memory, 64-byte aligned; the sections that kernels read (weights) stay there.
struct Image {
  std::unique_ptr<std::byte, Free> data;
  size_t bytes = 0;
};

struct Plan {
  Image image;
  const std::byte* weights = nullptr;
  uint64_t weight_bytes = 0;
  std::string metadata;
  std::vector<Program> programs;
};

// Throw Refusal or std::bad_alloc.
Image read_file(const char* path);
Image copy_memory(const void* data, size_t bytes);
Plan load_plan(Image image);

}  // namespace ie
