// How long things are: in 64 bits, over the whole of the largest batch.
#pragma once

#include <cstdint>

#include "../program.h"

namespace ie::proof {

inline uint64_t ceil_div(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

inline uint64_t element_bytes(uint32_t dtype) { return dtype == uint32_t(Dtype::kFloat32) ? 4 : 2; }

inline uint64_t buffer_rows(const Program& p, uint32_t buffer) {
  return uint64_t{p.buffers[buffer].rows} * p.header.max_batch;
}

inline uint64_t buffer_bytes(const Program& p, uint32_t buffer) {
  const BufferRecord& b = p.buffers[buffer];
  return buffer_rows(p, buffer) * b.pitch * element_bytes(b.dtype);
}

// Of one op, with its tiles over the whole batch.
inline uint64_t tiles_down(const Program& p, const OpRecord& op) {
  return ceil_div(buffer_rows(p, op.out_buffer), op.tile_rows);
}
inline uint64_t tiles_across(const OpRecord& op) { return ceil_div(op.out_padded, op.tile_columns); }

}  // namespace ie::proof
