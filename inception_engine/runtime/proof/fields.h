// What a single field may hold, whatever the record.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "../program.h"
#include "limits.h"

namespace ie::proof {

template <typename Record>
bool reserved_zero(const Record& record) {
  return std::all_of(std::begin(record.reserved), std::end(record.reserved),
                     [](uint32_t r) { return r == 0; });
}

inline bool reserved_zero(const TaskRecord& record) { return record.reserved == 0; }
inline bool reserved_zero(const OutputRecord& record) { return record.reserved == 0; }

inline bool is_dtype(uint32_t value) { return value >= 1 && value <= 3; }
inline bool is_size(uint32_t value) { return value >= 1 && value < kMaxSize; }

inline bool in_strings(const Program& p, uint32_t begin, uint32_t bytes) {
  return uint64_t{begin} + bytes <= p.strings.size();
}

}  // namespace ie::proof
