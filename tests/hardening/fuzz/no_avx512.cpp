// Takes the place of kernels_avx512.cpp where a build for the tests has no time for it.
#include "cpu/kernels.h"

namespace ie::cpu {

const Kernels kAvx512Kernels = kAvx2Kernels;

}  // namespace ie::cpu
