// Convolution of bfloat16 by AMX. Behind tile_kernels.h and MatrixUnit, the registers of AMX.
//
// A register holds 16 rows of 64 bytes. One multiplication takes 16 rows of input and 16 columns of weights, a *step* of
// 32 elements of K each, or of fewer (AmxDepth), and adds their products to 16 x 16 float32 sums. Four of the eight
// registers hold the sums of a block of 32 rows x 32 columns through the whole of K, so that each of the four others is
// used twice.
//
// Registers are loaded from rows that lie at one distance in memory. In an image, rows of outputs do so up to the end of a
// line, and but for the taps outside the image. So a window of stride 1 reads a copy of the lines that it touches, with
// zeros around them: [lines][width][channels], where each line is as wide as a padded one of the image. There row v of the
// chunk begins at pixel v, line after line, for each run of K; kernel_w - 1 rows at the end of every line are no outputs
// and are not stored. Other windows are gathered row by row, once for all columns of a tile, unless they lie evenly.
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

// Rows of a block that follow each other in the output, too.
struct Piece {
  size_t row;            // of the output
  uint32_t first, rows;  // of the block
};

struct AmxTile {
  const OpView* view;
  const Scratch* scratch;
  uint32_t begin, end;  // of the tile's columns
  size_t steps;         // of the whole of K
  // What to fetch into L2 meanwhile: the next task's weights, some lines with each step.
  Lines ahead;
  size_t lines;
  // Of the current chunk, the output's row at which it begins, and
  size_t first;
  // its rows, those that the table has; or
  size_t rows;
  // its lines: what is copied of each, and where in an output line the first of them begins.
  size_t width;
  uint32_t x;
};

// Where a step of a run begins. The last ends where the run does; what it has in common with the one before has zeros for
// weights.
inline size_t begin_of(const AmxDepth& depth, size_t step) {
  return step + 1 < depth.steps || depth.run < depth.step ? step * depth.step : depth.run - depth.step;
}

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
  const OpRecord& op = *c.view->record;
  const AmxDepth& depth = c.view->amx;
  const uint32_t channels = op.in_channels, taps_of_run = uint32_t(depth.run / channels);
  const size_t pitch = scratch.gathered_pitch;
  const size_t valid = c.rows - row < kHalf ? c.rows - row : kHalf;
  AmxRows* place = scratch.amx_rows + half;
  for (size_t run = 0; run < depth.runs; ++run) {
    const void* const* rows = scratch.table + run * taps_of_run * c.rows + row;
    Bfloat16* gathered = scratch.gathered + half * kHalf * pitch + run * depth.run;
    const Bfloat16* begin = gathered;
    ptrdiff_t distance = ptrdiff_t(pitch * sizeof(Bfloat16)), even;
    if (taps_of_run == 1 && depth.run >= depth.step && valid == kHalf && is_even(rows, even)) {
      begin = static_cast<const Bfloat16*>(rows[0]);
      distance = even;
    } else {
      for (uint32_t tap = 0; tap < taps_of_run; ++tap, rows += c.rows, gathered += channels) {
        for (size_t i = 0; i < valid; ++i) {
          MatrixUnit::copy(gathered + i * pitch, static_cast<const Bfloat16*>(rows[i]), channels);
        }
      }
    }
    for (size_t step = 0; step < depth.steps; ++step, place += 2) {
      *place = {begin + begin_of(depth, step), distance};
    }
  }
}

// The same in the copied lines: those from `row` of the chunk on.
void place_lines(const AmxTile& c, size_t row, uint32_t half) {
  const AmxDepth& depth = c.view->amx;
  const size_t channels = c.view->record->in_channels;
  AmxRows* place = c.scratch->amx_rows + half;
  const Bfloat16* begin = c.scratch->gathered + row * channels;
  for (size_t run = 0; run < depth.runs; ++run, begin += c.width * channels) {
    for (size_t step = 0; step < depth.steps; ++step, place += 2) {
      *place = {begin + begin_of(depth, step), ptrdiff_t(channels * sizeof(Bfloat16))};
    }
  }
}

