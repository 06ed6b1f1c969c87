// How an op is cut: into tiles of whole patches and panels, and along K.
#pragma once

#include <cstdint>

#include "../program.h"

namespace ie::proof {

// A convolution by Winograd's algorithm. The lines that a patch reads are those of the outputs that it makes: a patch
// that leaves the output reads nothing beyond the image's end, for the stride is 1. So with whole patches in a tile
// the rules of order see all that it reads.
void prove_patches(const Program& p, uint32_t i);

// What kernels assume of tile sizes and positions. On a GPU slices are whole panels, so that loads are wide.
void prove_alignment(const Program& p, uint32_t i);

// How a product is cut along K.
void prove_parts(const Program& p, uint32_t i);

}  // namespace ie::proof
