// What a plan says of its network in JSON: name, labels, preprocessing. No proof rests on it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ie {

// Names of classes, one after the other and each ended by a zero.
struct Labels {
  std::string text;
  std::vector<uint32_t> begin;  // of each in the text
};

struct Description {
  std::string name;
  Labels labels;  // none, or as many as classes
  bool random_weights = false;
  uint32_t resize = 256;
  bool bgr = false;
  std::vector<double> mean, std;  // of each channel, or one for all; both of one length
};

// Reads the JSON of a plan whose input has `channels` and whose output 0 has `classes`. What is absent has the default
// of the Python package (network.py). Throws Refusal{IE_PLAN_METADATA} or std::bad_alloc.
Description read_description(std::string_view json, uint32_t channels, uint32_t classes);

}  // namespace ie
