// Convolution: implicit GEMM over addresses ("indirect convolution", Dukhan, arXiv 1907.02129). Behind tile_kernels.h.
//
// A tile is cut into blocks of rows, and its columns into groups of panels. A micro-kernel keeps the sums of
// one block x one group in registers through the whole of K: taps in order, then channels in order. A tap
// that lies outside the image for all rows of a block is left out, which adds the zeros it would have added.
//
// Measured on one AVX-512 core (Emerald Rapids), all convolutions of GoogLeNet, share of the FMA peak: blocks
// of 6 x 4 panels 93 %, 11 x 2 91 %, 14 x 2 90 %, 12 x 2 88 % (more row addresses than general registers).
// Weights that stream from L2 cost nothing measurable, so K is not cut. What comes from beyond L2 costs:
// fetched ahead, the input of a 1x1 convolution saves 2 % of the whole network at batch 8, and weights save 2
// % at batch 1. In tiles that have nothing to fetch, even the idle prefetch instruction costs 3 %, hence
// kAhead.
#include "row_table.h"
#include "step.h"

namespace ie::cpu {
namespace {

struct ConvTile {
  const void* const* table;  // [taps][rows]
  const uint64_t* inside;
  size_t rows;
  uint32_t taps, channels;
  const float* weights;  // of the group's first panel; lines of kPanel floats, whatever they hold
  size_t panel_stride;
  const float* bias;
  Element* out;  // (first row of the table, first column of the group)
  size_t out_pitch;
  uint32_t column, end;  // of the group, of the tile
  const OpRecord* op;
  // What to fetch into L2 meanwhile, one line per row of a panel: the tile's input, then the next task's
  // weights.
  Lines ahead, then;
};

// One step of `multiply`, at element k of all rows, as `broadcast` reads them.
template <typename Number, int kRows, int kPanels, typename Broadcast>
__attribute__((always_inline)) inline void multiply_step(const Number* const (&a)[kRows], size_t k,
                                                         const float* weights, size_t panel_stride,
                                                         V16 (&sum)[kRows][kPanels], Broadcast broadcast) {
  using S = Step<Number>;
  typename S::Vector w[kPanels];
#pragma GCC unroll 4
  for (int j = 0; j < kPanels; ++j) w[j] = S::weights(weights + j * panel_stride);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    const typename S::Vector value = broadcast(a[i] + k);
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) sum[i][j] = S::multiply_add(value, w[j], sum[i][j]);
  }
}

// sum += a * weights over all channels of one tap. Each step fetches a line `ahead` floats further on, of the first kAhead
// panels.
template <int kAhead, typename Number, int kRows, int kPanels>
__attribute__((always_inline)) inline void multiply(const Number* const (&a)[kRows], const float* weights,
                                                    size_t channels, size_t panel_stride, ptrdiff_t ahead,
                                                    V16 (&sum)[kRows][kPanels]) {
  using S = Step<Number>;
  const size_t whole = channels / S::kElements * S::kElements;
  for (size_t k = 0; k < whole; k += S::kElements, weights += kPanel) {
#pragma GCC unroll 4
    for (int j = 0; j < kAhead; ++j) __builtin_prefetch(weights + ahead + j * panel_stride, 0, 2);
    multiply_step(a, k, weights, panel_stride, sum, S::broadcast);
  }
  if constexpr (S::kElements > 1) {
    if (whole != channels) multiply_step(a, whole, weights, panel_stride, sum, S::broadcast_last);
  }
}

// Lines of weights of one tap.
inline size_t lines_of(size_t channels) {
  constexpr size_t kElements = Step<Element>::kElements;
  return (channels + kElements - 1) / kElements;
}

inline bool is_inside(uint64_t inside, uint32_t tap) { return inside >> smaller(tap, 63) & 1; }

template <int kRows, int kPanels, bool kAhead>
__attribute__((noinline)) void conv_block(const ConvTile& c, size_t row) {
  const ptrdiff_t ahead = kAhead ? c.ahead.begin - c.weights : 0;
  V16 sum[kRows][kPanels];
  uint64_t inside = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    inside |= c.inside[row + i];
#pragma GCC unroll 4
    for (int j = 0; j < kPanels; ++j) sum[i][j] = V16::broadcast(0.0f);
  }
  const size_t channels = c.channels, lines = lines_of(channels), panel_stride = c.panel_stride;
  const void* const* addresses = c.table + row;
  const float* weights = c.weights;
  for (uint32_t tap = 0; tap < c.taps; ++tap, addresses += c.rows, weights += lines * kPanel) {
    if (!is_inside(inside, tap)) continue;
    const Element* a[kRows];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) a[i] = static_cast<const Element*>(addresses[i]);
    multiply<kAhead>(a, weights, channels, panel_stride, ahead, sum);
  }
  const bool relu = c.op->flags & kRelu;
  Element* out = c.out + row * c.out_pitch;
