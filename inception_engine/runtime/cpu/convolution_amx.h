// Convolution of bfloat16 by AMX. Behind tile_kernels.h and MatrixUnit, the registers of AMX.
//
// A register holds 16 rows of 64 bytes. One multiplication takes 16 rows of input and 16 columns of weights, a *step* of
// 32 elements of K each, or of fewer (weights.h), and adds their products to 16 x 16 float32 sums. Four of the eight
// registers hold the sums of a block of 32 rows x 32 columns through the whole of K, so that each of the four others is
// used twice.
//
// K runs through taps and then channels, as everywhere. 16 rows that lie evenly in memory are read where they are, step
// by step; others are gathered row by row, once for all columns of a tile. Where a window's channels are no whole steps,
// a step goes on into the next tap, and all rows are gathered.
//
// Every sum is the same sequence of multiplications, from the first step to the last, wherever its row and column fall:
// taps that lie outside the image are multiplied, too.
#include "row_table.h"

namespace ie::cpu {
namespace {

constexpr uint32_t kHalf = 16;                                       // rows of one register
constexpr uint32_t kBlock = 2 * kHalf;                               // rows and columns of a block
constexpr size_t kStepBytes = kPanel * kAmxStep * sizeof(Bfloat16);  // of the weights of one panel
static_assert(kBlock <= kMaxBlockRows && kStepBytes == 16 * 64);

struct AmxTile {
  const OpView* view;
  const Scratch* scratch;
  size_t first, rows;  // of the output: those that the table has
  uint32_t end;        // of the tile's columns
  uint32_t taps;
  size_t steps, step;  // of K; elements of one
  // What to fetch into L2 meanwhile: the next task's weights, some lines with each step.
  Lines ahead;
  size_t lines;
};

// Whether 16 rows follow each other at one distance, and at which. All outside the image do: they are one row of zeros.
inline bool is_even(const void* const* rows, ptrdiff_t& distance) {
  const auto address = [rows](uint32_t i) { return reinterpret_cast<intptr_t>(rows[i]); };
  distance = address(1) - address(0);
  bool even = true;
  for (uint32_t i = 2; i < kHalf; ++i) even &= address(i) == address(0) + ptrdiff_t(i) * distance;
  return even;
}

// Says where 16 rows lie at each step, those from `row` of the table on, and gathers what must be. Behind the table's last
// row anything may stand: of its sums nothing is stored.
void place_rows(const AmxTile& c, size_t row, uint32_t half) {
  const Scratch& scratch = *c.scratch;
  const uint32_t channels = c.view->record->in_channels;
  const size_t pitch = scratch.gathered_pitch;
  const size_t valid = c.rows - row < kHalf ? c.rows - row : kHalf;
  const bool whole_steps = channels % c.step == 0 || c.taps == 1;
  Bfloat16* gathered = scratch.gathered + half * kHalf * pitch;
  AmxRows* place = scratch.amx_rows + half;
  for (size_t step = 0; step < c.steps; ++step) {
    place[2 * step] = {gathered + step * c.step, ptrdiff_t(pitch * sizeof(Bfloat16))};
  }
  for (uint32_t tap = 0; tap < c.taps; ++tap) {
    const void* const* rows = scratch.table + tap * c.rows + row;
    uint32_t channel = 0;
    ptrdiff_t distance;
    if (valid == kHalf && whole_steps && is_even(rows, distance)) {
      const auto* begin = static_cast<const Bfloat16*>(rows[0]);
      AmxRows* of_tap = place + size_t{tap} * channels / c.step * 2;
      for (; channel + c.step <= channels; channel += c.step, of_tap += 2) {
        *of_tap = {begin + channel, distance};
      }
      if (channel == channels) continue;
    }
    Bfloat16* to = gathered + size_t{tap} * channels + channel;
    for (size_t i = 0; i < valid; ++i, to += pitch) {
      MatrixUnit::copy(to, static_cast<const Bfloat16*>(rows[i]) + channel, channels - channel);
    }
  }
}

// The sums of 16 * kHalves rows and kPanels panels, [rows][kBlock].
template <int kHalves, int kPanels>
__attribute__((noinline)) void amx_block(AmxTile& c, const std::byte* weights, float* sums) {
  const AmxRows* rows = c.scratch->amx_rows;
  const size_t panel_bytes = c.view->panel_bytes;
  MatrixUnit::zero<0>();
  if (kPanels == 2) MatrixUnit::zero<1>();
  if (kHalves == 2) MatrixUnit::zero<2>();
  if (kHalves == 2 && kPanels == 2) MatrixUnit::zero<3>();
  for (size_t step = 0; step < c.steps; ++step, rows += 2, weights += kStepBytes) {
    MatrixUnit::load<4>(rows[0].begin, rows[0].stride);
    MatrixUnit::load<6>(weights, 64);
    MatrixUnit::multiply_add<0, 4, 6>();
    if (kPanels == 2) {
      MatrixUnit::load<7>(weights + panel_bytes, 64);
      MatrixUnit::multiply_add<1, 4, 7>();
    }
    if (kHalves == 2) {
      MatrixUnit::load<5>(rows[1].begin, rows[1].stride);
      MatrixUnit::multiply_add<2, 5, 6>();
    }
    if (kHalves == 2 && kPanels == 2) MatrixUnit::multiply_add<3, 5, 7>();
    const size_t lines = c.lines < c.ahead.count ? c.lines : c.ahead.count;
    for (size_t i = 0; i < lines; ++i) __builtin_prefetch(c.ahead.begin + i * kPanel, 0, 2);
    c.ahead = {c.ahead.begin + lines * kPanel, c.ahead.count - lines};
  }
  constexpr ptrdiff_t kPitch = kBlock * sizeof(float);
  MatrixUnit::store<0>(sums, kPitch);
  if (kPanels == 2) MatrixUnit::store<1>(sums + kPanel, kPitch);
  if (kHalves == 2) MatrixUnit::store<2>(sums + kHalf * kBlock, kPitch);
  if (kHalves == 2 && kPanels == 2) MatrixUnit::store<3>(sums + kHalf * kBlock + kPanel, kPitch);
}

// Bias, ReLU and rounding of the sums of one panel, into the output.
void finish_panel(const AmxTile& c, const float* sums, size_t row, uint32_t rows, uint32_t column) {
  const OpRecord& op = *c.view->record;
  const bool relu = op.flags & kRelu;
  const bool whole = column + kPanel <= smaller(op.out_channels, c.end);
  const V16 bias = V16::load(c.view->bias + column);
  Element* out = static_cast<Element*>(c.view->out) + (c.first + row) * c.view->out_pitch + column;
  for (uint32_t i = 0; i < rows; ++i, sums += kBlock, out += c.view->out_pitch) {
    V16 value = V16::load(sums) + bias;
    if (relu) value = value.relu();
    if (whole) {
      value.store(out);
    } else {
      store_part(out, value, op, column, c.end);
    }
  }
}

// All columns of the tile, of the rows from `row` of the table on that make a block.
void amx_rows(AmxTile& c, size_t row, uint32_t begin) {
  alignas(64) float sums[kBlock * kBlock];
  const auto rows = uint32_t(c.rows - row < kBlock ? c.rows - row : kBlock);
  const bool two_halves = rows > kHalf;
  place_rows(c, row, 0);
  if (two_halves) place_rows(c, row + kHalf, 1);
  for (uint32_t column = begin; column < c.end; column += kBlock) {
    const std::byte* weights =
        static_cast<const std::byte*>(c.view->weights) + column / kPanel * c.view->panel_bytes;
    const bool two_panels = column + kPanel < c.end;
    if (two_halves) {
      two_panels ? amx_block<2, 2>(c, weights, sums) : amx_block<2, 1>(c, weights, sums);
    } else {
      two_panels ? amx_block<1, 2>(c, weights, sums) : amx_block<1, 1>(c, weights, sums);
    }
    finish_panel(c, sums, row, rows, column);
    if (two_panels) finish_panel(c, sums + kPanel, row, rows, column + kPanel);
  }
}

void conv(const OpView& view, const Tile& tile, const Scratch& scratch) {
  const OpRecord& op = *view.record;
  AmxTile c;
  c.view = &view;
  c.scratch = &scratch;
  c.end = tile.column + tile.columns;
  c.taps = op.kernel_h * op.kernel_w;
  c.steps = view.panel_bytes / kStepBytes;
  c.step = view.amx_step;
  const size_t blocks = (size_t{tile.rows} + kBlock - 1) / kBlock,
               groups = (tile.columns + kBlock - 1) / kBlock;
  c.ahead = scratch.ahead;
  c.lines = (c.ahead.count + blocks * groups * c.steps - 1) / (blocks * groups * c.steps);
  // The last step goes on behind K, where weights are zero, and what is multiplied with them must be finite.
  const size_t depth = size_t{c.taps} * op.in_channels;
  for (uint32_t i = 0; i < kBlock && depth % c.step != 0; ++i) {
    memset(scratch.gathered + i * scratch.gathered_pitch + depth, 0,
           (c.steps * c.step - depth) * sizeof(Bfloat16));
  }
  const size_t entries = scratch.table_entries / c.taps;
  const size_t most = (entries < kTableRows ? entries : kTableRows) / kBlock * kBlock;
  MatrixUnit::begin(view.amx_step);
  for (size_t done = 0; done < tile.rows; done += c.rows) {
    c.first = tile.row + done;
    c.rows = tile.rows - done < most ? tile.rows - done : most;
    fill_table(view, scratch, c.first, c.rows);
    for (size_t row = 0; row < c.rows; row += kBlock) amx_rows(c, row, tile.column);
  }
  MatrixUnit::end();
}

}  // namespace
}  // namespace ie::cpu
