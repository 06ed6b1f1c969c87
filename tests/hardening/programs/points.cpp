// Weights at the points of Winograd's algorithm, by every build of the kernels that this machine runs.
//
//   points SIZE PATCH CHANNELS WINDOWS POINTS
//
// WINDOWS: a panel, [SIZE * SIZE][CHANNELS][16] float32; POINTS: [PATCH * PATCH][CHANNELS][16]. All builds must give the same bits, also where the windows lie in
// the last of the memory that the points are written to; they are written to POINTS. Prints how many builds there were.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels.h"

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const auto size = static_cast<uint32_t>(std::atoi(argv[1]));
  const auto patch = static_cast<uint32_t>(std::atoi(argv[2]));
  const auto channels = static_cast<size_t>(std::atoi(argv[3]));
  std::vector<float> windows(size * size * channels * ie::kPanel), expected;
  FILE* file = std::fopen(argv[4], "rb");
  if (file == nullptr || std::fread(windows.data(), sizeof(float), windows.size(), file) != windows.size())
    return 2;
  std::fclose(file);
  const ie::cpu::Kernels* const builds[] = {&ie::cpu::kPortableKernels, &ie::cpu::kAvx2Kernels,
                                            &ie::cpu::kAvx512Kernels};
  const int runnable = std::min(static_cast<int>(ie::cpu::best_isa()), static_cast<int>(IE_ISA_AVX512));
  for (int build = 0; build < runnable; ++build) {
    for (const bool in_place : {false, true}) {
      std::vector<float> points(patch * patch * channels * ie::kPanel);
      float* const last = points.data() + points.size() - windows.size();
      if (in_place) std::memcpy(last, windows.data(), windows.size() * sizeof(float));
      builds[build]->windows_to_points(in_place ? last : windows.data(), size, patch, channels,
                                       points.data());
      if (expected.empty()) expected = points;
      if (std::memcmp(points.data(), expected.data(), points.size() * sizeof(float)) != 0) {
        std::printf("build %d, in place %d: other bits\n", build, in_place);
        return 1;
      }
    }
  }
  file = std::fopen(argv[5], "wb");
  if (file == nullptr ||
      std::fwrite(expected.data(), sizeof(float), expected.size(), file) != expected.size())
    return 2;
  std::fclose(file);
  std::printf("%d builds\n", runnable);
  return 0;
}
