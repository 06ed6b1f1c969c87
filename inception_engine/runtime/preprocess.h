// From a decoded picture to the network's input in uint8: the same pixels as preprocess.py of the Python package makes.
#pragma once

#include <cstdint>

#include "memory.h"

namespace ie {

// What the network takes, and how pictures are made to fit.
struct ImageTarget {
  uint32_t channels, height, width;
  uint32_t resize;  // the shorter side, if the input is not larger
  bool bgr;         // of three channels: in this order
};

// Writes (height, width, channels) to `pixels`. Throws Refusal{IE_ERROR_ARGUMENT} or std::bad_alloc.
void preprocess(const ie_picture& picture, const ImageTarget& target, const Allocator& allocator,
                uint8_t* pixels);

}  // namespace ie
