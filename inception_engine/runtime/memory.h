// Large memory: a plan's file, the arena and scratch of a context. From the caller's functions where there are some.
#pragma once

#include <cstddef>
#include <memory>

#include "include/inception_engine.h"

namespace ie {

// Where large memory comes from. Without functions: the C library.
struct Allocator {
  ie_allocate_function allocate = nullptr;
  ie_release_function release = nullptr;
  void* user = nullptr;
};

struct Release {
  Allocator by;
  size_t bytes = 0;
  void operator()(std::byte* memory) const;
};

using Memory = std::unique_ptr<std::byte, Release>;

// Memory of any content, aligned to 64 bytes, from 2 MiB on to 2 MiB. Throws std::bad_alloc.
Memory allocate(const Allocator& allocator, size_t bytes);

// The same, zeroed: no page of it is touched for the first time in a run.
Memory allocate_zeroed(const Allocator& allocator, size_t bytes);

// Gives the whole pages of [begin, end) back to the system; whoever reads them later finds zeros. The memory is one that
// `allocator` gave. A caller's stays as it is: it may lie where its pages are not the caller's alone. Returns where what
// is left begins.
std::byte* give_back(const Allocator& allocator, std::byte* begin, std::byte* end);

}  // namespace ie
