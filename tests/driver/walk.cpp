// The kernels, from the numbered list in plan_format.h and the formulas of the ops: scalar loops, float32 sums, one block
// after the other (so the first takes all tasks, and a wait that is not over when its turn comes never will be).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "driver.h"
#include "numbers.h"
#include "plan_format.h"

namespace fake {
namespace {

using ie::BufferRecord;
using ie::OpKind;
using ie::OpRecord;
using ie::TaskRecord;
using ie::WaitRecord;

constexpr uint64_t kLine = 128;  // bytes between two counters
constexpr uint32_t kExports = 1u << 0, kRagged = 1u << 7, kParts = 1u << 8;
typedef float Panel __attribute__((vector_size(64)));

// ---- A launch

template <typename T>
T param(const Work& launch, size_t index) {
  if (launch.params[index].size() != sizeof(T)) throw Fault{"a parameter of another size"};
  T value;
  std::memcpy(&value, launch.params[index].data(), sizeof value);
  return value;
}

struct Run {
  const Function& function;
  Span tasks, waits, ops, buffers, weights, arena, image, state, ticket, result;
  int32_t first, count, batch, pixels, counters, result_buffer, result_channel, result_channels;
  const Format* format = nullptr;  // of the arena
};

uint64_t element(const Run& run, const BufferRecord& buffer, uint64_t row, uint64_t channel) {
  return buffer.offset + (row * buffer.pitch + channel) * run.format->size;
}

const BufferRecord& buffer_of(const Run& run, uint32_t index) {
  return *run.buffers.at<BufferRecord>(uint64_t{index} * sizeof(BufferRecord));
}

struct Tile {
  const OpRecord& op;
  uint64_t row, rows;         // pixels
  uint32_t column, columns;   // of the op's slice
  std::vector<float> values;  // (rows, columns)
  float& at(uint64_t row, uint32_t column) { return values[row * columns + column]; }
};

struct Pixel {  // of the output
  uint64_t image;
  int64_t y, x;  // of the first pixel that its window touches
};

Pixel pixel_of(const OpRecord& op, uint64_t row) {
  return {row / op.out_w / op.out_h, int64_t(row / op.out_w % op.out_h) * op.stride_h - op.pad_top,
          int64_t(row % op.out_w) * op.stride_w - op.pad_left};
}

bool inside(const OpRecord& op, int64_t y, int64_t x) {
  return y >= 0 && y < op.in_h && x >= 0 && x < op.in_w;
}

// Reads `count` channels, from `channel` of the op's input on.
void read_pixel(const Run& run, const OpRecord& op, uint64_t image, int64_t y, int64_t x, uint32_t channel,
                uint32_t count, float* to) {
  const BufferRecord& buffer = buffer_of(run, op.in_buffer);
  const uint64_t row = (image * op.in_h + uint64_t(y)) * op.in_w + uint64_t(x);
  const uint64_t offset = element(run, buffer, row, op.in_channel + channel);
  run.format->read(run.arena.at<std::byte>(offset, count * run.format->size), count, to);
}

void input(const Run& run, Tile* tile) {
  const OpRecord& op = tile->op;
  for (uint64_t row = 0; row < tile->rows; ++row) {
    const uint64_t pixel = tile->row + row, n = pixel / op.out_w / op.out_h, y = pixel / op.out_w % op.out_h;
    const int64_t x = int64_t(pixel % op.out_w) - op.pad_left;
    for (uint32_t i = 0; i < tile->columns; ++i) {
      const uint64_t c = tile->column + i;
      if (c >= op.in_channels || x < 0 || x >= op.in_w) continue;
      if (run.pixels != 0) {
        const uint64_t at = ((n * op.in_h + y) * op.in_w + uint64_t(x)) * op.in_channels + c;
        const float scale = *run.weights.at<float>(op.weight_offset + 4 * c);
        const float shift = *run.weights.at<float>(op.weight_offset + 4 * (op.in_channels + c));
        tile->at(row, i) = float(*run.image.at<uint8_t>(at)) * scale + shift;
      } else {
        const uint64_t at = ((n * op.in_channels + c) * op.in_h + y) * op.in_w + uint64_t(x);
        tile->at(row, i) = *run.image.at<float>(4 * at);
      }
    }
  }
}

// Sums of k in [begin, end).
void product(const Run& run, Tile* tile, size_t begin, size_t end) {
  const OpRecord& op = tile->op;
  const size_t channels = op.in_channels, taps = size_t(op.kernel_h) * op.kernel_w, depth = taps * channels;
  std::vector<float> lines(tile->rows * depth);  // what each pixel's window holds
  for (uint64_t row = 0; row < tile->rows; ++row) {
    const Pixel pixel = pixel_of(op, tile->row + row);
    for (size_t tap = 0; tap < taps; ++tap) {
      const int64_t y = pixel.y + int64_t(tap / op.kernel_w), x = pixel.x + int64_t(tap % op.kernel_w);
      if (!inside(op, y, x)) continue;
      read_pixel(run, op, pixel.image, y, x, 0, op.in_channels, &lines[row * depth + tap * channels]);
    }
  }
  std::vector<Panel> weights(depth);
  for (uint32_t column = 0; column < tile->columns; column += ie::kPanel) {
    const uint64_t panel = (tile->column + column) / ie::kPanel;
    const size_t count = depth * ie::kPanel;
    run.format->read(run.weights.at<std::byte>(op.weight_offset + panel * count * run.format->size,
                                               count * run.format->size),
                     count, reinterpret_cast<float*>(weights.data()));
    constexpr uint64_t kRows = 8;  // at a time
    for (uint64_t row = 0; row < tile->rows; row += kRows) {
      Panel sums[kRows] = {};
      const float* line[kRows];
      for (uint64_t i = 0; i < kRows; ++i) line[i] = &lines[std::min(row + i, tile->rows - 1) * depth];
      for (size_t k = begin; k < end; ++k) {
        for (uint64_t i = 0; i < kRows; ++i) sums[i] += weights[k] * line[i][k];
      }
      for (uint64_t i = 0; i < std::min(kRows, tile->rows - row); ++i) {
        for (uint32_t c = 0; c < std::min(ie::kPanel, tile->columns - column); ++c) {
          tile->at(row + i, column + c) = sums[i][c];
        }
      }
    }
  }
}

int32_t* counter(const Run& run, uint64_t index) { return run.state.at<int32_t>(kLine * (index + 1)); }

// Stores the sums of a part; if it is the last to come, puts all of them together in their order.
bool add_parts(const Run& run, Tile* tile, uint32_t part) {
  const OpRecord& op = tile->op;
  const uint64_t depth = uint64_t{op.kernel_h} * op.kernel_w * op.in_channels;
  const uint64_t count = (depth + op.part_depth - 1) / op.part_depth;
  const uint64_t across = (op.out_padded + op.tile_columns - 1) / op.tile_columns;
  const uint64_t number = tile->row / op.tile_rows * across + tile->column / op.tile_columns;
  const uint64_t size = uint64_t{op.tile_rows} * op.tile_columns;
  const uint64_t begin = buffer_of(run, op.part_buffer).offset + number * count * size * sizeof(float);
  const auto sums = [&](uint64_t p) { return run.arena.at<float>(begin + p * size * sizeof(float), size); };
  product(run, tile, size_t(part) * op.part_depth, std::min((uint64_t(part) + 1) * op.part_depth, depth));
  for (uint64_t row = 0; row < tile->rows; ++row) {
    std::copy_n(&tile->at(row, 0), tile->columns, sums(part) + row * op.tile_columns);
  }
  if (uint64_t(++*counter(run, uint64_t{op.first_arrival} + number)) != count) return false;
  for (uint64_t row = 0; row < tile->rows; ++row) {
    for (uint32_t c = 0; c < tile->columns; ++c) {
      tile->at(row, c) = 0;
      for (uint64_t p = 0; p < count; ++p) tile->at(row, c) += sums(p)[row * op.tile_columns + c];
    }
  }
  return true;
}

// Returns whether the tile is finished.
bool conv(const Run& run, Tile* tile, uint32_t part) {
  const OpRecord& op = tile->op;
  if (op.part_depth == 0) {
    product(run, tile, 0, size_t(op.kernel_h) * op.kernel_w * op.in_channels);
  } else if (!add_parts(run, tile, part)) {
    return false;
  }
  for (uint32_t c = 0; c < tile->columns; ++c) {
    const float bias = *run.weights.at<float>(op.bias_offset + (tile->column + c) * sizeof(float));
    for (uint64_t row = 0; row < tile->rows; ++row) {
      const float sum = tile->at(row, c) + bias;
      tile->at(row, c) = (op.flags & ie::kRelu) != 0 && sum < 0 ? 0 : sum;
    }
  }
  return true;
}

void pool(const Run& run, Tile* tile, bool largest) {
  const OpRecord& op = tile->op;
  const uint32_t readable =
      op.in_channels > tile->column ? std::min(tile->columns, op.in_channels - tile->column) : 0;
  std::vector<float> pixels(tile->columns);
  for (uint64_t row = 0; row < tile->rows; ++row) {
    const Pixel pixel = pixel_of(op, tile->row + row);
    float* out = &tile->at(row, 0);
    std::fill_n(out, tile->columns, largest ? -INFINITY : 0.0f);
    uint32_t count = 0;
    for (int64_t y = pixel.y; y < pixel.y + op.kernel_h; ++y) {
      for (int64_t x = pixel.x; x < pixel.x + op.kernel_w; ++x) {
        const bool padded = y < int64_t(op.in_h) + op.pad_bottom && x < int64_t(op.in_w) + op.pad_right;
        if (!inside(op, y, x)) {
          count += padded && (op.flags & ie::kCountIncludePad) != 0;
          continue;
        }
        ++count;
        read_pixel(run, op, pixel.image, y, x, tile->column, readable, pixels.data());
        for (uint32_t c = 0; c < readable; ++c) {
          if (!largest) {
            out[c] += pixels[c];
          } else if (!(pixels[c] <= out[c])) {  // NaN too, and stays
            out[c] = std::isnan(out[c]) ? out[c] : pixels[c];
          }
        }
      }
    }
    if (!largest) {
      for (uint32_t c = 0; c < tile->columns; ++c) out[c] /= float(count);
    }
  }
}

void lrn(const Run& run, Tile* tile) {
  const OpRecord& op = tile->op;
  std::vector<float> line(op.in_channels);
  for (uint64_t row = 0; row < tile->rows; ++row) {
    const Pixel pixel = pixel_of(op, tile->row + row);
    read_pixel(run, op, pixel.image, pixel.y, pixel.x, 0, op.in_channels, line.data());
    for (uint32_t i = 0; i < tile->columns && tile->column + i < op.in_channels; ++i) {
      const int64_t c = tile->column + i, begin = c - op.lrn_size / 2, end = begin + op.lrn_size;
      float squares = 0;
      for (int64_t j = std::max<int64_t>(begin, 0); j < std::min<int64_t>(end, op.in_channels); ++j) {
        squares += line[size_t(j)] * line[size_t(j)];
      }
      tile->at(row, i) =
          line[size_t(c)] * std::pow(op.lrn_k + op.lrn_alpha / float(op.lrn_size) * squares, -op.lrn_beta);
    }
  }
}

void softmax(const Run& run, Tile* tile) {
  const OpRecord& op = tile->op;
  std::vector<float> line(op.in_channels);
  for (uint64_t row = 0; row < tile->rows; ++row) {
    const Pixel pixel = pixel_of(op, tile->row + row);
    read_pixel(run, op, pixel.image, pixel.y, pixel.x, 0, op.in_channels, line.data());
    const float largest = *std::max_element(line.begin(), line.end());
    float sum = 0;
    for (float& value : line) sum += value = std::exp(value - largest);
    for (uint32_t i = 0; i < tile->columns && tile->column + i < op.in_channels; ++i) {
      tile->at(row, i) = line[tile->column + i] / sum;
    }
  }
}

void store(const Run& run, Tile* tile) {
  const OpRecord& op = tile->op;
  const BufferRecord& buffer = buffer_of(run, op.out_buffer);
  const uint64_t pixels = uint64_t{op.out_h} * op.out_w;
  for (uint64_t row = 0; row < tile->rows; ++row) {
    for (uint32_t i = 0; i < tile->columns; ++i) {
      const uint32_t column = tile->column + i, channel = op.out_channel + column;
      const float value = column < op.out_channels ? run.format->round(tile->at(row, i)) : 0.0f;
      const uint64_t to = element(run, buffer, tile->row + row, channel);
      run.format->write(value, run.arena.at<std::byte>(to, run.format->size));
      const int64_t c = int64_t(channel) - run.result_channel;
      if (int64_t(op.out_buffer) != run.result_buffer || c < 0 || c >= run.result_channels) continue;
      const uint64_t n = (tile->row + row) / pixels, pixel = (tile->row + row) % pixels;
      *run.result.at<float>(4 * ((n * uint64_t(run.result_channels) + uint64_t(c)) * pixels + pixel)) = value;
    }
  }
}

// The machine code holds some kinds and tile sizes only.
void check_kernel(const Run& run, const OpRecord& op) {
  const auto lacks = [](uint32_t set, uint32_t size) {
    return (size & (size - 1)) != 0 || (set & size) == 0;
  };
  // A tile is computed in blocks of a side that divides its rows.
  const uint32_t block = op.tile_rows & (0 - op.tile_rows);
  const bool undivided = (run.function.rows & (block | (block - 1))) == 0;
  const bool across = op.kind == uint32_t(OpKind::kInput) || op.kind == uint32_t(OpKind::kLrn) ||
                      op.kind == uint32_t(OpKind::kSoftmax);
  const bool ragged = op.kind == uint32_t(OpKind::kConv) && op.in_channels % ie::kPanel != 0;
  if ((run.function.kinds & (1u << op.kind)) == 0 || (ragged && (run.function.kinds & kRagged) == 0) ||
      (op.part_depth != 0 && (run.function.kinds & kParts) == 0) ||
      (int64_t(op.out_buffer) == run.result_buffer && (run.function.kinds & kExports) == 0) ||
      (op.kind != uint32_t(OpKind::kInput) && undivided) ||
      (op.part_depth != 0 && lacks(run.function.rows, op.tile_rows)) ||
      (!across && lacks(run.function.columns, op.tile_columns)) ||
      (run.function.dtype != 0 && run.function.dtype != run.format->dtype)) {
    throw Fault{"kernel " + run.function.name + " cannot run this op"};
  }
}

void compute(const Run& run, const TaskRecord& task) {
  const OpRecord& op = *run.ops.at<OpRecord>(uint64_t{task.op} * sizeof(OpRecord));
  check_kernel(run, op);
  const uint64_t all = uint64_t(run.batch) * op.out_h * op.out_w;
  if (task.row >= all) return;  // of images that this batch does not have
  Tile tile{op,
            task.row,
            std::min<uint64_t>(op.tile_rows, all - task.row),
            task.column,
            std::min(op.tile_columns, op.out_padded - task.column),
            {}};
  tile.values.assign(tile.rows * tile.columns, 0.0f);
  switch (static_cast<OpKind>(op.kind)) {
    case OpKind::kInput:
      input(run, &tile);
      break;
    case OpKind::kConv:
      if (!conv(run, &tile, task.part)) return;
      break;
    case OpKind::kMaxPool:
    case OpKind::kAveragePool:
      pool(run, &tile, op.kind == uint32_t(OpKind::kMaxPool));
      break;
    case OpKind::kLrn:
      lrn(run, &tile);
      break;
    case OpKind::kSoftmax:
      softmax(run, &tile);
      break;
    default:
      throw Fault{"unknown kind of op"};
  }
  store(run, &tile);
}

// One block: takes tasks until there are none.
void block(const Run& run) {
  int32_t* ticket = run.ticket.at<int32_t>(0, 2);
  for (int32_t next; (next = ticket[0]++) < run.count;) {
    const TaskRecord& task = *run.tasks.at<TaskRecord>(uint64_t(run.first + next) * sizeof(TaskRecord));
    for (uint32_t i = 0; i < task.wait_count; ++i) {
      const WaitRecord& wait = *run.waits.at<WaitRecord>(uint64_t{task.wait_begin + i} * sizeof(WaitRecord));
      const int32_t seen = *counter(run, wait.counter);
      if (seen < int32_t(wait.target)) *run.state.at<int32_t>(0) = 1;
      if (seen > int32_t(wait.target)) violation(CUDA_SUCCESS, "a counter was not zero when the run began");
    }
    if (task.op != ie::kNone) compute(run, task);
    if (task.signal != ie::kNone) ++*counter(run, task.signal);
  }
}

}  // namespace

void run_walk(const Work& launch) {
  if (launch.function->params.size() != 20) throw Fault{"walk with another number of parameters"};
  if (param<uint64_t>(launch, 18) != 0 || param<uint64_t>(launch, 19) != 0)
    throw Fault{"scratch memory for walk"};
  const auto pointer = [&](size_t index, bool write, const char* what, size_t alignment) {
    return open(param<uint64_t>(launch, index), write, what, alignment);
  };
  const auto number = [&](size_t index) { return param<int32_t>(launch, index); };
  Run run{*launch.function,
          pointer(0, false, "tasks", 16),
          pointer(1, false, "waits", 16),
          pointer(2, false, "ops", 16),
          pointer(3, false, "buffers", 16),
          pointer(4, false, "weights", 64),
          pointer(5, true, "arena", 64),
          pointer(6, false, "image", number(13) != 0 ? 1 : 4),
          pointer(7, true, "state", 16),
          pointer(8, true, "ticket", 4),
          {},
          number(10),
          number(11),
          number(12),
          number(13),
          number(14),
          number(15),
          number(16),
          number(17)};
  if (param<uint64_t>(launch, 9) != 0) run.result = pointer(9, true, "result", 4);
  if (run.count < 1 || run.first < 0 || run.batch < 1) throw Fault{"a launch of no tasks"};
  run.format = &Format::of(buffer_of(run, 0).dtype);
  const uint32_t blocks = launch.grid[0] * launch.grid[1] * launch.grid[2];
  int32_t* ticket = run.ticket.at<int32_t>(0, 2);
  for (uint32_t i = 0; i < blocks; ++i) {
    block(run);
    if (++ticket[1] < int32_t(blocks)) continue;
    for (int32_t c = 0; c < run.counters; ++c) *counter(run, uint32_t(c)) = 0;
    ticket[0] = ticket[1] = 0;
  }
}

void run_copy_output(const Work& launch) {
  if (launch.function->params.size() != 8) throw Fault{"copy_output with another number of parameters"};
  if (param<uint64_t>(launch, 6) != 0 || param<uint64_t>(launch, 7) != 0)
    throw Fault{"scratch memory for copy_output"};
  const Format& format = Format::of(launch.function->dtype);
  const Span arena = open(param<uint64_t>(launch, 0), false, "arena", format.size);
  const Span result = open(param<uint64_t>(launch, 1), true, "result", 4);
  const auto number = [&](size_t index) { return uint64_t(uint32_t(param<int32_t>(launch, index))); };
  const uint64_t pixels = number(2), pitch = number(3), channels = number(4), rows = number(5) * pixels;
  constexpr uint64_t kBlock = 64;
  for (uint64_t row = 0; row < std::min(rows, launch.grid[0] * kBlock); ++row) {
    for (uint64_t c = 0; c < std::min(channels, launch.grid[1] * kBlock); ++c) {
      float value;
      format.read(arena.at<std::byte>((row * pitch + c) * format.size, format.size), 1, &value);
      *result.at<float>(4 * ((row / pixels * channels + c) * pixels + row % pixels)) = value;
    }
  }
}

}  // namespace fake
