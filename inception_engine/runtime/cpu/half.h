// float16 and bfloat16 as float32 numbers, for walking half-precision programs on the CPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace ie::cpu {

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float from_bfloat16(uint16_t bits) { return float_of(uint32_t{bits} << 16); }

inline float from_float16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31, exponent = bits >> 10 & 31, fraction = bits & 1023u;
  if (exponent == 0) return std::copysign(static_cast<float>(fraction) * 0x1p-24f, float_of(sign));
  if (exponent == 31) return float_of(sign | 0x7F800000u | fraction << 13);
  return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

// The nearest float32 that has `dropped` zero bits at its end; the even one in the middle.
inline float without_bits(float value, int dropped) {
  const uint32_t bits = bits_of(value), half = (1u << (dropped - 1)) - 1;
  return float_of((bits + half + (bits >> dropped & 1)) >> dropped << dropped);
}

inline float rounded_to_bfloat16(float value) { return std::isnan(value) ? value : without_bits(value, 16); }

inline float rounded_to_float16(float value) {
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return value;
  // Below the normal numbers steps are 2^-24, as those of float32 between 0.5 and 1.
  if (magnitude < 0x1p-14f) return std::copysign((magnitude + 0.75f) - 0.75f, value);
  const float rounded = without_bits(value, 13);
  return std::fabs(rounded) > 65504.0f ? std::copysign(INFINITY, value) : rounded;
}

}  // namespace ie::cpu
