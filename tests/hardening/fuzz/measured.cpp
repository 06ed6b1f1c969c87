#include "measured.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

// Of both compilers' sanitisers; their header is not installed with every GCC.
extern "C" {
int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void*, size_t),
                                              void (*freed)(const volatile void*));
size_t __sanitizer_get_allocated_size(const volatile void* memory);
}

namespace hardening {
namespace {

thread_local bool counting = false;
thread_local long long held = 0, peak = 0;
Most most{-(1ll << 60), 0};

void allocated(const volatile void*, size_t bytes) {
  if (!counting) return;
  held += static_cast<long long>(bytes);
  peak = std::max(peak, held);
}

void freed(const volatile void* memory) {
  if (!counting || memory == nullptr) return;
  held -= static_cast<long long>(__sanitizer_get_allocated_size(memory));
}

double processor_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

}  // namespace

void finding(const char* line) {
  std::fprintf(stderr, "finding: %s\n", line);
  std::abort();
}

void measured(size_t bytes, const std::function<void()>& body) {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(allocated, freed);
  if (installed == 0) finding("the allocation hooks cannot be installed");
  double seconds = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    held = peak = 0;
    counting = true;
    const double start = processor_seconds();
    body();
    seconds = processor_seconds() - start;
    counting = false;
    if (seconds <= kSeconds || bytes > kSmall) break;
  }
  most.excess_bytes = std::max(most.excess_bytes, peak - static_cast<long long>(kBytesPerInputByte * bytes));
  if (bytes <= kSmall) most.seconds = std::max(most.seconds, seconds);
  char line[128];
  if (peak > static_cast<long long>(kBytesPerInputByte * bytes + kFreeBytes)) {
    std::snprintf(line, sizeof line, "%lld bytes held for an input of %zu", peak, bytes);
    finding(line);
  }
  if (seconds > kSeconds && bytes <= kSmall) {
    std::snprintf(line, sizeof line, "%.3f s for an input of %zu bytes", seconds, bytes);
    finding(line);
  }
}

Most most_seen() { return most; }

}  // namespace hardening
