#include "arena.h"

#include <algorithm>

#include "extents.h"
#include "fields.h"
#include "refusal.h"

namespace ie::proof {

void prove_buffers(const Program& p) {
  uint64_t end = 0;
  for (uint32_t i = 0; i < p.buffers.size(); ++i) {
    const BufferRecord& b = p.buffers[i];
    require(reserved_zero(b), IE_PLAN_RESERVED, "a reserved field of a buffer is set");
    require(is_dtype(b.dtype) && (b.dtype == p.header.dtype || b.dtype == uint32_t(Dtype::kFloat32)),
            IE_PLAN_VALUE, "a buffer's dtype is neither its program's nor float32");
    require(b.rows >= 1 && buffer_rows(p, i) < kMaxRows && is_size(b.pitch), IE_PLAN_BUFFER,
            "a buffer's rows or pitch are out of range");
    require(b.offset % kBufferAlignment == 0, IE_PLAN_BUFFER, "a buffer is misaligned");
    const uint64_t bytes = buffer_bytes(p, i);
    require(b.offset <= p.header.arena_bytes && bytes <= p.header.arena_bytes - b.offset, IE_PLAN_BUFFER,
            "a buffer leaves the arena");
    end = std::max(end, b.offset + bytes);
  }
  // A context allocates the arena: a small file must not ask for more memory than it has a use for.
  require(p.header.arena_bytes - end < kBufferAlignment, IE_PLAN_BUFFER,
          "the arena is larger than its buffers");
}

std::vector<OpSet> prove_reuse(const Program& p) {
  const auto count = static_cast<uint32_t>(p.buffers.size());
  std::vector<OpSet> users(count, OpSet(p.ops.size()));
  std::vector<uint32_t> first(count, kNone);
  for (uint32_t i = 0; i < p.ops.size(); ++i) {
    const OpRecord& op = p.ops[i];
    users[op.out_buffer].add(i);
    first[op.out_buffer] = std::min(first[op.out_buffer], i);
    if (op.in_buffer != kNone) users[op.in_buffer].add(i);
    if (op.part_depth != 0) {
      users[op.part_buffer].add(i);
      first[op.part_buffer] = i;
    }
  }
  std::vector<bool> is_output(count);
  for (const OutputRecord& output : p.outputs) is_output[output.buffer] = true;
  std::vector<OpSet> needed(count, OpSet(p.ops.size()));
  for (uint32_t a = 0; a < count; ++a) {
    for (uint32_t b = a + 1; b < count; ++b) {
      const BufferRecord &one = p.buffers[a], &two = p.buffers[b];
      const bool meet =
          one.offset < two.offset + buffer_bytes(p, b) && two.offset < one.offset + buffer_bytes(p, a);
      if (!meet || first[a] == kNone || first[b] == kNone) continue;
      const uint32_t older = first[a] < first[b] ? a : b, newer = a + b - older;
      require(!is_output[older], IE_PLAN_REUSE, "the memory of an output is used again");
      for (size_t w = 0; w < users[older].words.size(); ++w) needed[newer].words[w] |= users[older].words[w];
    }
  }
  return needed;
}

}  // namespace ie::proof
