// How a micro-kernel takes the elements of K, by what activations are: so many at a time, whose weights for 16 columns are a
// line of 64 bytes. Behind tile_kernels.h; that of bfloat16 is kernels_avx512_bf16.cpp's.
#pragma once

namespace ie::cpu {
namespace {

template <typename Element>
struct Step;

template <>
struct Step<float> {
  static constexpr size_t kElements = 1;
  using Vector = V16;

  static Vector weights(const float* line) { return V16::load(line); }
  static Vector broadcast(const float* elements) { return V16::broadcast(*elements); }
  static V16 multiply_add(Vector elements, Vector weights, V16 sum) {
    return V16::multiply_add(elements, weights, sum);
  }
};

}  // namespace
}  // namespace ie::cpu
