// Convolution by Winograd's algorithm in two dimensions: F(4x4, 3x3) and F(2x2, 5x5), and F(2x2, 3x3) for small patches
// (Lavin and Gray, arXiv 1509.09308). Behind tile_kernels.h and convolution.h.
//
// A *patch* of 6 x 6 input pixels makes 4 x 4 outputs of a 3x3 window, or 2 x 2 of a 5x5 window: the patch is
// taken to 36 points, V = B' d B; at each point channels are multiplied with the weights, which were taken there for
// the engine's first context that needs them (winograd_weights.h); and what comes out is taken back, Y = A' M A. That is 36 products for a
// pair of channels instead of 144 or 100. A small patch, 4 x 4, makes 2 x 2 outputs of a 3x3 window: 16 products instead of
// 36, from 16 weights instead of 36.
// Patches are counted from the corner of each image, and each is computed alone, so results do not depend on
// tiles. An infinity or NaN spreads over the patches that read it.
//
// The patches of a tile are done some at a time, so that their points stay in L2; the sums of one group of panels stay in L1.

namespace ie::cpu {
namespace {

// One dimension of B' and of A', to kOut outputs, for points 0, +-3/4, +-3/2 and infinity. The largest error of a layer of
// random numbers is then 1e-6 of the largest output, where a direct sum has 5e-7 and the usual points 0, +-1, +-2 have 4e-6;
// every constant below is exact.
struct SixPoints {
  static constexpr uint32_t kPatch = 6;
  static constexpr float kA = 0.75f, kB = 1.5f;

  static void to_points(const V16* d, size_t step, V16* t) {
    const V16 minus_a2 = V16::broadcast(-kA * kA), minus_b2 = V16::broadcast(-kB * kB);
    const V16 both = V16::broadcast(-(kA * kA + kB * kB)), product = V16::broadcast(kA * kA * kB * kB);
    const V16 d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    t[0] = V16::multiply_add(product, d[0], V16::multiply_add(both, d2, d4));
    const V16 even_a = V16::multiply_add(minus_b2, d2, d4), odd_a = V16::multiply_add(minus_b2, d1, d3);
    t[1] = V16::multiply_add(V16::broadcast(kA), odd_a, even_a);
    t[2] = V16::multiply_add(V16::broadcast(-kA), odd_a, even_a);
    const V16 even_b = V16::multiply_add(minus_a2, d2, d4), odd_b = V16::multiply_add(minus_a2, d1, d3);
    t[3] = V16::multiply_add(V16::broadcast(kB), odd_b, even_b);
    t[4] = V16::multiply_add(V16::broadcast(-kB), odd_b, even_b);
    t[5] = V16::multiply_add(product, d1, V16::multiply_add(both, d3, d[5 * step]));
  }

  template <int kOut>
  static void from_points(const V16* m, size_t step, V16* y) {
    const V16 m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step], m5 = m[5 * step];
    const V16 sum_a = m1 + m2, sum_b = m3 + m4, odd_a = m1 - m2, odd_b = m3 - m4;
    y[0] = m[0] + (sum_a + sum_b);
    if constexpr (kOut == 2) {
      y[1] = V16::multiply_add(V16::broadcast(kA), odd_a, V16::multiply_add(V16::broadcast(kB), odd_b, m5));
    } else {
      y[1] = V16::multiply_add(V16::broadcast(kA), odd_a, V16::broadcast(kB) * odd_b);
      y[2] = V16::multiply_add(V16::broadcast(kA * kA), sum_a, V16::broadcast(kB * kB) * sum_b);
      y[3] = V16::multiply_add(V16::broadcast(kA * kA * kA), odd_a,
                               V16::multiply_add(V16::broadcast(kB * kB * kB), odd_b, m5));
    }
  }
};

// The same for points 0, +-1 and infinity.
struct FourPoints {
  static constexpr uint32_t kPatch = 4;

  static void to_points(const V16* d, size_t step, V16* t) {
    const V16 d1 = d[step], d2 = d[2 * step];
    t[0] = d2 - d[0];
    t[1] = d1 + d2;
    t[2] = d2 - d1;
    t[3] = d[3 * step] - d1;
  }

