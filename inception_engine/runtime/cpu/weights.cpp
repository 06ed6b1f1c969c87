#include "weights.h"

#include <algorithm>
#include <cstring>

#include "half.h"
#include "isa.h"

namespace ie::cpu {
namespace {

bool is_float32(const Program& program) { return program.header.dtype == uint32_t(Dtype::kFloat32); }

// Whether others are made of a convolution's weights; else they are read where they stand.
bool makes(const Program& program, const OpRecord& op) {
  return !is_float32(program) || (op.flags & kWinograd) != 0;
}

size_t elements(const Program& program, const OpRecord& op) {
  return op.weight_bytes / (is_float32(program) ? 4 : 2);
}

// float32 numbers of `count` elements in half precision.
void widen(const std::byte* from, uint32_t dtype, size_t count, float* to) {
  const bool half = dtype == uint32_t(Dtype::kFloat16);
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + i * sizeof bits, sizeof bits);
    to[i] = half ? from_float16(bits) : from_bfloat16(bits);
  }
}

// The weights of a convolution by Winograd's algorithm, panel by panel.
void make_points(const Program& program, const OpRecord& op, const Kernels& kernels, const std::byte* from,
                 float* to) {
  const size_t count = size_t{patch_size(op)} * patch_size(op);
  const size_t stride = size_t{op.in_channels} * kPanel, taps = size_t{op.kernel_h} * op.kernel_w;
  const size_t panels = elements(program, op) / (taps * stride), panel_bytes = op.weight_bytes / panels;
  for (size_t panel = 0; panel < panels; ++panel, from += panel_bytes, to += count * stride) {
    const float* windows = reinterpret_cast<const float*>(from);
    if (!is_float32(program)) {
      float* const widened = to + (count - taps) * stride;
      widen(from, program.header.dtype, taps * stride, widened);
      windows = widened;
    }
    kernels.windows_to_points(windows, op.kernel_h, patch_size(op), op.in_channels, to);
  }
}

// [columns / 16][taps][in_channels][16] to the order of Form::kPairs.
void order_in_pairs(const OpRecord& op, const std::byte* from, std::byte* to) {
  const size_t rows = (op.out_channels + kPanel - 1) / kPanel * taps(op), channels = op.in_channels;
  auto* pair = reinterpret_cast<Bfloat16*>(to);
  for (size_t row = 0; row < rows; ++row) {  // of panels and taps
    for (size_t channel = 0; channel < channels; channel += 2, pair += 2 * kPanel) {
      const size_t count = std::min<size_t>(2, channels - channel);
      for (size_t column = 0; column < kPanel; ++column) pair[2 * column + 1] = Bfloat16{0};
      for (size_t i = 0; i < count; ++i, from += kPanel * sizeof(Bfloat16)) {
        for (size_t column = 0; column < kPanel; ++column) {
          std::memcpy(pair + 2 * column + i, from + column * sizeof(Bfloat16), sizeof(Bfloat16));
        }
      }
    }
  }
}

// [columns / 16][K][16] to the order of Form::kAmx.
void order_for_amx(const OpRecord& op, const std::byte* from, std::byte* to) {
  const AmxDepth depth = amx_depth(op);
  const size_t panels = (op.out_channels + kPanel - 1) / kPanel,
               panel_bytes = Weights::panel_bytes(op, Form::kAmx);
  std::memset(to, 0, panels * panel_bytes);
  for (size_t panel = 0; panel < panels; ++panel, to += panel_bytes) {
    for (size_t k = 0; k < depth.runs * depth.run; ++k, from += kPanel * sizeof(Bfloat16)) {
      const size_t run = k / depth.run, in_run = k % depth.run, step = in_run / depth.step;
      // The last step of a run of several ends with it.
      const size_t behind = step > 0 && step + 1 == depth.steps ? depth.steps * depth.step - depth.run : 0;
      const size_t element = in_run % depth.step + behind;
      const size_t row = (run * depth.steps + step) * kAmxStep / 2 + element / 2;
      auto* pair = reinterpret_cast<Bfloat16*>(to) + row * 2 * kPanel + element % 2;
      for (uint32_t column = 0; column < kPanel; ++column) {
        std::memcpy(pair + 2 * column, from + column * sizeof(Bfloat16), sizeof(Bfloat16));
      }
    }
  }
}

}  // namespace

bool suits_bfloat16(const Program& program) {
  const auto is_bfloat16 = [](uint32_t dtype) { return dtype == uint32_t(Dtype::kBfloat16); };
  return program.header.target == uint32_t(Target::kCpu) && is_bfloat16(program.header.dtype) &&
         std::all_of(program.buffers.begin(), program.buffers.end(),
                     [&](const BufferRecord& buffer) { return is_bfloat16(buffer.dtype); }) &&
         std::all_of(program.ops.begin(), program.ops.end(),
                     [](const OpRecord& op) { return op.part_depth == 0; });
}

bool takes_points(const OpRecord& op, Form form) {
  if (form == Form::kAmx || (op.flags & kWinograd) == 0) return false;
  return form == Form::kFloat32 || (op.kernel_h == 3 && (op.flags & kSmallPatches) == 0);
}

AmxDepth amx_depth(const OpRecord& op) {
  const auto steps_of = [](size_t elements) { return (elements + kAmxStep - 1) / kAmxStep; };
  const size_t line = size_t{taps_across(op)} * op.in_channels, lines = taps(op) / taps_across(op);
  if (line >= kAmxStep) return {lines, line, steps_of(line), kAmxStep};
  if (line % 2 == 0 && lines == steps_of(lines * line)) return {lines, line, 1, uint32_t(line)};
  return {1, lines * line, steps_of(lines * line), kAmxStep};
}

