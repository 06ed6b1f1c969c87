// The tile kernels, written once over V16, a vector of 16 floats; Element, what activations are: float or Bfloat16; and
// Largest, a vector in which maximum pools compare elements.
//
// Included by the kernels_*.cpp, each of which defines them in its anonymous namespace first, and includes its convolutions
// behind this. No templates of the standard library here: a function that two of these files instantiate is one function to
// the linker, and may come from the wrong file.
//
// Every element of an output is computed by the same sequence of operations whatever tile, block or vector
// lane it falls into; so results do not depend on the tiling, the threads or the place in the batch, if weights are finite
// (convolution.h leaves out taps that would add zeros).

#include <math.h>
#include <string.h>

#include "half.h"
#include "kernels.h"

namespace ie::cpu {
namespace {

inline uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

inline float number(float value) { return value; }
inline float number(Bfloat16 value) { return from_bfloat16(value.bits); }
inline void put(float* p, float value) { *p = value; }
inline void put(Bfloat16* p, float value) { p->bits = to_bfloat16(value); }

// Loads `count` numbers, or as many as a vector has, zeros behind them.
template <typename Vector = V16, typename Number>
inline Vector load_part(const Number* p, uint32_t count) {
  return count >= Vector::kLanes ? Vector::load(p) : Vector::load(p, count);
}

// Stores `value` in the columns of an output from `column` on: zeros from out_channels on, nothing from `end`
// on.
template <typename Vector>
inline void store_part(Element* p, Vector value, const OpRecord& op, uint32_t column, uint32_t end) {
  constexpr uint32_t kLanes = Vector::kLanes;
  const uint32_t stored = smaller(kLanes, end - column);
  const uint32_t used = op.out_channels > column ? smaller(kLanes, op.out_channels - column) : 0;
  if (used < kLanes) value = value.first(used);
  if (stored == kLanes) {
    value.store(p);
  } else {
    value.store(p, stored);
  }
}

// ---- Pools. Pixels outside the image are absent.
//
// The rows of a tile that lie in one line of the output, or in a piece of a very long one, are done together, in two
// passes: down each column of the window, for every column that they touch, then across. Windows that overlap share the
// first pass: a 3x3 pool of stride 1 takes 4 maxima per element instead of 8.

struct Maximum {
  using Vector = Largest;
  static Vector of(Vector a, Vector b) { return Vector::max(a, b); }
  static Vector finish(Vector value, uint32_t) { return value; }
};

struct Average {
  using Vector = V16;
  static Vector of(Vector a, Vector b) { return a + b; }
  static Vector finish(Vector sum, uint32_t pixels) { return sum / Vector::broadcast(float(pixels)); }
};

// Of `pixels` that lie `step` elements apart, each vector loaded by `load`.
template <typename Pool, typename Number, typename Load>
inline typename Pool::Vector pool_pixels(const Number* in, size_t step, uint32_t pixels, Load load) {
  typename Pool::Vector value = load(in);
  for (uint32_t i = 1; i < pixels; ++i) value = Pool::of(value, load(in += step));
  return value;
}

// The same for `columns` columns: load(address, column), store(column, vector). Most are a whole group of three pixels, whose
// loops are unrolled: pools take two thirds of the time.
template <typename Pool, uint32_t kColumns, typename Number, typename Load, typename Store>
__attribute__((always_inline)) inline void pool_columns(const Number* in, size_t step, uint32_t pixels,
                                                        uint32_t columns, Load load, Store store) {
  constexpr uint32_t kLanes = Pool::Vector::kLanes;
  const auto pool_at = [&](uint32_t column, uint32_t count) __attribute__((always_inline)) {
    store(column,
          pool_pixels<Pool>(in + column, step, count, [&](const Number* p) { return load(p, column); }));
  };
  if (pixels == 3 && columns == kColumns) {
#pragma GCC unroll 4
    for (uint32_t column = 0; column < kColumns; column += kLanes) pool_at(column, 3);
  } else {
    for (uint32_t column = 0; column < columns; column += kLanes) pool_at(column, pixels);
  }
}

struct Span {
  uint32_t begin, end;  // inside the image
  uint32_t padded;      // length inside the padded image
};

// The pixels that output pixel `i` of a line or column sees.
inline Span span_of(uint32_t i, uint32_t stride, uint32_t kernel, uint32_t size, uint32_t before,
                    uint32_t after) {
  const uint32_t all = before + size + after, begin = i * stride,
                 end = begin + kernel;  // in the padded image
  return {begin > before ? begin - before : 0, smaller(end - before, size), smaller(end, all) - begin};
}

// Pools the rows of a tile to `to`, rows that lie `pitch` elements apart.
template <typename Pool>
void pool_to(const OpView& view, const Tile& tile, const Scratch& scratch, Element* to, size_t pitch) {
  using Vector = typename Pool::Vector;
  using Number = typename Vector::Number;
  constexpr uint32_t kColumns = kPoolColumns * sizeof(float) / sizeof(Number);  // in as many bytes
  auto* const pooled = reinterpret_cast<Number*>(scratch.line);  // [pixels from `first` to `last`][kColumns]
  const OpRecord& op = *view.record;
  const size_t line = op.in_w * view.in_pitch;
  const uint32_t end = tile.column + tile.columns;
  for (uint32_t row = tile.row, run; row < tile.row + tile.rows; row += run) {
    const uint32_t x = row % op.out_w, y = row / op.out_w % op.out_h, image = row / op.out_w / op.out_h;
    run = smaller(op.out_w - x, tile.row + tile.rows - row);
    // Windows that leave out pixels between them are done one by one: those would be pooled for nothing.
    run = smaller(run, op.stride_w > op.kernel_w ? 1 : (kPoolPixels - op.kernel_w) / op.stride_w + 1);
    const auto across = [&op](uint32_t i) {
      return span_of(i, op.stride_w, op.kernel_w, op.in_w, op.pad_left, op.pad_right);
    };
    const Span down = span_of(y, op.stride_h, op.kernel_h, op.in_h, op.pad_top, op.pad_bottom);
    const uint32_t first = across(x).begin, last = across(x + run - 1).end;
    for (uint32_t group = tile.column; group < end; group += kColumns) {
      const uint32_t columns = smaller(kColumns, end - group), height = down.end - down.begin;
      const auto load = [](const auto* p, uint32_t) { return Vector::load(p); };
      const auto load_inside = [&](const Element* p, uint32_t column) {
        column += group;
        return load_part<Vector>(p, column < op.in_channels ? op.in_channels - column : 0);
      };
      const Element* in =
          static_cast<const Element*>(view.in) + (size_t(image) * op.in_h + down.begin) * line + group;
      for (uint32_t pixel = first; pixel < last; ++pixel) {
        const Element* from = in + pixel * view.in_pitch;
        Number* const kept = pooled + (pixel - first) * kColumns;
        const auto keep = [&](uint32_t column, Vector value) { value.store(kept + column); };
        group + kColumns <= op.in_channels
            ? pool_columns<Pool, kColumns>(from, line, height, columns, load, keep)
            : pool_columns<Pool, kColumns>(from, line, height, columns, load_inside, keep);
      }
      for (uint32_t i = 0; i < run; ++i) {
        const Span span = across(x + i);
        const uint32_t width = span.end - span.begin;
        const uint32_t pixels = op.flags & kCountIncludePad ? down.padded * span.padded : height * width;
        const Number* kept = pooled + (span.begin - first) * kColumns;
        Element* out = to + (row - tile.row + i) * pitch + group;
        const auto store = [&](uint32_t column, Vector value) {
          Pool::finish(value, pixels).store(out + column);
        };
        const auto store_inside = [&](uint32_t column, Vector value) {
          store_part(out + column, Pool::finish(value, pixels), op, group + column, end);
        };
        group + kColumns <= smaller(op.out_channels, end)
            ? pool_columns<Pool, kColumns>(kept, kColumns, width, columns, load, store)
            : pool_columns<Pool, kColumns>(kept, kColumns, width, columns, load, store_inside);
      }
    }
  }
}

template <typename Pool>
void pool(const OpView& view, const Tile& tile, const Scratch& scratch) {
  pool_to<Pool>(view, tile, scratch, static_cast<Element*>(view.out) + tile.row * view.out_pitch,
                view.out_pitch);
}

// A convolution of one tap behind a maximum pool: some whole lines at a time, which stay in L2. The bits are those of two
// ops.
template <Kernel kConv>
void behind_pool(const OpView& view, const Tile& tile, const Scratch& scratch) {
  const OpRecord& op = *view.record;
  OpRecord pool = op, product = op;
  pool.out_channels = pool.out_padded = op.in_channels;
  product.kernel_h = product.kernel_w = product.stride_h = product.stride_w = 1;
  product.pad_top = product.pad_left = product.pad_bottom = product.pad_right = 0;
  product.in_h = op.out_h;
  product.in_w = op.out_w;
  auto* const pooled = static_cast<Element*>(scratch.pooled);
  OpView from = view, to = view;
  from.record = &pool;
  to.record = &product;
  to.in = pooled;
  to.in_pitch = scratch.pooled_pitch / sizeof(Element);
  const uint32_t most = op.out_w < kPooledRows ? kPooledRows / op.out_w * op.out_w : kPooledRows;
  for (uint32_t done = 0, rows; done < tile.rows; done += rows) {
    rows = smaller(most, tile.rows - done);
    const size_t row = size_t(tile.row) + done;
    pool_to<Maximum>(from, {uint32_t(row), rows, 0, op.in_channels}, scratch, pooled, to.in_pitch);
    to.out = static_cast<Element*>(view.out) + row * view.out_pitch;
    kConv(to, {0, rows, tile.column, tile.columns}, scratch);
  }
}

// ---- Across channels: one tile holds all columns.

// The power of a normalisation: of the sum of squares in each window.
inline V16 lrn_power(const OpRecord& op, V16 sum, V16 alpha, V16 k) {
  const V16 scale = V16::multiply_add(sum, alpha, k);
  if (op.lrn_beta == 0.75f) return scale.inverse_root_of_cube();
  float lanes[kPanel];
  scale.store(lanes);
  for (float& lane : lanes) lane = powf(lane, -op.lrn_beta);
  return V16::load(lanes);
}

// out = in * (k + alpha / size * sum of squares in the window) ^ -beta. In place, too: squares are taken before a row is
// written, and each panel is read before it is.
//
// Windows are loads across two stores, which wait until those are in the cache; so the squares of some rows come first.
void lrn(const OpView& view, const Tile& tile, const Scratch& scratch) {
  const OpRecord& op = *view.record;
  const uint32_t channels = op.out_channels, before = op.lrn_size / 2;
  const V16 k = V16::broadcast(op.lrn_k), alpha = V16::broadcast(op.lrn_alpha / float(op.lrn_size));
  const size_t length = size_t(channels) + op.lrn_size + kPanel;  // `before` zeros, squares of a row, zeros
  const uint32_t end = tile.row + tile.rows;
  const uint32_t most = length < kLrnSquares ? uint32_t(kLrnSquares / length) : 1;
  float* const squares = scratch.line;
  memset(squares, 0, smaller(most, tile.rows) * length * sizeof(float));
  for (uint32_t first = tile.row, rows; first < end; first += rows) {
    rows = smaller(most, end - first);
    const Element* in = static_cast<const Element*>(view.in) + first * view.in_pitch;
    Element* out = static_cast<Element*>(view.out) + first * view.out_pitch;
    for (uint32_t row = 0; row < rows; ++row) {
      for (uint32_t c = 0; c < channels; c += kPanel) {
        const V16 value = load_part(in + row * view.in_pitch + c, channels - c);
        (value * value).store(squares + row * length + before + c);
      }
    }
    for (uint32_t row = 0; row < rows; ++row) {
      for (uint32_t c = 0; c < channels; c += kPanel) {
        const float* window = squares + row * length + c;
        V16 sum = V16::load(window);
        for (uint32_t i = 1; i < op.lrn_size; ++i) sum = sum + V16::load(window + i);
        const V16 value = load_part(in + row * view.in_pitch + c, channels - c);
        store_part(out + row * view.out_pitch + c, value * lrn_power(op, sum, alpha, k), op, c,
                   op.out_padded);
      }
    }
  }
}

void softmax(const OpView& view, const Tile& tile, const Scratch& scratch) {
  const OpRecord& op = *view.record;
  float* powers = scratch.line;
  for (uint32_t row = tile.row; row < tile.row + tile.rows; ++row) {
    const Element* in = static_cast<const Element*>(view.in) + row * view.in_pitch;
    Element* out = static_cast<Element*>(view.out) + row * view.out_pitch;
    float largest = number(in[0]);
    for (uint32_t c = 1; c < op.in_channels; ++c) {
      if (number(in[c]) > largest) largest = number(in[c]);
    }
    float sum = 0.0f;
    for (uint32_t c = 0; c < op.in_channels; ++c) sum += powers[c] = expf(number(in[c]) - largest);
    for (uint32_t c = 0; c < op.in_channels; ++c) put(out + c, powers[c] / sum);
    for (uint32_t c = op.in_channels; c < op.out_padded; ++c) put(out + c, 0.0f);
  }
}

// ---- The caller's image: NHWC, zeros to the left and right.

// Pixels of three planes, side by side. One loop, of which compilers make vectors of float32, takes two fifths of the time of
// three.
inline void interleave(const float* in, size_t plane, uint32_t count, Element* __restrict out) {
  const float *red = in, *green = in + plane, *blue = in + 2 * plane;
  for (uint32_t i = 0; i < count; ++i) {
    put(out + 3 * i, red[i]);
    put(out + 3 * i + 1, green[i]);
    put(out + 3 * i + 2, blue[i]);
  }
}

void input(const OpView& view, const Tile& tile, const Scratch& scratch) {
  const OpRecord& op = *view.record;
  const uint32_t channels = op.in_channels, width = op.in_w;
  const size_t pitch = view.out_pitch;
  const auto* factors = static_cast<const float*>(view.weights);
  for (uint32_t row = tile.row, run; row < tile.row + tile.rows; row += run) {
    const size_t line = row / op.out_w;  // of all images
    const uint32_t begin = row % op.out_w;
    run = smaller(op.out_w - begin, tile.row + tile.rows - row);
    const uint32_t left = op.pad_left > begin ? smaller(op.pad_left - begin, run) : 0;
    const uint32_t right = op.pad_left + width > begin ? smaller(op.pad_left + width - begin, run) : 0;
    const uint32_t x = begin + left - op.pad_left;
    if (scratch.input->format == IE_FLOAT32_NCHW && channels == 3 && op.out_padded == 3 && pitch == 3) {
      const float* in = static_cast<const float*>(scratch.input->data) +
                        (line / op.in_h * 3 * op.in_h + line % op.in_h) * width + x;
      Element* out = static_cast<Element*>(view.out) + row * pitch;
      memset(out, 0, left * 3 * sizeof(Element));
      interleave(in, size_t(op.in_h) * width, right - left, out + left * 3);
      memset(out + right * 3, 0, (run - right) * 3 * sizeof(Element));
      continue;
    }
    for (uint32_t c = 0; c < op.out_padded; ++c) {
      Element* out = static_cast<Element*>(view.out) + row * pitch + c;
      if (c >= channels) {
        for (uint32_t i = 0; i < run; ++i) put(out + i * pitch, 0.0f);
        continue;
      }
      for (uint32_t i = 0; i < left; ++i) put(out + i * pitch, 0.0f);
      for (uint32_t i = right; i < run; ++i) put(out + i * pitch, 0.0f);
      if (scratch.input->format == IE_UINT8_NHWC) {
        const auto* in = static_cast<const uint8_t*>(scratch.input->data) + (line * width + x) * channels + c;
        const float scale = factors[c], shift = factors[channels + c];
        for (uint32_t i = left; i < right; ++i, in += channels)
          put(out + i * pitch, float(*in) * scale + shift);
      } else {
        const size_t plane = line / op.in_h * channels + c;
        const auto* in =
            static_cast<const float*>(scratch.input->data) + (plane * op.in_h + line % op.in_h) * width + x;
        for (uint32_t i = left; i < right; ++i) put(out + i * pitch, *in++);
      }
    }
  }
}

// Those of a build, with its convolutions.
template <Kernel kConv>
constexpr Kernels kernels_with(Kernel winograd, WindowsToPoints windows_to_points) {
  return {{nullptr, input, kConv, pool<Maximum>, pool<Average>, lrn, softmax},
          winograd,
          behind_pool<kConv>,
          windows_to_points};
}

}  // namespace
}  // namespace ie::cpu