  template <int kOut>
  static void from_points(const V16* m, size_t step, V16* y) {
    static_assert(kOut == 2);
    const V16 m1 = m[step], m2 = m[2 * step];
    y[0] = m[0] + (m1 + m2);
    y[1] = (m1 - m2) + m[3 * step];
  }
};

struct Patches {
  const OpView* view;
  uint32_t side;    // of a patch of outputs
  uint32_t across;  // patches in a line of them, and
  uint32_t down;    // lines of them in an image
  size_t first;     // of this chunk, counted over the batch
  size_t count;
  float* points;  // [points][count][pitch], and kPanel between two points: no two in one set of a cache
  size_t pitch, point_stride;
  float* sums;  // [points][count][panels of a group]
  size_t sum_pitch, sum_stride;
};

struct Corner {
  size_t image;
  uint32_t y, x;  // of a patch of outputs
};

inline Corner corner_of(const Patches& p, size_t patch) {
  const size_t line = patch / p.across;
  return {line / p.down, uint32_t(line % p.down) * p.side, uint32_t(patch % p.across) * p.side};
}

template <typename Points>
void transform_input(const Patches& p, const Scratch& scratch) {
  constexpr uint32_t kPatch = Points::kPatch, kPoints = kPatch * kPatch;
  const OpView& view = *p.view;
  const OpRecord& op = *view.record;
  for (size_t i = 0; i < p.count; ++i) {
    const Corner corner = corner_of(p, p.first + i);
    const Element* pixels[kPoints];
    for (uint32_t h = 0; h < kPatch; ++h) {
      const uint32_t y = corner.y + h - op.pad_top;  // outside the image: huge
      for (uint32_t w = 0; w < kPatch; ++w) {
        const uint32_t x = corner.x + w - op.pad_left;
        pixels[h * kPatch + w] = y < op.in_h && x < op.in_w
                                     ? static_cast<const Element*>(view.in) +
                                           ((corner.image * op.in_h + y) * op.in_w + x) * view.in_pitch
                                     : static_cast<const Element*>(scratch.zeros);
      }
    }
    float* out = p.points + i * p.pitch;
    for (uint32_t c = 0; c < op.in_channels; c += kPanel, out += kPanel) {
      V16 patch[kPoints], lines[kPoints];
      for (uint32_t j = 0; j < kPoints; ++j) patch[j] = load_part(pixels[j] + c, op.in_channels - c);
      for (uint32_t w = 0; w < kPatch; ++w) {
        V16 column[kPatch];
        Points::to_points(patch + w, kPatch, column);
        for (uint32_t h = 0; h < kPatch; ++h) lines[h * kPatch + w] = column[h];
      }
      for (uint32_t h = 0; h < kPatch; ++h) {
        V16 line[kPatch];
        Points::to_points(lines + h * kPatch, 1, line);
        for (uint32_t w = 0; w < kPatch; ++w) line[w].store(out + (h * kPatch + w) * p.point_stride);
      }
    }
  }
}

// Products at one point: kRows patches from `row` on, kPanels panels.
template <int kRows, int kPanels>
__attribute__((noinline)) void point_block(const float* points, size_t pitch, const float* weights,
                                           size_t panel_stride, size_t channels, bool ahead, float* sums,
                                           size_t sum_pitch) {
  const float* a[kRows];
  V16 sum[kRows][kPanels];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    a[i] = points + i * pitch;
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) sum[i][j] = V16::broadcast(0.0f);
  }
  // The next point's weights lie behind these.
  if (ahead) {
    multiply<true>(a, weights, channels, panel_stride, channels * kPanel, sum);
  } else {
    multiply<false>(a, weights, channels, panel_stride, 0, sum);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) sum[i][j].store(sums + i * sum_pitch + j * kPanel);
  }
}

template <int kRows, int kPanels>
inline void point_rows(size_t rows, const float* points, size_t pitch, const float* weights,
                       size_t panel_stride, size_t channels, bool ahead, float* sums, size_t sum_pitch) {
  if (rows == kRows) {
    point_block<kRows, kPanels>(points, pitch, weights, panel_stride, channels, ahead, sums, sum_pitch);
  } else if constexpr (kRows > 1) {
    point_rows<kRows - 1, kPanels>(rows, points, pitch, weights, panel_stride, channels, ahead, sums,
                                   sum_pitch);
  }
}

template <uint32_t kPoints, int kPanels>
void point_group(const Patches& p, uint32_t panels, const float* weights) {
  if constexpr (kPanels > 1) {
    if (panels < kPanels) return point_group<kPoints, kPanels - 1>(p, panels, weights);
  }
  constexpr size_t kRows = Blocks::rows(kPanels);
  const size_t channels = p.view->record->in_channels, blocks = (p.count + kRows - 1) / kRows;
  for (uint32_t point = 0; point < kPoints; ++point, weights += channels * kPanel) {
    for (size_t block = 0; block < blocks; ++block) {
      const size_t row = block * p.count / blocks, end = (block + 1) * p.count / blocks;
      point_rows<kRows, kPanels>(end - row, p.points + point * p.point_stride + row * p.pitch, p.pitch,
                                 weights, kPoints * channels * kPanel, channels, block == 0,
                                 p.sums + point * p.sum_stride + row * p.sum_pitch, p.sum_pitch);
    }
  }
}

