// float16 and bfloat16 as float32 numbers, for walking half-precision programs on the CPU. Static, and without the
// templates of the standard library: the builds of the tile kernels read this, too (tile_kernels.h).
#pragma once

#include <math.h>
#include <string.h>

#include <cstdint>

namespace ie::cpu {

static inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float from_bfloat16(uint16_t bits) { return float_of(uint32_t{bits} << 16); }

static inline float from_float16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31, exponent = bits >> 10 & 31, fraction = bits & 1023u;
  if (exponent == 0) return copysignf(static_cast<float>(fraction) * 0x1p-24f, float_of(sign));
  if (exponent == 31) return float_of(sign | 0x7F800000u | fraction << 13);
  return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

// The nearest float32 that has `dropped` zero bits at its end; the even one in the middle.
static inline float without_bits(float value, int dropped) {
  const uint32_t bits = bits_of(value), half = (1u << (dropped - 1)) - 1;
  return float_of((bits + half + (bits >> dropped & 1)) >> dropped << dropped);
}

static inline float rounded_to_bfloat16(float value) {
  return value != value ? value : without_bits(value, 16);
}

// The bits of the nearest bfloat16. A NaN stays one, whichever of its bits are dropped.
static inline uint16_t to_bfloat16(float value) {
  const uint32_t quiet = value != value ? 0x40u : 0u;
  return static_cast<uint16_t>(bits_of(rounded_to_bfloat16(value)) >> 16 | quiet);
}

static inline float rounded_to_float16(float value) {
  const float magnitude = fabsf(value);
  if (value != value) return value;
  // Below the normal numbers steps are 2^-24, as those of float32 between 0.5 and 1.
  if (magnitude < 0x1p-14f) return copysignf((magnitude + 0.75f) - 0.75f, value);
  const float rounded = without_bits(value, 13);
  return fabsf(rounded) > 65504.0f ? copysignf(INFINITY, value) : rounded;
}

}  // namespace ie::cpu
