// Products that are cut along K (plan_format.h, 10). CPU programs have none: these are for walking a GPU's program, and
// plain loops.
#pragma once

#include "kernels.h"

namespace ie::cpu {

// Sums part `part` of K for a tile, and stores the sums at `sums`, (tile_rows, tile_columns).
void sum_part(const OpView& view, const Tile& tile, uint32_t part, float* sums);

// Adds up `count` parts in order, `parts` (count, tile_rows, tile_columns), then bias and ReLU, into the tile.
void add_parts(const OpView& view, const Tile& tile, const float* parts, uint64_t count);

}  // namespace ie::cpu
