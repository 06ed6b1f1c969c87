// What one call of the loader may take: memory in proportion to its input, and little time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace hardening {

constexpr size_t kBytesPerInputByte = 4;
constexpr size_t kFreeBytes = size_t{1} << 20;
constexpr double kSeconds = 0.1;  // of this thread's processor time
constexpr size_t kSmall =
    size_t{1} << 16;  // bytes of an input that is timed: sanitisers make large ones several times slower

// Runs `body`, which only allocates what it frees again, on an input of `bytes` bytes, and aborts with a line if it
// ever holds more than kBytesPerInputByte * bytes + kFreeBytes, or, for a small input, three times out of three takes
// longer than kSeconds. The memory is counted by the address sanitiser's hooks, so only in a program built with it.
void measured(size_t bytes, const std::function<void()>& body);

// The most that `measured` has seen since the program began: bytes held beyond kBytesPerInputByte * the input, and
// seconds for a small one.
struct Most {
  long long excess_bytes;
  double seconds;
};
Most most_seen();

// Prints a line and aborts, so that a fuzzer keeps the input.
[[noreturn]] void finding(const char* line);

}  // namespace hardening
