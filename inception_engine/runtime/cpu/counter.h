// Counters that tasks wait on.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>

namespace ie::cpu {

inline void futex_wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// Sleeps unless `word` has another value than `seen`; null: without a limit. May return early.
inline void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, const timespec* limit) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, limit, nullptr, 0);
}

// A number that only grows, and those who wait for it: on its own cache line, for workers poll it. The sleep
// is a futex on the number itself: the kernel refuses it if the number has changed, so no wake-up is lost.
struct alignas(64) Counter {
  std::atomic<uint32_t> value{0};
  std::atomic<uint32_t> sleepers{0};

  // Sequentially consistent, both here and in sleep(): either the signaller sees the sleeper or the sleeper
  // sees the new value.
  void add(uint32_t n) {
    value.fetch_add(n);
    if (sleepers.load() != 0) futex_wake(value);
  }
  bool reached(uint32_t target) const {
    return static_cast<int32_t>(value.load(std::memory_order_acquire) - target) >= 0;
  }
  void sleep(uint32_t target, std::chrono::nanoseconds at_most) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(at_most);
    const timespec limit = {seconds.count(), (at_most - seconds).count()};
    sleepers.fetch_add(1);
    const uint32_t seen = value.load();
    if (static_cast<int32_t>(seen - target) < 0) futex_wait(value, seen, &limit);
    sleepers.fetch_sub(1);
  }
};

}  // namespace ie::cpu
