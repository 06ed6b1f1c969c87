#include "weights.h"

#include <algorithm>
#include <cstring>

#include "half.h"
#include "kernels.h"

namespace ie::cpu {
namespace {

constexpr double kPoints[2] = {0.75, 1.5};  // and their negatives, 0 and infinity

struct Lanes {
  double lane[kPanel];
};

// One dimension of G: `size` (3 or 5) values of a window, `step` apart, to six points. G is Toom's and Cook's: powers of each
// point, divided by its distances to the others.
void to_points(const Lanes* g, size_t step, uint32_t size, Lanes* out, size_t out_step) {
  constexpr double a2 = kPoints[0] * kPoints[0], b2 = kPoints[1] * kPoints[1];
  constexpr double scales[2] = {1 / (2 * a2 * (a2 - b2)), 1 / (2 * b2 * (b2 - a2))};
  for (uint32_t i = 0; i < kPanel; ++i) {
    const auto value = [&](uint32_t k) { return g[k * step].lane[i]; };
    out[0].lane[i] = value(0) * (1 / (a2 * b2));
    for (int j = 0; j < 2; ++j) {
      const double p = kPoints[j], p2 = p * p;
      double even = value(0) + p2 * value(2), odd = p * value(1);
      if (size == 5) even += p2 * p2 * value(4), odd += p * p2 * value(3);
      out[(1 + 2 * j) * out_step].lane[i] = (even + odd) * scales[j];
      out[(2 + 2 * j) * out_step].lane[i] = (even - odd) * scales[j];
    }
    out[5 * out_step].lane[i] = value(size - 1);
  }
}

// The windows of one channel and 16 columns; values and points lie `stride` floats apart. In float64, rounded once.
void window_to_points(const float* windows, uint32_t size, size_t stride, float* out) {
  constexpr size_t kMost = 5;
  Lanes window[kMost * kMost], lines[kWinogradPatch * kMost], points[kWinogradPatch * kWinogradPatch];
  for (uint32_t tap = 0; tap < size * size; ++tap) {
    for (uint32_t i = 0; i < kPanel; ++i) window[tap].lane[i] = double{windows[tap * stride + i]};
  }
  for (uint32_t x = 0; x < size; ++x) to_points(window + x, size, size, lines + x, kMost);
  for (uint32_t y = 0; y < kWinogradPatch; ++y) {
    to_points(lines + y * kMost, 1, size, points + y * kWinogradPatch, 1);
  }
  for (const Lanes& point : points) {
    for (uint32_t i = 0; i < kPanel; ++i) out[i] = static_cast<float>(point.lane[i]);
    out += stride;
  }
}

// float32 numbers of `count` elements of a dtype.
void widen(const std::byte* from, uint32_t dtype, size_t count, float* to) {
  if (dtype == uint32_t(Dtype::kFloat32)) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  const bool half = dtype == uint32_t(Dtype::kFloat16);
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + i * sizeof bits, sizeof bits);
    to[i] = half ? from_float16(bits) : from_bfloat16(bits);
  }
}

void windows_to_points(const OpRecord& op, const std::vector<float>& windows, float* out) {
  const uint32_t size = op.kernel_h;
  const size_t stride = size_t{op.in_channels} * kPanel;
  for (size_t begin = 0; begin < windows.size(); begin += size * size * stride) {
    for (size_t c = 0; c < stride; c += kPanel)
      window_to_points(windows.data() + begin + c, size, stride, out + c);
    out += kWinogradPatch * kWinogradPatch * stride;
  }
}

size_t elements(const Program& program, const OpRecord& op) {
  return op.weight_bytes / (program.header.dtype == uint32_t(Dtype::kFloat32) ? 4 : 2);
}

