// Convolution of bfloat16 by pairs of elements, or by Winograd's algorithm in float32. Behind Step<Bfloat16>.
#pragma once

#include "convolution.h"
#include "winograd.h"
#include "winograd_weights.h"

namespace ie::cpu {
namespace {

// Whichever weights.cpp made weights for (takes_points).
void by_points_or_pairs(const OpView& view, const Tile& tile, const Scratch& scratch) {
  const OpRecord& op = *view.record;
  op.kernel_h == 3 && (op.flags & kSmallPatches) == 0 ? winograd(view, tile, scratch)
                                                      : conv(view, tile, scratch);
}

}  // namespace
}  // namespace ie::cpu
