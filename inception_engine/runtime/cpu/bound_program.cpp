#include "bound_program.h"

#include <algorithm>
#include <atomic>

#include "half.h"
#include "parts.h"

namespace ie::cpu {
namespace {

// Of offsets in the arena.
size_t scale_of(const Program& program, ie_isa isa) {
  const bool is_float32 = program.header.dtype == uint32_t(Dtype::kFloat32);
  return is_float32 || form_of(program, isa) != Form::kFloat32 ? 1 : 2;
}

}  // namespace

Form form_of(const Program& program, ie_isa isa) {
  if (!suits_bfloat16(program)) return Form::kFloat32;
  return isa == IE_ISA_AMX ? Form::kAmx : isa == IE_ISA_AVX512_BF16 ? Form::kPairs : Form::kFloat32;
}

uint64_t arena_bytes(const Program& program, ie_isa isa) {
  return scale_of(program, isa) * program.header.arena_bytes;
}

const Kernels& kernels_of(const Program& program, ie_isa isa) {
  const Form form = form_of(program, isa);
  if (form != Form::kFloat32) return form == Form::kAmx ? kAmxKernels : kAvx512Bf16Kernels;
  return isa >= IE_ISA_AVX512 ? kAvx512Kernels : isa == IE_ISA_AVX2 ? kAvx2Kernels : kPortableKernels;
}

BoundProgram::BoundProgram(const Program& program, ie_isa isa, std::byte* arena, const Weights& weights)
    : program_(&program),
      form_(form_of(program, isa)),
      kernels_(&kernels_of(program, isa)),
      arena_(arena),
      scale_(scale_of(program, isa)) {
  const size_t element_bytes = is_bfloat16() ? sizeof(Bfloat16) : sizeof(float);
  for (const OpRecord& op : program.ops) {
    OpView view{};
    view.record = &op;
    const auto element = [&](uint32_t buffer, uint32_t channel) {
      return arena + scale_ * program.buffers[buffer].offset + channel * element_bytes;
    };
    if (op.kind != uint32_t(OpKind::kInput)) {
      view.in = element(op.in_buffer, op.in_channel);
      view.in_pitch = program.buffers[op.in_buffer].pitch;
    }
    view.out = element(op.out_buffer, op.out_channel);
    view.out_pitch = program.buffers[op.out_buffer].pitch;
    if (op.kind == uint32_t(OpKind::kConv)) {
      view.weights = weights.of(program, op, form_);
      view.panel_bytes = Weights::panel_bytes(op, form_);
      view.amx = amx_depth(op);
      view.bias = reinterpret_cast<const float*>(weights.section() + op.bias_offset);
    } else if (op.kind == uint32_t(OpKind::kInput)) {
      view.weights = weights.section() + op.weight_offset;
    }
    if (op.part_depth != 0) view.parts = reinterpret_cast<float*>(element(op.part_buffer, 0));
    ops_.push_back(view);
  }
}

// Whether a buffer of half precision is float32 numbers, which must be rounded.
bool BoundProgram::widens(uint32_t buffer) const {
  return scale_ != 1 && program_->buffers[buffer].dtype != uint32_t(Dtype::kFloat32);
}

// Whether what an op computes must be rounded: what maximum pools choose from was rounded before, unless it is float32.
bool BoundProgram::rounds(const OpRecord& op) const {
  return widens(op.out_buffer) && (op.kind != uint32_t(OpKind::kMaxPool) || !widens(op.in_buffer));
}

// Rounds a tile to the dtype of its program.
void BoundProgram::round(const OpView& view, const Tile& tile) const {
  for (size_t row = tile.row; row < size_t(tile.row) + tile.rows; ++row) {
    float* out = static_cast<float*>(view.out) + row * view.out_pitch + tile.column;
    if (program_->header.dtype == uint32_t(Dtype::kBfloat16)) {
      for (uint32_t i = 0; i < tile.columns; ++i) out[i] = rounded_to_bfloat16(out[i]);
    } else {
      for (uint32_t i = 0; i < tile.columns; ++i) out[i] = rounded_to_float16(out[i]);
    }
  }
}

// One part of K of a tile; who comes last adds the parts up. Returns whether the tile is finished.
bool BoundProgram::compute_part(const TaskRecord& task, const OpView& view, const Tile& tile,
                                Counter* counters) const {
  const OpRecord& op = *view.record;
  const uint64_t count = part_count(op), number = tile_number(op, task.row, task.column);
  const size_t size = size_t{op.tile_rows} * op.tile_columns;
  float* parts = view.parts + number * count * size;
  sum_part(view, tile, task.part, parts + task.part * size);
  std::atomic<uint32_t>& arrived = counters[op.first_arrival + number].value;
  if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 != count) return false;
  add_parts(view, tile, parts, count);
  return true;
}

