#include "scratch.h"

#include <algorithm>
#include <cstddef>

#include "bound_program.h"
#include "weights.h"

namespace ie::cpu {

namespace {

// The least odd number of cache lines for so many bytes, so that rows do not meet in one set of a cache; in bytes.
size_t odd_lines(size_t bytes) { return ((bytes + 63) / 64 | 1) * 64; }

}  // namespace

ScratchMemory make_scratch(const std::vector<const Program*>& programs, ie_isa isa, uint32_t threads,
                           const Allocator& allocator, const ie_input* input) {
  size_t table = kMinTable, line = 0, zeros = 0, patches = 0, pooled_pitch = 0;
  size_t depth = 0, steps = 0;  // of the longest K by AMX
  for (const Program* program : programs) {
    const Form form = form_of(*program, isa);
    for (const OpRecord& op : program->ops) {
      if (op.kind == uint32_t(OpKind::kConv)) {
        table = std::max(table, kMaxBlockRows * taps(op));
        zeros = std::max<size_t>(zeros, op.in_channels);
        if (form == Form::kAmx) {
          const AmxDepth whole = amx_depth(op);
          depth = std::max(depth, whole.runs * whole.run);
          steps = std::max(steps, whole.runs * whole.steps);
        } else if (takes_points(op, form)) {
          patches = std::max(patches, 2 * size_t{patch_size(op)} * patch_size(op) *
                                          (size_t(op.in_channels) + kWidestGroup + kPanel));
        }
      } else if (op.kind == uint32_t(OpKind::kSoftmax)) {
        line = std::max<size_t>(line, op.in_channels);
      }
      if (op.flags & kMaxPoolFirst) {
        pooled_pitch = std::max(pooled_pitch, odd_lines(size_t{op.in_channels} * sizeof(float)));
      }
      if (has_pool(op)) {
        line = std::max(line, size_t(std::min(op.in_w, kPoolPixels)) * kPoolColumns);
      }
      if (has_lrn(op)) {
        line = std::max({line, kLrnSquares, size_t(op.out_channels) + op.lrn_size + 2 * kPanel});
      }
    }
  }
  const auto pad = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
  const size_t inside = pad(kTableRows * sizeof(uint64_t));
  if (patches != 0) patches = std::max(patches, kMinPatches);
  const size_t shared = std::max(pad(patches * sizeof(float)), kPooledRows * pooled_pitch);
  const size_t gathered_pitch = odd_lines(depth * sizeof(Bfloat16)) / sizeof(Bfloat16);
  const size_t gathered_elements = depth == 0 ? 0 : std::max(kMaxBlockRows * gathered_pitch, kMinGathered);
  const size_t gathered = pad(gathered_elements * sizeof(Bfloat16));
  const size_t amx_rows = pad(2 * steps * sizeof(AmxRows));
  const size_t each =
      pad(table * sizeof(void*)) + inside + pad(line * sizeof(float)) + shared + gathered + amx_rows;
  const size_t zero_bytes = pad(zeros * sizeof(float));
  ScratchMemory made{allocate_zeroed(allocator, zero_bytes + threads * each), {}};
  std::byte* next = made.memory.get();
  const auto take = [&next](auto*& pointer, size_t bytes) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(next);
    next += bytes;
  };
  Scratch scratch{};
  take(scratch.zeros, zero_bytes);
  scratch.table_entries = table;
  scratch.patch_floats = patches;
  scratch.pooled_pitch = pooled_pitch;
  scratch.gathered_pitch = gathered_pitch;
  scratch.gathered_elements = gathered_elements;
  scratch.input = input;
  for (uint32_t worker = 0; worker < threads; ++worker) {
    take(scratch.table, pad(table * sizeof(void*)));
    take(scratch.inside, inside);
    take(scratch.line, pad(line * sizeof(float)));
    take(scratch.patches, shared);
    scratch.pooled = scratch.patches;
    take(scratch.gathered, gathered);
    take(scratch.amx_rows, amx_rows);
    made.workers.push_back(scratch);
  }
  return made;
}

}  // namespace ie::cpu