// [columns / 16][K][16] to the order of Form::kAmx.
void order_for_amx(const OpRecord& op, const std::byte* from, std::byte* to) {
  const size_t depth = size_t{op.kernel_h} * op.kernel_w * op.in_channels;
  const size_t panels = (op.out_channels + kPanel - 1) / kPanel,
               panel_bytes = Weights::panel_bytes(op, Form::kAmx);
  std::memset(to, 0, panels * panel_bytes);
  for (size_t panel = 0; panel < panels; ++panel, to += panel_bytes) {
    for (size_t k = 0; k < depth; ++k, from += kPanel * sizeof(Bfloat16)) {
      auto* pair = reinterpret_cast<Bfloat16*>(to) + k / 2 * 2 * kPanel + k % 2;
      for (uint32_t column = 0; column < kPanel; ++column) {
        std::memcpy(pair + 2 * column, from + column * sizeof(Bfloat16), sizeof(Bfloat16));
      }
    }
  }
}

}  // namespace

bool suits_amx(const Program& program) {
  const auto is_bfloat16 = [](uint32_t dtype) { return dtype == uint32_t(Dtype::kBfloat16); };
  return program.header.target == uint32_t(Target::kCpu) && is_bfloat16(program.header.dtype) &&
         std::all_of(program.buffers.begin(), program.buffers.end(),
                     [&](const BufferRecord& buffer) { return is_bfloat16(buffer.dtype); }) &&
         std::all_of(program.ops.begin(), program.ops.end(),
                     [](const OpRecord& op) { return op.part_depth == 0; });
}

size_t amx_steps(const OpRecord& op) {
  return (size_t{op.kernel_h} * op.kernel_w * op.in_channels + kAmxStep - 1) / kAmxStep;
}

size_t Weights::panel_bytes(const OpRecord& op, Form form) {
  if (form == Form::kAmx) return amx_steps(op) * kAmxStep * kPanel * sizeof(Bfloat16);
  const size_t points =
      op.flags & kWinograd ? kWinogradPatch * kWinogradPatch : size_t{op.kernel_h} * op.kernel_w;
  return points * op.in_channels * kPanel * sizeof(float);
}

Weights::Key Weights::key(const Program& program, const OpRecord& op, Form form) {
  const bool patches = form == Form::kFloat32 && op.flags & kWinograd;
  return {op.weight_offset, op.weight_bytes, program.header.dtype, patches ? op.kernel_h : 0,
          patches ? op.in_channels : 0};
}

void Weights::make(Form form) {
  // Not std::call_once: what is thrown in it passes through frames of the C library, which ends the process where the two
  // unwind by different libraries.
  const std::lock_guard<std::mutex> lock(making_);
  Made& made = made_[size_t(form)];
  if (!made.done) made = make_all(form);
}

Weights::Made Weights::make_all(Form form) const {
  std::map<Key, std::pair<const Program*, const OpRecord*>> ops;
  for (const Program* program : programs_) {
    if (form == Form::kAmx && !suits_amx(*program)) continue;
    const bool half = program->header.dtype != uint32_t(Dtype::kFloat32);
    for (const OpRecord& op : program->ops) {
      if (op.kind != uint32_t(OpKind::kConv) || !(half || op.flags & kWinograd)) continue;
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
  std::vector<float> windows;
  for (const auto& [place, found] : ops) {
    const auto& [program, op] = found;
    const size_t count = elements(*program, *op);
    const std::byte* from = section_ + op->weight_offset;
    std::byte* to = made.memory.get() + made.places[place];
    if (form == Form::kAmx) {
      order_for_amx(*op, from, to);
    } else if (op->flags & kWinograd) {
      windows.resize(count);
      widen(from, program->header.dtype, count, windows.data());
      windows_to_points(*op, windows, reinterpret_cast<float*>(to));
    } else {
      widen(from, program->header.dtype, count, reinterpret_cast<float*>(to));
    }
  }
  made.done = true;
  return made;
}

const std::byte* Weights::of(const Program& program, const OpRecord& op, Form form) const {
  const Made& made = made_[size_t(form)];
  const auto found = made.places.find(key(program, op, form));
  return found == made.places.end() ? section_ + op.weight_offset : made.memory.get() + found->second;
}

}  // namespace ie::cpu
