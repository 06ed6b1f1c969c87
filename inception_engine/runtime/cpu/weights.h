// Weights as the tile kernels read them, float32: a plan's own, or made of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "../memory.h"
#include "../program.h"

namespace ie::cpu {

// Those of all programs of an engine: half precision is widened, and windows for Winograd's algorithm are taken to the
// points of a patch, 36 for 9 or 25. That is done for the first context and shared by all; a plan is read and proven in
// less time than it takes.
class Weights {
 public:
  // `programs` are proven; they and `section`, the base of the WEIGHTS section, outlive this.
  Weights(std::vector<const Program*> programs, const std::byte* section, const Allocator& allocator)
      : programs_(std::move(programs)), section_(section), allocator_(allocator) {}

  // Once, whichever thread comes first. Throws std::bad_alloc.
  void make();

  const std::byte* section() const { return section_; }

  // Of a convolution: [out_channels / 16 rounded up][taps, or 6 x 6 points][in_channels][16].
  const float* of(const Program& program, const OpRecord& op) const;

 private:
  // Offset, bytes, dtype; of patches the side of a window and the channels, else 0.
  using Key = std::tuple<uint64_t, uint64_t, uint32_t, uint32_t, uint32_t>;
  static Key key(const Program& program, const OpRecord& op) {
    const bool patches = op.flags & kWinograd;
    return {op.weight_offset, op.weight_bytes, program.header.dtype, patches ? op.kernel_h : 0,
            patches ? op.in_channels : 0};
  }

  const std::vector<const Program*> programs_;
  const std::byte* const section_;
  const Allocator allocator_;
  std::mutex making_;
  bool made_ = false;
  std::map<Key, size_t> places_;  // in floats; without those that are read from the section itself
  Memory memory_;
};

}  // namespace ie::cpu
