// A target with the errors that the others are to find, by the length of its input: 1 reads behind its end, 2 holds too
// much memory, 3 takes too long, 4 adds to an integer that is at its end. The tests' proof that they would be seen.
#include <climits>
#include <ctime>
#include <memory>

#include "measured.h"
#include "mutator.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static volatile int sink = INT_MAX;
  if (bytes == 1) sink = data[bytes];
  if (bytes == 4) sink = sink + data[0] + 1;
  hardening::measured(bytes, [&] {
    const std::unique_ptr<char[]> memory(bytes == 2 ? new char[hardening::kFreeBytes + 9] : nullptr);
    const std::clock_t end = std::clock() + CLOCKS_PER_SEC * 12 / 100;
    while (bytes == 3 && std::clock() < end) sink = 0;
  });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t bytes, size_t most, unsigned seed) {
  return hardening::mutate(data, bytes, most, seed, false);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* one, size_t one_bytes, const uint8_t* two,
                                            size_t two_bytes, uint8_t* out, size_t most, unsigned seed) {
  return hardening::cross(one, one_bytes, two, two_bytes, out, most, seed);
}
