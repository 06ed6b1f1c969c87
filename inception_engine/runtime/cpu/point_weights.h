// Weights for Winograd's algorithm, made of a plan's windows: 36 for 9 or 25.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "../memory.h"
#include "../program.h"

namespace ie::cpu {

// Those of all programs of an engine. They are made for the first context and shared by all: a plan is read and proven in
// less time than they take to be written.
class PointWeights {
 public:
  // `programs` are proven; they and `weights`, the base of the WEIGHTS section, outlive the first call of make().
  PointWeights(std::vector<const Program*> programs, const std::byte* weights, const Allocator& allocator)
      : programs_(std::move(programs)), weights_(weights), allocator_(allocator) {}

  // Once, whichever thread comes first. Throws std::bad_alloc.
  void make();

  // Of a convolution by Winograd's algorithm: [out_channels / 16 rounded up][6][6][in_channels][16].
  const float* of(const OpRecord& op) const {
    return reinterpret_cast<const float*>(memory_.get()) + places_.at(key(op));
  }

 private:
  using Key = std::tuple<uint64_t, uint64_t, uint32_t>;  // offset, bytes, side of the window
  static Key key(const OpRecord& op) { return {op.weight_offset, op.weight_bytes, op.kernel_h}; }

  const std::vector<const Program*> programs_;
  const std::byte* const weights_;
  const Allocator allocator_;
  std::once_flag made_;
  std::map<Key, size_t> places_;  // in floats
  Memory memory_;
};

}  // namespace ie::cpu
