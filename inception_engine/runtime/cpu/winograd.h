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
// The patches of a tile are done some at a time, so that their points stay in L2, and the sums of one group of panels.
//
// Windows of the image, pixels of outputs and panels of weights lie in too many places for a processor to fetch them by
// itself. Fetched ahead, on two cores of an EPYC 9005 (Zen 5): what is read of the image and written of the outputs takes 4 %
// off the whole network at batch 8, and weights of two panels at a time, rather than one, 4 % at batch 1, where they come from
// memory.

namespace ie::cpu {
namespace {

// One dimension of B' and of A', to kOut outputs, for points 0, +-3/4, +-3/2 and infinity. The largest error of a layer of
// random numbers is then 1e-6 of the largest output, where a direct sum has 5e-7 and the usual points 0, +-1, +-2 have 4e-6;
// every constant below is exact.
struct SixPoints {
  static constexpr uint32_t kPatch = 6;
  static constexpr float kA = 0.75f, kB = 1.5f;

  // Three of the six, which share products: the first or the last.
  template <int kHalf>
  static void to_points(const V16* d, V16* t) {
    const V16 both = V16::broadcast(-(kA * kA + kB * kB)), product = V16::broadcast(kA * kA * kB * kB);
    const float point = kHalf == 0 ? kA : kB, other = kHalf == 0 ? kB : kA;
    const V16 minus_square = V16::broadcast(-other * other);
    const V16 even = V16::multiply_add(minus_square, d[2], d[4]),
              odd = V16::multiply_add(minus_square, d[1], d[3]);
    const V16 above = V16::multiply_add(V16::broadcast(point), odd, even);
    const V16 below = V16::multiply_add(V16::broadcast(-point), odd, even);
    if constexpr (kHalf == 0) {
      t[0] = V16::multiply_add(product, d[0], V16::multiply_add(both, d[2], d[4]));
      t[1] = above;
      t[2] = below;
    } else {
      t[0] = above;
      t[1] = below;
      t[2] = V16::multiply_add(product, d[1], V16::multiply_add(both, d[3], d[5]));
    }
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

  template <int kHalf>
  static void to_points(const V16* d, V16* t) {
    t[0] = kHalf == 0 ? d[2] - d[0] : d[2] - d[1];
    t[1] = kHalf == 0 ? d[1] + d[2] : d[3] - d[1];
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

// Half of the points of 16 channels: as many vectors as the registers of AVX-512 hold. Whole patches took 1.5 to 1.8 times as long.
template <typename Points, int kHalf>
__attribute__((always_inline)) inline void half_to_points(const Element* const* pixels, uint32_t channel,
                                                          uint32_t channels, float* out,
                                                          size_t point_stride) {
  constexpr uint32_t kPatch = Points::kPatch, kLines = kPatch / 2;
  V16 lines[kLines][kPatch];
#pragma GCC unroll 6
  for (uint32_t w = 0; w < kPatch; ++w) {
    V16 column[kPatch], points[kLines];
#pragma GCC unroll 6
    for (uint32_t h = 0; h < kPatch; ++h) column[h] = load_part(pixels[h * kPatch + w] + channel, channels);
    Points::template to_points<kHalf>(column, points);
#pragma GCC unroll 3
    for (uint32_t h = 0; h < kLines; ++h) lines[h][w] = points[h];
  }
#pragma GCC unroll 3
  for (uint32_t h = 0; h < kLines; ++h) {
    V16 line[kPatch];
    Points::template to_points<0>(lines[h], line);
    Points::template to_points<1>(lines[h], line + kLines);
#pragma GCC unroll 6
    for (uint32_t w = 0; w < kPatch; ++w) line[w].store(out + (h * kPatch + w) * point_stride);
  }
}

template <typename Points>
void transform_input(const Patches& p, const Scratch& scratch) {
  constexpr uint32_t kPatch = Points::kPatch, kPoints = kPatch * kPatch;
  const OpView& view = *p.view;
  const OpRecord& op = *view.record;
  for (size_t i = 0; i < p.count; ++i) {
    const Corner corner = corner_of(p, p.first + i);
    const Element* pixels[kPoints];  // of this patch
    const Element* next[kPatch];     // in each line behind them, where those of the next patch are
    for (uint32_t h = 0; h < kPatch; ++h) {
      const uint32_t y = corner.y + h - op.pad_top;  // outside the image: huge
      for (uint32_t w = 0; w <= kPatch; ++w) {
        const uint32_t x = corner.x + w - op.pad_left;
        const Element* pixel = y < op.in_h && x < op.in_w
                                   ? static_cast<const Element*>(view.in) +
                                         ((corner.image * op.in_h + y) * op.in_w + x) * view.in_pitch
                                   : static_cast<const Element*>(scratch.zeros);
        (w < kPatch ? pixels[h * kPatch + w] : next[h]) = pixel;
      }
    }
    float* out = p.points + i * p.pitch;
    for (uint32_t c = 0; c < op.in_channels; c += kPanel, out += kPanel) {
      for (uint32_t h = 0; h < kPatch; ++h) {
        for (uint32_t w = 0; w < p.side; ++w) __builtin_prefetch(next[h] + w * view.in_pitch + c);
      }
      half_to_points<Points, 0>(pixels, c, op.in_channels - c, out, p.point_stride);
      half_to_points<Points, 1>(pixels, c, op.in_channels - c, out + kPoints / 2 * p.point_stride,
                                p.point_stride);
    }
  }
}

// Products at one point: kRows patches, kPanels panels. Meanwhile what lies `ahead` floats behind the weights is fetched, of
// kAhead panels.
template <int kRows, int kPanels, int kAhead>
__attribute__((noinline)) void point_block(const float* points, size_t pitch, const float* weights,
                                           size_t panel_stride, size_t channels, ptrdiff_t ahead, float* sums,
                                           size_t sum_pitch) {
  const float* a[kRows];
  V16 sum[kRows][kPanels];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    a[i] = points + i * pitch;
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) sum[i][j] = V16::broadcast(0.0f);
  }
  multiply<kAhead>(a, weights, channels, panel_stride, ahead, sum);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) sum[i][j].store(sums + i * sum_pitch + j * kPanel);
  }
}

template <int kRows, int kPanels, int kAhead>
inline void point_rows(size_t rows, const float* points, size_t pitch, const float* weights,
                       size_t panel_stride, size_t channels, ptrdiff_t ahead, float* sums, size_t sum_pitch) {
  if (rows == kRows) {
    point_block<kRows, kPanels, kAhead>(points, pitch, weights, panel_stride, channels, ahead, sums,
                                        sum_pitch);
  } else if constexpr (kRows > 1) {
    point_rows<kRows - 1, kPanels, kAhead>(rows, points, pitch, weights, panel_stride, channels, ahead, sums,
                                           sum_pitch);
  }
}

// Fetches what transform_output will write (and what whole patches would, at the edges), evenly over `steps` steps: of many lines
// at a time a processor drops some.
struct FetchOutputs {
  const Patches& p;
  const uint32_t column, panels;
  const size_t steps, pixels;    // pixels: of all patches
  const Element* out = nullptr;  // the next pixel, at (y, x) of its patch
  uint32_t y = 0, x = 0;
  size_t patch = 0;  // the next one
  size_t due = 0;    // pixels, in parts of a step

