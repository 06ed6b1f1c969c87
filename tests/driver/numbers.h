// float16 and bfloat16 by their definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "driver.h"

namespace fake {

// The value of a format with `exponent` and `fraction` bits and a sign, of 16 bits in all.
inline float decode(uint16_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = bits >> fraction_bits & top, fraction = bits & ((1 << fraction_bits) - 1);
  const float sign = bits >> 15 ? -1.0f : 1.0f;
  if (exponent == top) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(float(fraction), 1 - bias - fraction_bits);
  return sign * std::ldexp(float(fraction + (1 << fraction_bits)), exponent - bias - fraction_bits);
}

// The nearest number of such a format, the even one in the middle: rint is that of the sum in units of the last place.
inline float rounded(float value, int exponent_bits, int fraction_bits) {
  if (!std::isfinite(value) || value == 0) return value;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = std::max(std::ilogb(value), 1 - bias);
  const float unit = std::ldexp(1.0f, exponent - fraction_bits);
  const float result = unit == 0 ? 0 : std::rint(value / unit) * unit;
  const float largest = std::ldexp(2.0f - std::ldexp(1.0f, -fraction_bits), bias);
  return std::fabs(result) > largest ? std::copysign(INFINITY, value) : result;
}

inline uint16_t encode(float value, int exponent_bits, int fraction_bits) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  if (std::isnan(value)) return uint16_t(sign | top << fraction_bits | 1 << (fraction_bits - 1));
  if (std::isinf(value)) return uint16_t(sign | top << fraction_bits);
  if (value == 0) return sign;
  const int exponent = std::max(std::ilogb(value), 1 - bias);
  const int units =
      int(std::ldexp(std::fabs(value), fraction_bits - exponent));  // with the leading bit, if there
  return uint16_t(sign | (units + ((exponent + bias - 1) << fraction_bits)));
}

struct Format {
  uint32_t dtype;
  size_t size;
  std::vector<float> table;  // of all 65,536 numbers of 16 bits

  static const Format& of(uint32_t dtype) {
    static const Format formats[] = {make(1), make(2), make(3)};
    if (dtype < 1 || dtype > 3) throw Fault{"unknown dtype"};
    return formats[dtype - 1];
  }
  static Format make(uint32_t dtype) {
    Format format{dtype, dtype == 1 ? size_t(4) : size_t(2), {}};
    if (dtype == 1) return format;
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      format.table.push_back(dtype == 2 ? decode(uint16_t(bits), 5, 10) : decode(uint16_t(bits), 8, 7));
    }
    return format;
  }
  void read(const std::byte* from, size_t count, float* to) const {
    if (dtype == 1) {
      std::memcpy(to, from, count * sizeof(float));
      return;
    }
    for (size_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, from + 2 * i, 2);
      to[i] = table[bits];
    }
  }
  float round(float value) const {
    return dtype == 1 ? value : dtype == 2 ? rounded(value, 5, 10) : rounded(value, 8, 7);
  }
  void write(float value, std::byte* to) const {  // that is rounded
    if (dtype == 1) {
      std::memcpy(to, &value, sizeof value);
      return;
    }
    const uint16_t bits = dtype == 2 ? encode(value, 5, 10) : encode(value, 8, 7);
    std::memcpy(to, &bits, sizeof bits);
  }
};

}  // namespace fake
