// V16 in portable C++: four vectors of four, which GCC and Clang lower to whatever the target has (SSE2 on x86-64), and
// there is no fused multiply-add.
#pragma once

#include <math.h>
#include <string.h>

#include <cstdint>

#include "half.h"
#include "kernels.h"

namespace ie::cpu {
namespace {

typedef float Quad __attribute__((vector_size(16)));

struct V16 {
  static constexpr uint32_t kLanes = kPanel;
  using Number = float;

  Quad quad[4];

  static V16 load(const float* p) {
    V16 v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static V16 load(const float* p, uint32_t count) {
    V16 v = {};
    memcpy(&v, p, count * sizeof(float));
    return v;
  }
  static V16 broadcast(float value) {
    const Quad quad = {value, value, value, value};
    return {{quad, quad, quad, quad}};
  }
  static V16 load(const Bfloat16* p) { return load(p, kPanel); }
  static V16 load(const Bfloat16* p, uint32_t count) {
    float lanes[kPanel] = {};
    for (uint32_t i = 0; i < count; ++i) lanes[i] = from_bfloat16(p[i].bits);
    return load(lanes);
  }
  void store(float* p) const { memcpy(p, this, sizeof *this); }
  void store(float* p, uint32_t count) const { memcpy(p, this, count * sizeof(float)); }
  void store(Bfloat16* p) const { store(p, kPanel); }
  void store(Bfloat16* p, uint32_t count) const {
    float lanes[kPanel];
    store(lanes);
    for (uint32_t i = 0; i < count; ++i) p[i].bits = to_bfloat16(lanes[i]);
  }
  V16 first(uint32_t count) const {
    V16 v = {};
    memcpy(&v, this, count * sizeof(float));
    return v;
  }

  template <typename F>
  static V16 each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
  }
  // To the power of -3/4.
  V16 inverse_root_of_cube() const {
    const V16 y = broadcast(1.0f) / root();
    return y * y.root();
  }
  V16 root() const {
    return each([this](int i) {
      return Quad{sqrtf(quad[i][0]), sqrtf(quad[i][1]), sqrtf(quad[i][2]), sqrtf(quad[i][3])};
    });
  }
  // Both keep a NaN.
  V16 relu() const {
    return each([this](int i) { return quad[i] < 0.0f ? Quad{} : quad[i]; });
  }
  static V16 max(const V16& a, const V16& b) {
    return each([&](int i) {
      const Quad x = a.quad[i], y = b.quad[i];
      return ((x >= y) | (x != x)) ? x : y;
    });
  }
  static V16 multiply_add(const V16& a, const V16& b, const V16& c) {
    return each([&](int i) { return a.quad[i] * b.quad[i] + c.quad[i]; });
  }
  V16 operator+(const V16& b) const {
    return each([&](int i) { return quad[i] + b.quad[i]; });
  }
  V16 operator-(const V16& b) const {
    return each([&](int i) { return quad[i] - b.quad[i]; });
  }
  V16 operator*(const V16& b) const {
    return each([&](int i) { return quad[i] * b.quad[i]; });
  }
  V16 operator/(const V16& b) const {
    return each([&](int i) { return quad[i] / b.quad[i]; });
  }
};

// Shape of the micro-kernels: with SSE2, 8 of 16 registers hold sums.
struct Blocks {
  static constexpr int kPanels = 1;
  static constexpr int rows(int) { return 2; }
  // Panels of the next group when some are left.
  static constexpr uint32_t group(uint32_t) { return 1; }
};

}  // namespace
}  // namespace ie::cpu
