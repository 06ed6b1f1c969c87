// The tile kernels for AVX-512.
#include "vector_avx512.h"

namespace ie::cpu {
namespace {
using Element = float;
using Largest = V16;
}  // namespace
}  // namespace ie::cpu

#include "tile_kernels.h"

// Behind what they use.
#include "convolution.h"
#include "winograd.h"
#include "winograd_weights.h"

namespace ie::cpu {
const Kernels kAvx512Kernels = kernels_with<conv>(winograd, windows_to_points);
}  // namespace ie::cpu
