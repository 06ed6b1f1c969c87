#include "point_weights.h"

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

}  // namespace

void PointWeights::make() {
  std::call_once(made_, [this] {
    constexpr size_t kAll = kWinogradPatch * kWinogradPatch;
    std::map<Key, const OpRecord*> ops;
    for (const Program* program : programs_) {
      for (const OpRecord& op : program->ops) {
        if (op.flags & kWinograd) ops.emplace(key(op), &op);
      }
    }
    std::map<Key, size_t> places;
    size_t floats = 0;
    for (const auto& [place, op] : ops) {
      places[place] = floats;
      floats += op->weight_bytes / sizeof(float) / (op->kernel_h * op->kernel_w) * kAll;
    }
    Memory memory = allocate(allocator_, floats * sizeof(float));
    for (const auto& [place, op] : ops) {
      const uint32_t size = op->kernel_h;
      const size_t stride = size_t{op->in_channels} * kPanel,
                   panels = op->weight_bytes / sizeof(float) / (size * size) / stride;
      const float* windows = reinterpret_cast<const float*>(weights_ + op->weight_offset);
      float* out = reinterpret_cast<float*>(memory.get()) + places[place];
      for (size_t panel = 0; panel < panels; ++panel, windows += size * size * stride, out += kAll * stride) {
        for (size_t c = 0; c < stride; c += kPanel) window_to_points(windows + c, size, stride, out + c);
      }
    }
    memory_ = std::move(memory);
    places_ = std::move(places);
  });
}

}  // namespace ie::cpu