size_t Weights::panel_bytes(const OpRecord& op, Form form) {
  if (form == Form::kAmx) {
    const AmxDepth depth = amx_depth(op);
    return depth.runs * depth.steps * kAmxStep * kPanel * sizeof(Bfloat16);
  }
  const bool by_points = takes_points(op, form);
  if (form == Form::kPairs && !by_points) {
    return taps(op) * ((size_t{op.in_channels} + 1) / 2) * kPanel * 2 * sizeof(Bfloat16);
  }
  const size_t points = by_points ? size_t{patch_size(op)} * patch_size(op) : size_t{taps(op)};
  return points * op.in_channels * kPanel * sizeof(float);
}

Weights::Key Weights::key(const Program& program, const OpRecord& op, Form form) {
  const uint32_t patches = takes_points(op, form) ? patch_size(op) : 0;
  return {op.weight_offset, op.weight_bytes, program.header.dtype, patches,
          taps(op),         taps_across(op), op.in_channels};
}

// Whether an op's weights are still to be read where they stand when `made` is there, too: by kernels, or to make a form of
// them that a context can ask for on this machine.
bool Weights::reads(const Program& program, const OpRecord& op, Form made) const {
  if (op.kind == uint32_t(OpKind::kInput)) return true;
  if (op.kind != uint32_t(OpKind::kConv)) return false;
  const auto is_missing = [&](Form form) { return form != made && !made_[size_t(form)].done; };
  const int best = suits_bfloat16(program) ? rank(best_isa()) : 0;
  return !makes(program, op) || is_missing(Form::kFloat32) ||
         (best >= rank(IE_ISA_AVX512_BF16) && is_missing(Form::kPairs)) ||
         (best >= rank(IE_ISA_AMX) && is_missing(Form::kAmx));
}

// What nobody reads once `made` is there, the last range first.
std::vector<Weights::Range> Weights::unread(Form made) const {
  std::vector<Range> read;
  for (const Program* program : programs_) {
    for (const OpRecord& op : program->ops) {
      if (reads(*program, op, made)) read.push_back({op.weight_offset, op.weight_offset + op.weight_bytes});
      if (op.kind == uint32_t(OpKind::kConv)) {
        const uint64_t columns = (uint64_t{op.out_channels} + kPanel - 1) / kPanel * kPanel;
        read.push_back({op.bias_offset, op.bias_offset + columns * sizeof(float)});
      }
    }
  }
  std::sort(read.begin(), read.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  read.push_back({section_bytes_, section_bytes_});
  std::vector<Range> gaps;
  uint64_t end = 0;
  for (const Range& range : read) {
    if (range.begin > end) gaps.push_back({end, range.begin});
    end = std::max(end, range.end);
  }
  std::reverse(gaps.begin(), gaps.end());
  return gaps;
}

// Gives back what lies before `end` in the ranges, and takes it out of them.
void Weights::give_back_before(uint64_t end, std::vector<Range>* unread) const {
  while (!unread->empty() && unread->back().begin < end) {
    Range& range = unread->back();
    const uint64_t stop = std::min(range.end, end);
    const std::byte* rest = give_back(allocator_, section_ + range.begin, section_ + stop);
    range.begin = static_cast<uint64_t>(rest - section_);
    if (stop < range.end) return;  // a page of which a part is still to be read goes with the next
    unread->pop_back();
  }
}

void Weights::make(Form form, const Kernels& kernels) {
  // Not std::call_once: what is thrown in it passes through frames of the C library, which ends the process where the two
  // unwind by different libraries.
  const std::lock_guard<std::mutex> lock(making_);
  Made& made = made_[size_t(form)];
  if (!made.done) made = make_all(form, kernels);
}

Weights::Made Weights::make_all(Form form, const Kernels& kernels) const {
  std::map<Key, std::pair<const Program*, const OpRecord*>> ops;  // by their place in the section
  for (const Program* program : programs_) {
    if (form != Form::kFloat32 && !suits_bfloat16(*program)) continue;
    for (const OpRecord& op : program->ops) {
      if (op.kind != uint32_t(OpKind::kConv) || !makes(*program, op)) continue;
      ops.emplace(key(*program, op, form), std::make_pair(program, &op));
    }
  }
  Made made;
  size_t bytes = 0;
  for (const auto& [place, found] : ops) {
    const OpRecord& op = *found.second;
    made.places[place] = bytes;  // in whole panels, so aligned
    bytes += (op.out_channels + kPanel - 1) / kPanel * panel_bytes(op, form);
  }
  made.memory = allocate(allocator_, bytes);
  std::vector<Range> left = unread(form);
  // Nothing below may throw: parts of the section are gone then.
  for (const auto& [place, found] : ops) {
    const auto& [program, op] = found;
    give_back_before(op->weight_offset, &left);
    const std::byte* from = section_ + op->weight_offset;
    std::byte* to = made.memory.get() + made.places.find(place)->second;
    if (form == Form::kAmx) {
      order_for_amx(*op, from, to);
    } else if (takes_points(*op, form)) {
      make_points(*program, *op, kernels, from, reinterpret_cast<float*>(to));
    } else if (form == Form::kPairs) {
      order_in_pairs(*op, from, to);
    } else {
      widen(from, program->header.dtype, elements(*program, *op), reinterpret_cast<float*>(to));
    }
  }
  give_back_before(section_bytes_, &left);
  made.done = true;
  return made;
}

const std::byte* Weights::of(const Program& program, const OpRecord& op, Form form) const {
  const Made& made = made_[size_t(form)];
  const auto found = made.places.find(key(program, op, form));
  return found == made.places.end() ? section_ + op.weight_offset : made.memory.get() + found->second;
}

}  // namespace ie::cpu
