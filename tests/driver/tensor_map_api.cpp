// Tensor maps, by the rules of cuTensorMapEncodeTiled's documentation.
#include "tensor_map.h"

using namespace fake;

namespace {

// Bytes of an element by CUtensorMapDataType, as far as it is used here.
size_t size_of(CUtensorMapDataType type) {
  return type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 ? 2 : 0;
}

// What is wrong, or null.
const char* fault(const CUtensorMap* map, CUtensorMapDataType type, unsigned rank, const void* address,
                  const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                  const cuuint32_t* steps, CUtensorMapSwizzle swizzle) {
  const size_t element = size_of(type);
  if (reinterpret_cast<uintptr_t>(map) % 64 != 0) return "a tensor map that is not aligned to 64 bytes";
  if (element == 0) return "a tensor map of another type than 16-bit floats";
  if (rank < 1 || rank > kMaxRank) return "a tensor map of another rank than 1 to 5";
  if (address == nullptr || reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    return "a tensor that is not aligned to 16 bytes";
  }
  uint64_t smallest = element;
  for (unsigned i = 0; i < rank; ++i) {
    if (sizes[i] == 0 || sizes[i] > uint64_t{1} << 32)
      return "a tensor with a side of no length, or too long";
    if (box[i] == 0 || box[i] > 256) return "a box with a side of no length, or longer than 256";
    if (steps[i] < 1 || steps[i] > 8) return "steps between elements out of range";
    smallest *= sizes[i];
    if (i + 1 == rank) continue;
    if (strides[i] % 16 != 0 || strides[i] >= uint64_t{1} << 40)
      return "a stride that is no multiple of 16 bytes";
    if (strides[i] < smallest) return "a stride shorter than what lies within it";
    smallest = strides[i];
  }
  if (box[0] * element % 16 != 0) return "a box whose lines are no multiple of 16 bytes";
  if (swizzle < 0 || swizzle > CU_TENSOR_MAP_SWIZZLE_128B) return "an unknown swizzle";
  if (swizzle != CU_TENSOR_MAP_SWIZZLE_NONE && box[0] * element > size_t{16} << swizzle) {
    return "a box whose lines are longer than the swizzle's";
  }
  return nullptr;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                        void* address, const cuuint64_t* sizes, const cuuint64_t* strides,
                                        const cuuint32_t* box, const cuuint32_t* steps,
                                        CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                        CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  return call(__func__, kInContext, [&](Line& line) {
    line.add("address", reinterpret_cast<uintptr_t>(address)).add("rank", rank).add("swizzle", swizzle);
    if (const char* what = fault(map, type, rank, address, sizes, strides, box, steps, swizzle)) {
      return violation(CUDA_ERROR_INVALID_VALUE, what);
    }
    if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B ||
        fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) {
      return violation(CUDA_ERROR_INVALID_VALUE, "a tensor map of a sort that is not known here");
    }
    TensorMap made{};
    made.magic = kMapMagic;
    made.address = reinterpret_cast<uintptr_t>(address);
    for (unsigned i = 0; i < rank; ++i) {
      made.sizes[i] = sizes[i];
      made.box[i] = uint16_t(box[i]);
      if (i + 1 < rank) made.strides[i] = strides[i];
    }
    made.rank = uint8_t(rank);
    made.type = uint8_t(type);
    made.swizzle = uint8_t(swizzle);
    std::memcpy(map, &made, sizeof made);
    line.list("sizes", {sizes, sizes + rank}).list("box", {box, box + rank});
    return CUDA_SUCCESS;
  });
}
}