  FetchOutputs(const Patches& patches, uint32_t first_column, uint32_t panel_count, size_t step_count)
      : p(patches),
        column(first_column),
        panels(panel_count),
        steps(step_count),
        pixels(p.count * p.side * p.side) {}

  // Inlined, since GCC drops calls of functions that do nothing but fetch.
  __attribute__((always_inline)) void step() {
    const size_t pitch = p.view->out_pitch;
    for (due += pixels; due >= steps; due -= steps) {
      if (x == 0 && y == 0) {
        const OpRecord& op = *p.view->record;
        const Corner corner = corner_of(p, p.first + patch);
        out = static_cast<const Element*>(p.view->out) +
              ((corner.image * op.out_h + corner.y) * op.out_w + corner.x) * pitch + column;
        ++patch;
      }
      for (uint32_t panel = 0; panel < panels; ++panel) __builtin_prefetch(out + panel * kPanel, 1);
      out += pitch;
      if (++x == p.side) {
        x = 0;
        out += (ptrdiff_t(p.view->record->out_w) - p.side) * ptrdiff_t(pitch);
        if (++y == p.side) y = 0;
      }
    }
  }
};

// Blocks of rows that so many patches are cut into: for a group of panels, and for panels in groups of so many.
inline size_t blocks_of(size_t count, int group) {
  const size_t rows = Blocks::rows(group);
  return (count + rows - 1) / rows;
}

inline size_t blocks_of_all(size_t count, uint32_t panels, uint32_t group) {
  const uint32_t rest = panels % group;
  return panels / group * blocks_of(count, int(group)) + (rest != 0 ? blocks_of(count, int(rest)) : 0);
}

template <uint32_t kPoints, int kPanels>
void point_group(const Patches& p, uint32_t panels, const float* weights, uint32_t column) {
  if constexpr (kPanels > 1) {
    if (panels < kPanels) return point_group<kPoints, kPanels - 1>(p, panels, weights, column);
  }
  constexpr size_t kRows = Blocks::rows(kPanels);
  const size_t channels = p.view->record->in_channels, blocks = blocks_of(p.count, kPanels);
  // The compiler gives small patches to small images, which are in L2.
  constexpr bool kFetchesOutputs = kPoints == SixPoints::kPatch * SixPoints::kPatch;
  FetchOutputs fetch(p, column, panels, kPoints * blocks);
  // The next point's weights lie behind these. Each of the first blocks fetches those of two panels.
  constexpr size_t kFetched = kPanels < 2 ? 1 : 2;
  const size_t panel_stride = kPoints * channels * kPanel;
  for (uint32_t point = 0; point < kPoints; ++point, weights += channels * kPanel) {
    for (size_t block = 0; block < blocks; ++block) {
      const size_t row = block * p.count / blocks, end = (block + 1) * p.count / blocks;
      const float* points = p.points + point * p.point_stride + row * p.pitch;
      float* sums = p.sums + point * p.sum_stride + row * p.sum_pitch;
      if (kFetchesOutputs) fetch.step();
      if (block * kFetched < kPanels) {
        const ptrdiff_t ahead = channels * kPanel + block * kFetched * panel_stride;
        point_rows<kRows, kPanels, kFetched>(end - row, points, p.pitch, weights, panel_stride, channels,
                                             ahead, sums, p.sum_pitch);
      } else {
        point_rows<kRows, kPanels, 0>(end - row, points, p.pitch, weights, panel_stride, channels, 0, sums,
                                      p.sum_pitch);
      }
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
      // One less where that makes fewer blocks, since those of fewer panels have more rows.
      if (panels > group && group > 1 &&
          blocks_of_all(p.count, panels, group - 1) < blocks_of_all(p.count, panels, group))
        --group;
      p.sum_pitch = group * kPanel;
      p.sum_stride = p.count * p.sum_pitch + kPanel;
      point_group<kPoints, Blocks::kPanels>(
          p, group,
          static_cast<const float*>(view.weights) + size_t(panel) * kPoints * op.in_channels * kPanel,
          panel * kPanel);
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
