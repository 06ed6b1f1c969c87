// Takes the place of kernels_avx2.cpp and kernels_avx512.cpp where a build for the tests has no time for them.
#include "cpu/kernels.h"

namespace ie::cpu {

const Kernels kAvx2Kernels = kPortableKernels;
const Kernels kAvx512Kernels = kPortableKernels;

}  // namespace ie::cpu
