// Weights for Winograd's algorithm: windows are taken to the points of a patch, U = G g G'. Behind winograd.h.
//
// In float64, rounded once, and without fused operations: the same bits in every build.

namespace ie::cpu {
namespace {

struct Lanes {
  double lane[kPanel];
};

// One dimension of G: kSize (3 or 5) values of a window, `step` apart, to the points. G is Toom's and Cook's: powers of each
// point, divided by its distances to the others.
template <uint32_t kSize>
inline void line_to_points(SixPoints, const Lanes* g, size_t step, Lanes* out) {
  constexpr double points[2] = {SixPoints::kA, SixPoints::kB};  // and their negatives, 0 and infinity
  constexpr double a2 = points[0] * points[0], b2 = points[1] * points[1];
  constexpr double scales[2] = {1 / (2 * a2 * (a2 - b2)), 1 / (2 * b2 * (b2 - a2))};
  for (uint32_t i = 0; i < kPanel; ++i) {
    const auto value = [&](uint32_t k) { return g[k * step].lane[i]; };
    out[0].lane[i] = value(0) * (1 / (a2 * b2));
    for (int j = 0; j < 2; ++j) {
      const double p = points[j], p2 = p * p;
      double even = value(0) + p2 * value(2), odd = p * value(1);
      if constexpr (kSize == 5) even += p2 * p2 * value(4), odd += p * p2 * value(3);
      out[1 + 2 * j].lane[i] = (even + odd) * scales[j];
      out[2 + 2 * j].lane[i] = (even - odd) * scales[j];
    }
    out[5].lane[i] = value(kSize - 1);
  }
}

template <uint32_t kSize>
inline void line_to_points(FourPoints, const Lanes* g, size_t step, Lanes* out) {
  static_assert(kSize == 3);
  for (uint32_t i = 0; i < kPanel; ++i) {
    const double even = g[0].lane[i] + g[2 * step].lane[i], odd = g[step].lane[i];
    out[0].lane[i] = -g[0].lane[i];
    out[1].lane[i] = (even + odd) / 2;
    out[2].lane[i] = (even - odd) / 2;
    out[3].lane[i] = g[2 * step].lane[i];
  }
}

// The windows of one channel and 16 columns; values and points lie `stride` floats apart.
template <typename Points, uint32_t kSize>
inline void window_to_points(const float* windows, size_t stride, float* out) {
  constexpr uint32_t kPatch = Points::kPatch;
  Lanes window[kSize * kSize], lines[kSize * kPatch], points[kPatch];
  for (uint32_t tap = 0; tap < kSize * kSize; ++tap) {
    for (uint32_t i = 0; i < kPanel; ++i) window[tap].lane[i] = double{windows[tap * stride + i]};
  }
  for (uint32_t x = 0; x < kSize; ++x) line_to_points<kSize>(Points{}, window + x, kSize, lines + x * kPatch);
  for (uint32_t y = 0; y < kPatch; ++y) {
    line_to_points<kSize>(Points{}, lines + y, kPatch, points);
    for (const Lanes& point : points) {
      for (uint32_t i = 0; i < kPanel; ++i) out[i] = static_cast<float>(point.lane[i]);
      out += stride;
    }
  }
}

void windows_to_points(const float* windows, uint32_t size, uint32_t patch, size_t channels, float* points) {
  const size_t stride = channels * kPanel;
  const auto transform = patch == FourPoints::kPatch ? window_to_points<FourPoints, 3>
                         : size == 3                 ? window_to_points<SixPoints, 3>
                                                     : window_to_points<SixPoints, 5>;
  for (size_t c = 0; c < stride; c += kPanel) transform(windows + c, stride, points + c);
}

}  // namespace
}  // namespace ie::cpu
