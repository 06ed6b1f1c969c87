// Mutations of plan files; see mutator.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hardening {

// Changes `data` in place and returns its new length, at most `most`. Most results have a right hash, with
// `always_mend` all of them that have a header.
size_t mutate(uint8_t* data, size_t bytes, size_t most, uint32_t seed, bool always_mend);

// Writes a plan made of two into `out`; 0 where that does not work.
size_t cross(const uint8_t* one, size_t one_bytes, const uint8_t* two, size_t two_bytes, uint8_t* out,
             size_t most, uint32_t seed);

}  // namespace hardening
