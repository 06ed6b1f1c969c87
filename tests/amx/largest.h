// Takes the place of largest_bfloat16.h, in portable C++.
#pragma once

#include <cstring>

#include "cpu/kernels.h"

namespace ie::cpu {
namespace {

// Keys as those of largest_bfloat16.h.
struct Largest {
  static constexpr uint32_t kLanes = 32;
  using Number = int16_t;

  static constexpr int kNaNs = 127;
  Number keys[kLanes];

  static int flipped(int bits) { return bits < 0 ? bits ^ 0x7FFF : bits; }
  static Largest load(const Bfloat16* p) { return load(p, kLanes); }
  static Largest load(const Bfloat16* p, uint32_t count) {
    Largest loaded = {};
    for (uint32_t i = 0; i < kLanes; ++i) {
      const int bits = i < count ? static_cast<Number>(p[i].bits) : 0;
      loaded.keys[i] = static_cast<Number>(flipped(bits) - kNaNs);
    }
    return loaded;
  }
  static Largest load(const Number* p) {
    Largest loaded;
    std::memcpy(&loaded, p, sizeof loaded);
    return loaded;
  }
  void store(Number* p) const { std::memcpy(p, keys, sizeof keys); }
  void store(Bfloat16* p) const { store(p, kLanes); }
  void store(Bfloat16* p, uint32_t count) const {
    for (uint32_t i = 0; i < count; ++i) {
      p[i].bits = static_cast<uint16_t>(flipped(static_cast<Number>(keys[i] + kNaNs)));
    }
  }
  Largest first(uint32_t count) const {
    Largest kept = *this;
    for (uint32_t i = count; i < kLanes; ++i) kept.keys[i] = -kNaNs;
    return kept;
  }
  static Largest max(const Largest& a, const Largest& b) {
    Largest larger = a;
    for (uint32_t i = 0; i < kLanes; ++i) {
      if (b.keys[i] > a.keys[i]) larger.keys[i] = b.keys[i];
    }
    return larger;
  }
};

}  // namespace
}  // namespace ie::cpu
