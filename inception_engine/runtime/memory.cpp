#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace ie {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

void Release::operator()(std::byte* memory) const {
  if (by.release != nullptr) {
    by.release(by.user, memory, bytes);
  } else {
    std::free(memory);
  }
}

Memory allocate(const Allocator& allocator, size_t bytes) {
  // Weights and activations are read in every run: in huge pages that does not wait for address translation.
  const size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
  if (bytes > SIZE_MAX - alignment) throw std::bad_alloc();
  const size_t rounded = (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* given = allocator.allocate != nullptr ? allocator.allocate(allocator.user, rounded, alignment)
                                              : std::aligned_alloc(alignment, rounded);
  Memory memory(static_cast<std::byte*>(given), Release{allocator, rounded});
  if (memory == nullptr || reinterpret_cast<uintptr_t>(given) % alignment != 0) throw std::bad_alloc();
  // Advice, so failure does no harm; a caller's memory is the caller's to advise on. What does not fill a huge page would
  // take a whole one all the same.
  if (allocator.allocate == nullptr && alignment == kHugePage)
    madvise(given, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return memory;
}

Memory allocate_zeroed(const Allocator& allocator, size_t bytes) {
  Memory memory = allocate(allocator, bytes);
  std::memset(memory.get(), 0, bytes);
  return memory;
}

std::byte* give_back(const Allocator& allocator, std::byte* begin, std::byte* end) {
  if (allocator.allocate != nullptr) return begin;
  std::byte* const first = begin + (kPage - reinterpret_cast<uintptr_t>(begin) % kPage) % kPage;
  std::byte* const last = end - reinterpret_cast<uintptr_t>(end) % kPage;
  if (first >= last) return begin;
  madvise(first, static_cast<size_t>(last - first), MADV_DONTNEED);  // memory that is locked stays
  return last;
}

}  // namespace ie