// Copies what `lines` lines of outputs read, the first of which is the image's line y.
void copy_lines(const AmxTile& c, size_t image, uint32_t y, size_t lines) {
  const OpView& view = *c.view;
  const OpRecord& op = *view.record;
  const size_t channels = op.in_channels;
  // Of each padded line: pixels outside the image, those inside, and the rest.
  const size_t before = op.pad_left > c.x ? smaller(op.pad_left - c.x, uint32_t(c.width)) : 0;
  const size_t from = c.x > op.pad_left ? c.x - op.pad_left : 0;  // of the image's line
  size_t inside = op.in_w > from ? op.in_w - from : 0;
  if (inside > c.width - before) inside = c.width - before;
  Bfloat16* to = c.scratch->gathered;
  for (size_t line = 0; line < lines + op.kernel_h - 1; ++line, to += c.width * channels) {
    const size_t in_y = y + line - op.pad_top;  // above the image: huge
    if (in_y >= op.in_h || inside == 0) {
      memset(to, 0, c.width * channels * sizeof(Bfloat16));
      continue;
    }
    const Element* in =
        static_cast<const Element*>(view.in) + ((image * op.in_h + in_y) * op.in_w + from) * view.in_pitch;
    memset(to, 0, before * channels * sizeof(Bfloat16));
    for (size_t i = 0; i < inside; ++i, in += view.in_pitch) {
      MatrixUnit::copy(to + (before + i) * channels, in, op.in_channels);
    }
    memset(to + (before + inside) * channels, 0, (c.width - before - inside) * channels * sizeof(Bfloat16));
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
void finish_panel(const AmxTile& c, const float* sums, const Piece& piece, uint32_t column) {
  const OpRecord& op = *c.view->record;
  const bool relu = op.flags & kRelu;
  const bool whole = column + kPanel <= smaller(op.out_channels, c.end);
  const V16 bias = V16::load(c.view->bias + column);
  Element* out = static_cast<Element*>(c.view->out) + piece.row * c.view->out_pitch + column;
  sums += piece.first * kBlock;
  for (uint32_t i = 0; i < piece.rows; ++i, sums += kBlock, out += c.view->out_pitch) {
    V16 value = V16::load(sums) + bias;
    if (relu) value = value.relu();
    if (whole) {
      value.store(out);
    } else {
      store_part(out, value, op, column, c.end);
    }
  }
}

// All columns of the tile, of a block of `rows` rows that are placed.
void amx_columns(AmxTile& c, size_t rows, const Piece* pieces, size_t piece_count) {
  alignas(64) float sums[kBlock * kBlock];
  for (uint32_t column = c.begin; column < c.end; column += kBlock) {
    const std::byte* weights =
        static_cast<const std::byte*>(c.view->weights) + column / kPanel * c.view->panel_bytes;
    const bool two_panels = column + kPanel < c.end;
    if (rows > kHalf) {
      two_panels ? amx_block<2, 2>(c, weights, sums) : amx_block<2, 1>(c, weights, sums);
    } else {
      two_panels ? amx_block<1, 2>(c, weights, sums) : amx_block<1, 1>(c, weights, sums);
    }
    for (size_t i = 0; i < piece_count; ++i) {
      finish_panel(c, sums, pieces[i], column);
      if (two_panels) finish_panel(c, sums + kPanel, pieces[i], column + kPanel);
    }
  }
}

// Chunks as large as the table allows.
void by_rows(AmxTile& c, const Tile& tile) {
  const OpView& view = *c.view;
  const Scratch& scratch = *c.scratch;
  const AmxDepth& depth = view.amx;
  // A single step goes on behind K, where weights are zero, and what is multiplied with them must be finite.
  for (uint32_t i = 0; i < kBlock && depth.run < depth.step; ++i) {
    memset(scratch.gathered + i * scratch.gathered_pitch + depth.run, 0,
           (depth.step - depth.run) * sizeof(Bfloat16));
  }
  const size_t entries = scratch.table_entries / (depth.runs * depth.run / view.record->in_channels);
  const size_t most = (entries < kTableRows ? entries : kTableRows) / kBlock * kBlock;
  for (size_t done = 0; done < tile.rows; done += c.rows) {
    c.first = tile.row + done;
    c.rows = tile.rows - done < most ? tile.rows - done : most;
    fill_table(view, scratch, c.first, c.rows);
    for (size_t row = 0, rows; row < c.rows; row += rows) {
      rows = c.rows - row < kBlock ? c.rows - row : kBlock;
      place_rows(c, row, 0);
      if (rows > kHalf) place_rows(c, row + kHalf, 1);
      const Piece all = {c.first + row, 0, uint32_t(rows)};
      amx_columns(c, rows, &all, 1);
    }
  }
}

// Which of a block's rows, those from `row` of the lines on, are outputs. Returns the number of pieces.
size_t outputs_of(const AmxTile& c, size_t row, size_t rows, Piece* pieces) {
  const OpRecord& op = *c.view->record;
  const size_t line = c.first / op.out_w;  // of all images
  size_t count = 0;
  for (size_t i = 0, some; i < rows; i += some) {
    const size_t x = c.x + (row + i) % c.width, left = c.x + c.width - x;
    some = left < rows - i ? left : rows - i;
    if (x >= op.out_w) continue;
    const size_t stored = op.out_w - x < some ? op.out_w - x : some;
    pieces[count++] = {(line + (row + i) / c.width) * op.out_w + x, uint32_t(i), uint32_t(stored)};
  }
  return count;
}

// Chunks of one image, as large as the memory for their lines allows: some lines, or a piece of one.
void by_lines(AmxTile& c, const Tile& tile) {
  const OpRecord& op = *c.view->record;
  const size_t padded = size_t{op.out_w} + op.kernel_w - 1, image = size_t{op.out_h} * op.out_w;
  // Pixels that there is room for; what a block reads behind them is of rows that are not stored.
  const size_t room = c.scratch->gathered_elements / op.in_channels - kBlock;
  const size_t whole_lines = room / padded,
               most_lines = whole_lines < op.kernel_h ? 1 : whole_lines - op.kernel_h + 1;
  const size_t end = size_t{tile.row} + tile.rows;
  for (size_t count; c.first < end; c.first += count) {
    const size_t inside = c.first % image;
    const auto y = uint32_t(inside / op.out_w), x = uint32_t(inside % op.out_w);
    count = end - c.first < image - inside ? end - c.first : image - inside;
    if (count > most_lines * op.out_w - x) count = most_lines * op.out_w - x;
    size_t lines = (x + count - 1) / op.out_w + 1;
    c.x = 0;
    c.width = padded;
    if (lines == 1) {
      if (count > room / op.kernel_h - op.kernel_w + 1) count = room / op.kernel_h - op.kernel_w + 1;
      c.x = x;
      c.width = count + op.kernel_w - 1;
    }
    copy_lines(c, c.first / image, y, lines);
    const size_t last = (lines - 1) * c.width + (x + count - 1) % op.out_w - c.x;
    for (size_t row = x - c.x, rows; row <= last; row += rows) {
      rows = last + 1 - row < kBlock ? last + 1 - row : kBlock;
      place_lines(c, row, 0);
      if (rows > kHalf) place_lines(c, row + kHalf, 1);
      Piece pieces[kBlock];
      amx_columns(c, rows, pieces, outputs_of(c, row, rows, pieces));
    }
  }
}

// Whether lines are copied: windows that slide by one pixel, over outputs that do not lose themselves between the ends of
// lines. A step that is longer than its run would read what is no part of the window.
inline bool copies_lines(const OpView& view) {
  const OpRecord& op = *view.record;
  return view.amx.runs == op.kernel_h && view.amx.run >= view.amx.step && op.kernel_h * op.kernel_w > 1 &&
         op.stride_h == 1 && op.stride_w == 1 && op.in_channels <= view.in_pitch &&
         op.out_w >= op.kernel_w - 1 && op.out_h * op.out_w >= kHalf;
}

void conv(const OpView& view, const Tile& tile, const Scratch& scratch) {
  AmxTile c{};
  c.view = &view;
  c.scratch = &scratch;
  c.begin = tile.column;
  c.end = tile.column + tile.columns;
  c.steps = view.amx.runs * view.amx.steps;
  c.first = tile.row;
  const size_t blocks = (size_t{tile.rows} + kBlock - 1) / kBlock,
               groups = (tile.columns + kBlock - 1) / kBlock;
  c.ahead = scratch.ahead;
  c.lines = (c.ahead.count + blocks * groups * c.steps - 1) / (blocks * groups * c.steps);
  MatrixUnit::begin(view.amx.step);
  copies_lines(view) ? by_lines(c, tile) : by_rows(c, tile);
  MatrixUnit::end();
}

}  // namespace
}  // namespace ie::cpu
