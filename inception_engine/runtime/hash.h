// XXH64 (Yann Collet; the published algorithm): fast enough to disappear behind reading the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ie {

inline uint64_t xxh64(const std::byte* data, size_t bytes) {
  constexpr uint64_t k1 = 0x9E3779B185EBCA87u, k2 = 0xC2B2AE3D27D4EB4Fu, k3 = 0x165667B19E3779F9u,
                     k4 = 0x85EBCA77C2B2AE63u, k5 = 0x27D4EB2F165667C5u;
  auto rotate = [](uint64_t x, int r) { return (x << r) | (x >> (64 - r)); };
  auto read64 = [](const std::byte* p) {
    uint64_t x;
    std::memcpy(&x, p, 8);
    return x;
  };
  auto read32 = [](const std::byte* p) {
    uint32_t x;
    std::memcpy(&x, p, 4);
    return uint64_t{x};
  };
  auto round = [&](uint64_t lane, uint64_t word) { return rotate(lane + word * k2, 31) * k1; };

  const std::byte* p = data;
  const std::byte* const end = data + bytes;
  uint64_t hash = k5;
  if (bytes >= 32) {
    uint64_t a = k1 + k2, b = k2, c = 0, d = 0 - k1;
    for (; end - p >= 32; p += 32) {
      a = round(a, read64(p));
      b = round(b, read64(p + 8));
      c = round(c, read64(p + 16));
      d = round(d, read64(p + 24));
    }
    hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    for (uint64_t lane : {a, b, c, d}) hash = (hash ^ round(0, lane)) * k1 + k4;
  }
  hash += bytes;
  for (; end - p >= 8; p += 8) hash = rotate(hash ^ round(0, read64(p)), 27) * k1 + k4;
  if (end - p >= 4) {
    hash = rotate(hash ^ (read32(p) * k1), 23) * k2 + k3;
    p += 4;
  }
  for (; p != end; ++p) hash = rotate(hash ^ (static_cast<uint64_t>(*p) * k5), 11) * k1;
  hash = (hash ^ (hash >> 33)) * k2;
  hash = (hash ^ (hash >> 29)) * k3;
  return hash ^ (hash >> 32);
}

}  // namespace ie
