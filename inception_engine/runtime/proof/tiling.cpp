#include "tiling.h"

#include "extents.h"
#include "limits.h"
#include "refusal.h"

namespace ie::proof {

void prove_patches(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  require_op(p.header.target == uint32_t(Target::kCpu) && p.header.dtype != uint32_t(Dtype::kFloat16), p, i,
             IE_PLAN_VALUE, "Winograd's algorithm on a target or of a dtype that lack it");
  require_op(op.kernel_h == op.kernel_w && (op.kernel_h == 3 || op.kernel_h == 5) && op.stride_h == 1 &&
                 op.stride_w == 1 && op.in_channels <= p.buffers[op.in_buffer].pitch && op.part_depth == 0,
             p, i, IE_PLAN_VALUE, "a window that is not for Winograd's algorithm");
  const uint32_t side = patch_size(op) + 1 - op.kernel_h;
  const uint64_t image = uint64_t{op.out_h} * op.out_w, line = uint64_t{side} * op.out_w;
  require_op(op.tile_rows % image == 0 || (op.out_h % side == 0 && op.tile_rows % line == 0), p, i,
             IE_PLAN_ALIGNMENT, "its tiles do not hold whole patches");
}

void prove_alignment(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  const auto kind = static_cast<OpKind>(op.kind);
  const bool whole = has_lrn(op) || kind == OpKind::kSoftmax || kind == OpKind::kInput;
  require_op(op.tile_columns >= op.out_padded || (!whole && op.tile_columns % kPanel == 0), p, i,
             IE_PLAN_ALIGNMENT,
             whole ? "a tile must have all columns" : "a tile's columns are not whole panels");
  if (p.header.target != uint32_t(Target::kCuda)) return;
  const auto panels = [](uint64_t value) { return value % kPanel == 0; };
  require_op(kind == OpKind::kInput ||
                 (panels(op.out_channel) && panels(op.out_padded) && panels(p.buffers[op.out_buffer].pitch)),
             p, i, IE_PLAN_ALIGNMENT, "the slice that it writes is not whole panels");
  if (kind == OpKind::kInput) return;
  // A convolution whose runs are no whole panels (the folded stem) is computed by a loop that loads quarters of them.
  const bool ragged = kind == OpKind::kConv && !panels(op.in_channels);
  const uint32_t unit = ragged ? kPanel / 4 : kPanel;
  require_op(panels(op.in_channel) && p.buffers[op.in_buffer].pitch % unit == 0, p, i, IE_PLAN_ALIGNMENT,
             "the slice that it reads does not begin at whole panels");
  require_op(!ragged || op.in_channels % unit == 0, p, i, IE_PLAN_ALIGNMENT,
             "the runs that it reads are not whole quarters of a panel");
}

void prove_parts(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  if (op.part_depth == 0) {
    require_op(op.part_buffer == 0 && op.first_arrival == 0, p, i, IE_PLAN_VALUE,
               "a place for parts that it lacks");
    return;
  }
  const uint64_t depth = uint64_t{op.kernel_h} * op.kernel_w * op.in_channels;
  require_op(static_cast<OpKind>(op.kind) == OpKind::kConv, p, i, IE_PLAN_VALUE,
             "parts that its kind does not have");
  require_op(op.part_depth < depth && part_count(op) <= kMaxParts, p, i, IE_PLAN_VALUE,
             "a number of parts out of range");
  require_op(op.part_depth % kPanel == 0 && op.in_channels % kPanel == 0, p, i, IE_PLAN_ALIGNMENT,
             "its parts are not whole panels");
  require_op(op.part_buffer < p.buffers.size(), p, i, IE_PLAN_VALUE, "a buffer that does not exist");
  require_op(p.buffers[op.part_buffer].dtype == uint32_t(Dtype::kFloat32), p, i, IE_PLAN_VALUE,
             "its parts are not float32");
  // A tile has less than 2^55 elements and more than the buffer's 2^34 are refused at once; then products fit.
  const uint64_t capacity = buffer_bytes(p, op.part_buffer) / sizeof(float);
  const uint64_t tile = uint64_t{op.tile_rows} * op.tile_columns;
  const uint64_t tiles = tiles_down(p, op) * tiles_across(op);
  require_op(tile <= capacity && tiles <= p.tasks.size() && tile * tiles * part_count(op) <= capacity, p, i,
             IE_PLAN_BOUNDS, "its parts do not fit into their buffer");
  require_op(uint64_t{op.first_arrival} + tiles <= p.header.counter_count, p, i, IE_PLAN_VALUE,
             "counters of arrivals that do not exist");
}

}  // namespace ie::proof
