// The tile kernels in portable C++.
#include "vector_portable.h"

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
const Kernels kPortableKernels = kernels_with<conv>(winograd, windows_to_points);
}  // namespace ie::cpu