#pragma GCC unroll 4
  for (int j = 0; j < kPanels; ++j) {
    const uint32_t column = c.column + j * kPanel;
    const bool whole = column + kPanel <= smaller(c.op->out_channels, c.end);
    const V16 bias = V16::load(c.bias + j * kPanel);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      V16 value = sum[i][j] + bias;
      if (relu) value = value.relu();
      Element* p = out + i * c.out_pitch + j * kPanel;
      if (whole) {
        value.store(p);
      } else {
        store_part(p, value, *c.op, column, c.end);
      }
    }
  }
}

template <int kRows, int kPanels>
inline void conv_rows(const ConvTile& c, size_t row, size_t rows) {
  if (rows == kRows) {
    c.ahead.count != 0 ? conv_block<kRows, kPanels, true>(c, row) : conv_block<kRows, kPanels, false>(c, row);
  } else if constexpr (kRows > 1) {
    conv_rows<kRows - 1, kPanels>(c, row, rows);
  }
}

// One group of panels: blocks as equal as they can be, so that no small one is left at the end.
template <int kPanels>
void conv_group(ConvTile& c, uint32_t panels) {
  if constexpr (kPanels > 1) {
    if (panels < kPanels) return conv_group<kPanels - 1>(c, panels);
  }
  constexpr size_t kRows = Blocks::rows(kPanels);
  const size_t blocks = (c.rows + kRows - 1) / kRows;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t row = block * c.rows / blocks;
    conv_rows<kRows, kPanels>(c, row, (block + 1) * c.rows / blocks - row);
    const size_t lines = c.panel_stride / kPanel, fetched = lines < c.ahead.count ? lines : c.ahead.count;
    c.ahead = {c.ahead.begin + fetched * kPanel, c.ahead.count - fetched};
    if (c.ahead.count == 0) c.ahead = c.then, c.then.count = 0;
  }
}

void conv(const OpView& view, const Tile& tile, const Scratch& scratch) {
  const OpRecord& op = *view.record;
  ConvTile c;
  c.table = scratch.table;
  c.inside = scratch.inside;
  c.taps = op.kernel_h * op.kernel_w;
  c.channels = op.in_channels;
  c.panel_stride = size_t(c.taps) * lines_of(c.channels) * kPanel;
  c.out_pitch = view.out_pitch;
  c.end = tile.column + tile.columns;
  c.op = &op;
  // Larger windows read too little for their arithmetic to wait for their input.
  const bool pointwise = c.taps == 1 && op.in_h == op.out_h && op.in_w == op.out_w;
  const void* in = static_cast<const Element*>(view.in) + tile.row * view.in_pitch;
  const size_t in_bytes = tile.rows * view.in_pitch * sizeof(Element);
  c.ahead = {static_cast<const float*>(in), pointwise ? in_bytes / (kPanel * sizeof(float)) : 0};
  c.then = scratch.ahead;
  if (c.ahead.count == 0) c.ahead = c.then, c.then.count = 0;
  const size_t most =
      scratch.table_entries / c.taps < kTableRows ? scratch.table_entries / c.taps : kTableRows;
  const size_t chunks = (tile.rows + most - 1) / most;
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    const size_t row = chunk * tile.rows / chunks;
    c.rows = (chunk + 1) * tile.rows / chunks - row;
    fill_table(view, scratch, tile.row + row, c.rows);
    uint32_t panels = (tile.columns + kPanel - 1) / kPanel;
    for (uint32_t panel = tile.column / kPanel, group; panels > 0; panels -= group, panel += group) {
      group = Blocks::group(panels);
      c.column = panel * kPanel;
      c.weights = static_cast<const float*>(view.weights) + panel * c.panel_stride;
      c.bias = view.bias + c.column;
      c.out = static_cast<Element*>(view.out) + (tile.row + row) * view.out_pitch + c.column;
      conv_group<Blocks::kPanels>(c, group);
    }
  }
}

}  // namespace
}  // namespace ie::cpu