void BoundProgram::compute(const TaskRecord& task, uint32_t batch, Counter* counters,
                           const Scratch& scratch) const {
  const OpView& view = ops_[task.op];
  const OpRecord& op = *view.record;
  const uint64_t rows = uint64_t{batch} * op.out_h * op.out_w;
  if (task.row >= rows) return;  // of an image that this batch does not have
  const Tile tile = {task.row, uint32_t(std::min<uint64_t>(op.tile_rows, rows - task.row)), task.column,
                     std::min(op.tile_columns, op.out_padded - task.column)};
  if (op.part_depth == 0) {
    (takes_points(op, form_)    ? kernels_->winograd
     : op.flags & kMaxPoolFirst ? kernels_->behind_pool
                                : kernels_->by_kind[op.kind])(view, tile, scratch);
  } else if (!compute_part(task, view, tile, counters)) {
    return;
  }
  if (rounds(op)) round(view, tile);
  if (op.flags & kThenLrn) {
    OpView in_place = view;
    in_place.in = view.out;
    in_place.in_pitch = view.out_pitch;
    kernels_->by_kind[uint32_t(OpKind::kLrn)](in_place, tile, scratch);
    if (widens(op.out_buffer)) round(view, tile);
  }
}

// Those of the convolution tile as many further on as there are workers,
// which this worker will most often take. They come from memory at a fraction of the rate at which
// the first rows of a tile consume them; fetched ahead, the 7x7 modules run a tenth faster.
Lines BoundProgram::weights_ahead(uint32_t task, size_t workers) const {
  constexpr uint32_t kHorizon = 32;  // tasks
  const std::vector<TaskRecord>& tasks = program_->tasks;
  const uint32_t end = uint32_t(std::min<size_t>(tasks.size(), size_t(task) + kHorizon));
  const auto is_convolution = [&](uint32_t i) {
    return tasks[i].op != kNone && program_->ops[tasks[i].op].kind == uint32_t(OpKind::kConv);
  };
  if (!is_convolution(task)) return {};
  for (uint32_t next = task + 1; next < end; ++next) {
    if (!is_convolution(next) || --workers > 0) continue;
    const TaskRecord &here = tasks[task], &there = tasks[next];
    if (there.op == here.op && there.column == here.column) return {};  // they are in use
    const OpView& view = ops_[there.op];
    const OpRecord& op = *view.record;
    const size_t panel_floats = view.panel_bytes / sizeof(float);
    const uint32_t columns = std::min(op.tile_columns, op.out_padded - there.column);
    return {static_cast<const float*>(view.weights) + there.column / kPanel * panel_floats,
            (columns + kPanel - 1) / kPanel * panel_floats / kPanel};
  }
  return {};
}

void BoundProgram::copy_output(const ie_output& output, uint32_t batch) const {
  const OutputRecord& record = program_->outputs[output.index];
  const BufferRecord& buffer = program_->buffers[record.buffer];
  const std::byte* memory = arena_ + scale_ * buffer.offset;
  const auto copy = [&](auto* in, auto number) {
    float* out = output.data;
    in += record.channel;
    for (uint32_t image = 0; image < batch; ++image, in += size_t(buffer.rows) * buffer.pitch) {
      for (uint32_t channel = 0; channel < record.channels; ++channel) {
        for (uint32_t row = 0; row < buffer.rows; ++row)
          *out++ = number(in[size_t(row) * buffer.pitch + channel]);
      }
    }
  };
  if (is_bfloat16()) {
    copy(reinterpret_cast<const Bfloat16*>(memory), [](Bfloat16 value) { return from_bfloat16(value.bits); });
  } else {
    copy(reinterpret_cast<const float*>(memory), [](float value) { return value; });
  }
}

}  // namespace ie::cpu
