#include "weights.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "extents.h"
#include "limits.h"
#include "refusal.h"

namespace ie::proof {

void prove_weights(const Program& p, uint32_t i, uint64_t weight_bytes) {
  const auto in_section = [&](uint64_t offset, uint64_t bytes) {
    return offset <= weight_bytes && bytes <= weight_bytes - offset;
  };
  const OpRecord& op = p.ops[i];
  if (static_cast<OpKind>(op.kind) == OpKind::kConv) {
    const uint64_t taps = ie::taps(op);  // at most 2^20, times 2^24 channels
    require_op(taps * op.in_channels <= kMaxRows, p, i, IE_PLAN_LIMIT, "the window holds too many elements");
    const uint64_t columns = ceil_div(op.out_channels, kPanel) * kPanel;
    require_op(op.weight_bytes == columns * taps * op.in_channels * element_bytes(p.header.dtype), p, i,
               IE_PLAN_WEIGHTS, "the weights do not have the size of its window");
    require_op(op.weight_offset % kBufferAlignment == 0 && op.bias_offset % kBufferAlignment == 0, p, i,
               IE_PLAN_WEIGHTS, "weights or bias are misaligned");
    require_op(in_section(op.weight_offset, op.weight_bytes) && in_section(op.bias_offset, columns * 4), p, i,
               IE_PLAN_WEIGHTS, "weights or bias leave their section");
  } else if (static_cast<OpKind>(op.kind) == OpKind::kInput) {
    require_op(op.weight_bytes == uint64_t{op.in_channels} * 8 && op.weight_offset % kBufferAlignment == 0 &&
                   in_section(op.weight_offset, op.weight_bytes),
               p, i, IE_PLAN_WEIGHTS, "scale and shift are misaligned or leave the weights");
  } else {
    require_op(op.weight_bytes == 0, p, i, IE_PLAN_WEIGHTS, "has weights");
  }
}

void prove_made_weights(const Program& p, uint64_t weight_bytes) {
  if (p.header.target != uint32_t(Target::kCpu)) return;
  const bool half = p.header.dtype != uint32_t(Dtype::kFloat32);
  // What the made ones are a function of: offset and bytes, the size of patches or 0, taps, those of a line, and channels.
  std::vector<std::tuple<uint64_t, uint64_t, uint32_t, uint32_t, uint32_t, uint32_t>> places;
  for (const OpRecord& op : p.ops) {
    const uint32_t patches = op.flags & kWinograd ? patch_size(op) : 0;
    if (static_cast<OpKind>(op.kind) != OpKind::kConv || !(half || patches != 0)) continue;
    places.emplace_back(op.weight_offset, op.weight_bytes, patches, taps(op), taps_across(op),
                        op.in_channels);
  }
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  uint64_t sum = 0;  // each at most the section, one for an op at most
  for (const auto& place : places) sum += std::get<1>(place);
  require(sum <= weight_bytes, IE_PLAN_LIMIT, "weights of which others are made overlap");
}

}  // namespace ie::proof
