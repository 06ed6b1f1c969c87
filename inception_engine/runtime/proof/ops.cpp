#include "ops.h"

#include <algorithm>
#include <cmath>

#include "extents.h"
#include "fields.h"
#include "refusal.h"
#include "tiling.h"
#include "weights.h"

namespace ie::proof {
namespace {

bool has_window(OpKind kind) {
  return kind == OpKind::kConv || kind == OpKind::kMaxPool || kind == OpKind::kAveragePool;
}

// Whether a window that slides over the padded input makes an output of such a size.
bool slides(uint64_t in, uint64_t before, uint64_t after, uint64_t kernel, uint64_t stride, uint64_t out) {
  const uint64_t padded = in + before + after;
  return padded >= kernel && (padded - kernel) / stride + 1 == out;
}

void prove_values(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  const auto kind = static_cast<OpKind>(op.kind);
  require_op(reserved_zero(op), p, i, IE_PLAN_RESERVED, "a reserved field is set");
  require_op(in_strings(p, op.name, op.name_bytes) && in_strings(p, op.module, op.module_bytes), p, i,
             IE_PLAN_TABLES, "its name leaves the strings");
  require_op(op.kind >= 1 && op.kind <= 6, p, i, IE_PLAN_VALUE, "unknown kind");
  const uint32_t flags = kind == OpKind::kConv
                             ? uint32_t{kRelu | kWinograd | kSmallPatches | kThenLrn | kMaxPoolFirst}
                         : kind == OpKind::kMaxPool     ? uint32_t{kThenLrn}
                         : kind == OpKind::kAveragePool ? uint32_t{kCountIncludePad}
                                                        : 0;
  require_op((op.flags & ~flags) == 0, p, i, IE_PLAN_VALUE, "a flag that its kind does not have");
  require_op(op.packing == uint32_t(kind == OpKind::kConv ? Packing::kPanel16 : Packing::kNoWeights), p, i,
             IE_PLAN_VALUE, "a packing that its kind does not have");
  for (uint32_t value : {op.in_channels, op.out_channels, op.out_padded, op.in_h, op.in_w, op.out_h, op.out_w,
                         op.stride_h, op.stride_w, op.tile_columns}) {
    require_op(is_size(value), p, i, IE_PLAN_VALUE, "a size is out of range");
  }
  for (uint32_t value : {op.pad_top, op.pad_left, op.pad_bottom, op.pad_right}) {
    require_op(value <= kMaxWindow, p, i, IE_PLAN_VALUE, "padding is out of range");
  }
  const bool window = has_window(kind);
  require_op(op.kernel_h >= 1 && op.kernel_w >= 1 && op.kernel_h <= kMaxWindow && op.kernel_w <= kMaxWindow,
             p, i, IE_PLAN_VALUE, "the window is out of range");
  require_op(window || (op.kernel_h == 1 && op.kernel_w == 1 && op.stride_h == 1 && op.stride_w == 1), p, i,
             IE_PLAN_VALUE, "a window that its kind does not have");
  require_op(
      window || kind == OpKind::kInput || (op.pad_top | op.pad_left | op.pad_bottom | op.pad_right) == 0, p,
      i, IE_PLAN_VALUE, "padding that its kind does not have");
  require_op(op.tile_rows >= 1 && op.tile_rows < kMaxRows, p, i, IE_PLAN_VALUE, "a tile has no rows");
  require_op(op.out_buffer < p.buffers.size(), p, i, IE_PLAN_VALUE, "no such output buffer");
  require_op((kind == OpKind::kInput) == (op.in_buffer == kNone) &&
                 (op.in_buffer == kNone || op.in_buffer < p.buffers.size()),
             p, i, IE_PLAN_VALUE, "no such input buffer");
  require_op(op.in_buffer != op.out_buffer, p, i, IE_PLAN_OVERLAP, "reads and writes one buffer");
}

void prove_output(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  const BufferRecord& out = p.buffers[op.out_buffer];
  require_op(uint64_t{op.out_h} * op.out_w == out.rows, p, i, IE_PLAN_GEOMETRY,
             "the output's height and width do not make its buffer's rows");
  require_op(op.out_channels <= op.out_padded &&
                 ceil_div(op.out_channels, kPanel) == ceil_div(op.out_padded, kPanel),
             p, i, IE_PLAN_GEOMETRY, "padding of the output's columns passes their last panel");
  require_op(uint64_t{op.out_channel} + op.out_padded <= out.pitch, p, i, IE_PLAN_BOUNDS,
             "writes beyond its buffer's columns");
}

void prove_input(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  const auto kind = static_cast<OpKind>(op.kind);
  if (kind == OpKind::kInput) {
    require_op(op.in_h == p.header.input_height && op.in_w == p.header.input_width &&
                   op.in_channels == p.header.input_channels && op.in_channel == 0,
               p, i, IE_PLAN_GEOMETRY, "does not read the program's input");
    require_op(op.out_h == op.in_h && op.out_w == uint64_t{op.in_w} + op.pad_left + op.pad_right &&
                   op.pad_top == 0 && op.pad_bottom == 0 && op.out_channels == op.in_channels,
               p, i, IE_PLAN_GEOMETRY, "the output is not the padded input");
  } else {
    const BufferRecord& in = p.buffers[op.in_buffer];
    const bool window = has_window(kind);
    require_op(uint64_t{op.in_h} * op.in_w == in.rows, p, i, IE_PLAN_GEOMETRY,
               "the input's height and width do not make its buffer's rows");
    if (kind == OpKind::kConv && op.in_channels > in.pitch) {
      require_op(op.in_channel == 0 && op.kernel_w == 1 && op.pad_left == 0 && op.pad_right == 0, p, i,
                 IE_PLAN_GEOMETRY, "a folded convolution with taps or padding to the side");
      const uint64_t last = uint64_t{op.out_w - 1} * op.stride_w;  // pixel at which the last run begins
      require_op(last < op.in_w && last * in.pitch + op.in_channels <= uint64_t{op.in_w} * in.pitch, p, i,
                 IE_PLAN_BOUNDS, "reads beyond the end of a line");
    } else {
      require_op(uint64_t{op.in_channel} + op.in_channels <= in.pitch, p, i, IE_PLAN_BOUNDS,
                 "reads beyond its buffer's columns");
      if (window) {
        require_op(slides(op.in_w, op.pad_left, op.pad_right, op.kernel_w, op.stride_w, op.out_w), p, i,
                   IE_PLAN_GEOMETRY, "the output's width is not what its window makes of the input's");
      }
    }
    if (window) {
      require_op(slides(op.in_h, op.pad_top, op.pad_bottom, op.kernel_h, op.stride_h, op.out_h), p, i,
                 IE_PLAN_GEOMETRY, "the output's height is not what its window makes of the input's");
    } else {
      require_op(op.in_h == op.out_h && op.in_w == op.out_w && op.in_channels == op.out_channels, p, i,
                 IE_PLAN_GEOMETRY, "input and output differ in size");
    }
  }
}

void prove_pool_and_lrn(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  const auto kind = static_cast<OpKind>(op.kind);
  const bool pool = kind == OpKind::kMaxPool || kind == OpKind::kAveragePool;
  require_op(!pool || op.in_channels == op.out_channels, p, i, IE_PLAN_GEOMETRY,
             "a pool changes the channels");
  if (pool || op.flags & kMaxPoolFirst) {
    require_op(std::max(op.pad_top, op.pad_bottom) < op.kernel_h &&
                   std::max(op.pad_left, op.pad_right) < op.kernel_w,
               p, i, IE_PLAN_GEOMETRY, "a window lies in the padding alone");
  }
  if (has_lrn(op)) {
    require_op(is_size(op.lrn_size), p, i, IE_PLAN_VALUE, "the window over channels is out of range");
    require_op(std::isfinite(op.lrn_alpha) && std::isfinite(op.lrn_beta) && std::isfinite(op.lrn_k), p, i,
               IE_PLAN_VALUE, "a constant is not finite");
  }
}

// What flags ask for beyond a kind that has them.
void prove_flags(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  if (op.flags & kThenLrn) {
    require_op(p.header.target == uint32_t(Target::kCpu) && op.part_depth == 0, p, i, IE_PLAN_VALUE,
               "LRN behind an op on a target that lacks it, or behind parts");
  }
  require_op(!(op.flags & kSmallPatches) || (op.flags & kWinograd && op.kernel_h == 3), p, i, IE_PLAN_VALUE,
             "small patches that its algorithm or window does not have");
  if (op.flags & kMaxPoolFirst) {
    require_op(p.header.target == uint32_t(Target::kCpu) && op.part_depth == 0 && !(op.flags & kWinograd) &&
                   op.in_channels <= p.buffers[op.in_buffer].pitch,
               p, i, IE_PLAN_VALUE, "a pool in front of a convolution that cannot have one");
  }
  if (op.flags & kWinograd) prove_patches(p, i);
}

// Multiply-adds of one op in a run of the largest batch.
uint64_t prove_work(const Program& p, uint32_t i) {
  const OpRecord& op = p.ops[i];
  const auto kind = static_cast<OpKind>(op.kind);
  uint64_t inner = uint64_t{op.kernel_h} * op.kernel_w;  // below 2^20
  // A patch makes at least one output.
  if (op.flags & kWinograd) inner = uint64_t{patch_size(op)} * patch_size(op);
  if (kind == OpKind::kConv) inner *= op.in_channels;
  if (kind == OpKind::kLrn) inner = 0;
  if (has_lrn(op)) inner += op.lrn_size;
  // Below 2^31 rows times 2^24 columns; what is left of 64 bits is enough to see that it is too much.
  const uint64_t cells = buffer_rows(p, op.out_buffer) * (ceil_div(op.out_padded, kPanel) * kPanel);
  require_op(cells <= kMaxWork / inner, p, i, IE_PLAN_WORK, "takes unreasonable work");
  return cells * inner;
}

}  // namespace

void prove_ops(const Program& p, uint64_t weight_bytes) {
  uint64_t work = 0;
  for (uint32_t i = 0; i < p.ops.size(); ++i) {
    prove_values(p, i);
    prove_output(p, i);
    prove_input(p, i);
    prove_pool_and_lrn(p, i);
    prove_flags(p, i);
    prove_weights(p, i, weight_bytes);
    prove_alignment(p, i);
    prove_parts(p, i);
    work += prove_work(p, i);
    require_op(work <= kMaxWork, p, i, IE_PLAN_WORK, "the program takes unreasonable work");
  }
}

}  // namespace ie::proof