// `panel`: of the group whose sums are there; `column`: of the op.
template <typename Points, int kOut>
void transform_output(const Patches& p, uint32_t panel, uint32_t column, uint32_t end) {
  constexpr uint32_t kPatch = Points::kPatch;
  const OpView& view = *p.view;
  const OpRecord& op = *view.record;
  const V16 bias = V16::load(view.bias + column);
  const bool relu = op.flags & kRelu;
  for (size_t i = 0; i < p.count; ++i) {
    const Corner corner = corner_of(p, p.first + i);
    const float* in = p.sums + i * p.sum_pitch + panel * kPanel;
    V16 lines[kOut * kPatch];
    for (uint32_t w = 0; w < kPatch; ++w) {
      V16 points[kPatch], column_of[kOut];
      for (uint32_t h = 0; h < kPatch; ++h) points[h] = V16::load(in + (h * kPatch + w) * p.sum_stride);
      Points::template from_points<kOut>(points, 1, column_of);
      for (int h = 0; h < kOut; ++h) lines[h * kPatch + w] = column_of[h];
    }
    const uint32_t height = smaller(kOut, op.out_h - corner.y), width = smaller(kOut, op.out_w - corner.x);
    for (uint32_t h = 0; h < height; ++h) {
      V16 line[kOut];
      Points::template from_points<kOut>(lines + h * kPatch, 1, line);
      Element* out = static_cast<Element*>(view.out) + column +
                     ((corner.image * op.out_h + corner.y + h) * op.out_w + corner.x) * view.out_pitch;
      for (uint32_t w = 0; w < width; ++w, out += view.out_pitch) {
        const V16 value = line[w] + bias;
        store_part(out, relu ? value.relu() : value, op, column, end);
      }
    }
  }
}

// kOut: height and width of the outputs of a patch.
template <typename Points, int kOut>
void by_patches(const OpView& view, const Tile& tile, const Scratch& scratch) {
  constexpr uint32_t kPoints = Points::kPatch * Points::kPatch;
  const OpRecord& op = *view.record;
  Patches p;
  p.view = &view;
  p.side = kOut;
  p.across = (op.out_w + p.side - 1) / p.side;
  p.down = (op.out_h + p.side - 1) / p.side;
  p.pitch = (op.in_channels + kPanel - 1) / kPanel * kPanel;
  // A tile holds whole patches, so it begins and ends where one does.
  const auto patch_at = [&](size_t row) {
    const size_t line = row / op.out_w;
    return (line / op.out_h * p.down + line % op.out_h / p.side) * p.across;
  };
  const size_t begin = patch_at(tile.row), count = patch_at(size_t(tile.row) + tile.rows) - begin;
  const size_t end_column = tile.column + tile.columns;
  constexpr size_t kWidest = Blocks::kPanels * kPanel;
  const size_t most =
      scratch.patch_floats / (kPoints * (p.pitch + kWidest)) - 1;  // one for what lies between points
  const size_t chunks = (count + most - 1) / most;
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    p.first = begin + chunk * count / chunks;
    p.count = begin + (chunk + 1) * count / chunks - p.first;
    p.points = scratch.patches;
    p.point_stride = p.count * p.pitch + kPanel;
    p.sums = p.points + kPoints * p.point_stride;
    transform_input<Points>(p, scratch);
    uint32_t panels = (tile.columns + kPanel - 1) / kPanel;
    for (uint32_t panel = tile.column / kPanel, group; panels > 0; panels -= group, panel += group) {
      group = Blocks::group(panels);
      p.sum_pitch = group * kPanel;
      p.sum_stride = p.count * p.sum_pitch + kPanel;
      point_group<kPoints, Blocks::kPanels>(
          p, group,
          static_cast<const float*>(view.weights) + size_t(panel) * kPoints * op.in_channels * kPanel);
      for (uint32_t j = 0; j < group; ++j) {
        transform_output<Points, kOut>(p, j, (panel + j) * kPanel, end_column);
      }
    }
  }
}

void winograd(const OpView& view, const Tile& tile, const Scratch& scratch) {
  const OpRecord& op = *view.record;
  if (op.flags & kSmallPatches) return by_patches<FourPoints, 2>(view, tile, scratch);
  op.kernel_h == 3 ? by_patches<SixPoints, 4>(view, tile, scratch)
                   : by_patches<SixPoints, 2>(view, tile, scratch);
}

}  // namespace
}  // namespace ie::cpu
