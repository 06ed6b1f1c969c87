// What the double's cuTensorMapEncodeTiled keeps of a tensor, in the 128 bytes that the driver leaves opaque.
#pragma once

#include <cstdint>
#include <cstring>

#include "driver.h"
#include "numbers.h"

namespace fake {

constexpr uint64_t kMapMagic = 0x70616D726F736E65;
constexpr int kMaxRank = 5;

struct TensorMap {
  uint64_t magic;
  uint64_t address;
  uint64_t sizes[kMaxRank];        // the innermost side first
  uint64_t strides[kMaxRank - 1];  // bytes
  uint16_t box[kMaxRank];
  uint8_t rank, type, swizzle, reserved[27];

  // Throws Fault for bytes that are no map.
  static TensorMap read(const std::vector<std::byte>& bytes) {
    TensorMap map;
    if (bytes.size() != sizeof map) throw Fault{"a tensor map of another size"};
    std::memcpy(&map, bytes.data(), sizeof map);
    if (map.magic != kMapMagic) throw Fault{"a parameter that is no tensor map"};
    return map;
  }
};
static_assert(sizeof(TensorMap) == sizeof(CUtensorMap));

// A tensor of 16-bit numbers in device memory, read as the TMA engine does: zero outside.
class Tensor {
 public:
  Tensor(const TensorMap& map, const Format& format, const char* what) : map_(map), format_(format) {
    memory_ = open(map.address, false, what, 16);
    uint64_t bytes = map.sizes[0] * format.size;  // all of it has to be there
    for (int i = 1; i < map.rank; ++i) bytes += (map.sizes[i] - 1) * map.strides[i - 1];
    memory_.at<std::byte>(0, bytes);
  }

  // `count` numbers from a place on, along the innermost side. `outer`: the other coordinates, the next inner one first.
  void read(int64_t first, size_t count, std::initializer_list<int64_t> outer, float* to) const {
    std::fill_n(to, count, 0.0f);
    uint64_t offset = 0;
    int side = 1;
    for (const int64_t at : outer) {
      if (at < 0 || uint64_t(at) >= map_.sizes[side]) return;
      offset += uint64_t(at) * map_.strides[side - 1];
      ++side;
    }
    if (side != map_.rank) throw Fault{"a tensor of another rank"};
    for (size_t i = 0; i < count; ++i) {
      const int64_t at = first + int64_t(i);
      if (at < 0 || uint64_t(at) >= map_.sizes[0]) continue;
      format_.read(memory_.at<std::byte>(offset + uint64_t(at) * format_.size, format_.size), 1, to + i);
    }
  }

 private:
  const TensorMap map_;
  const Format& format_;
  Span memory_;
};

}  // namespace fake
