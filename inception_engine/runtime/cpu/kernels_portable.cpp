// The tile kernels in plain C++: a V16 is an array, and there is no fused multiply-add.
#include <math.h>

#include <cstdint>

namespace ie::cpu {
namespace {

struct V16 {
  float lane[16];

  static V16 load(const float* p) { return load(p, 16); }
  static V16 load(const float* p, uint32_t count) {
    V16 v = {};
    for (uint32_t i = 0; i < count; ++i) v.lane[i] = p[i];
    return v;
  }
  static V16 broadcast(float value) {
    V16 v;
    for (float& lane : v.lane) lane = value;
    return v;
  }
  void store(float* p) const { store(p, 16); }
  void store(float* p, uint32_t count) const {
    for (uint32_t i = 0; i < count; ++i) p[i] = lane[i];
  }
  V16 first(uint32_t count) const { return load(lane, count); }
  template <typename F>
  static V16 each(F f) {
    V16 v;
    for (int i = 0; i < 16; ++i) v.lane[i] = f(i);
    return v;
  }
  V16 root() const {
    return each([this](int i) { return sqrtf(lane[i]); });
  }
  V16 relu() const {
    return each([this](int i) { return lane[i] < 0.0f ? 0.0f : lane[i]; });
  }
  static V16 max(const V16& a, const V16& b) {
    return each(
        [&](int i) { return a.lane[i] >= b.lane[i] || a.lane[i] != a.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static V16 multiply_add(const V16& a, const V16& b, const V16& c) {
    return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  V16 operator+(const V16& b) const {
    return each([&](int i) { return lane[i] + b.lane[i]; });
  }
  V16 operator*(const V16& b) const {
    return each([&](int i) { return lane[i] * b.lane[i]; });
  }
  V16 operator/(const V16& b) const {
    return each([&](int i) { return lane[i] / b.lane[i]; });
  }
};

// Shape of the micro-kernels: with SSE2, 8 of 16 registers hold sums.
struct Blocks {
  static constexpr int rows(int panels) { return panels == 1 ? 2 : 1; }
  // Panels of the next group when `panels` are left.
  static constexpr uint32_t group(uint32_t) { return 1; }
};

}  // namespace
}  // namespace ie::cpu

#include "tile_kernels.h"

namespace ie::cpu {
const Kernels kPortableKernels = kTileKernels;
}  // namespace ie::cpu
