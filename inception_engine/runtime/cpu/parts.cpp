#include "parts.h"

#include <algorithm>
#include <cstring>

namespace ie::cpu {

void sum_part(const OpView& view, const Tile& tile, uint32_t part, float* sums) {
  const OpRecord& op = *view.record;
  const uint64_t depth = uint64_t{op.kernel_h} * op.kernel_w * op.in_channels;
  const uint64_t begin = uint64_t{part} * op.part_depth, end = std::min(begin + op.part_depth, depth);
  std::memset(sums, 0, size_t{op.tile_rows} * op.tile_columns * sizeof(float));
  for (uint64_t row = tile.row; row < uint64_t{tile.row} + tile.rows; ++row, sums += op.tile_columns) {
    const int64_t y = int64_t(row / op.out_w % op.out_h) * op.stride_h - op.pad_top;
    const int64_t x = int64_t(row % op.out_w) * op.stride_w - op.pad_left;
    const uint64_t image = row / op.out_w / op.out_h;
    for (uint64_t k = begin, run; k < end; k += run) {  // channels of one tap
      const uint64_t tap = k / op.in_channels, channel = k % op.in_channels;
      run = std::min(op.in_channels - channel, end - k);
      const int64_t in_y = y + int64_t(tap / op.kernel_w), in_x = x + int64_t(tap % op.kernel_w);
      if (in_y < 0 || in_y >= op.in_h || in_x < 0 || in_x >= op.in_w) continue;
      const uint64_t pixel = (image * op.in_h + uint64_t(in_y)) * op.in_w + uint64_t(in_x);
      const float* in = static_cast<const float*>(view.in) + pixel * view.in_pitch + channel;
      for (uint32_t column = 0; column < tile.columns; column += kPanel) {
        const float* weights =
            static_cast<const float*>(view.weights) + ((tile.column + column) / kPanel * depth + k) * kPanel;
        const uint32_t columns = std::min(kPanel, tile.columns - column);
        for (uint64_t i = 0; i < run; ++i, weights += kPanel) {
          for (uint32_t j = 0; j < columns; ++j) sums[column + j] += in[i] * weights[j];
        }
      }
    }
  }
}

void add_parts(const OpView& view, const Tile& tile, const float* parts, uint64_t count) {
  const OpRecord& op = *view.record;
  const size_t stride = size_t{op.tile_rows} * op.tile_columns;
  for (uint32_t row = 0; row < tile.rows; ++row, parts += op.tile_columns) {
    float* out = static_cast<float*>(view.out) + (size_t{tile.row} + row) * view.out_pitch + tile.column;
    for (uint32_t i = 0; i < tile.columns; ++i) {
      float sum = 0.0f;
      for (uint64_t part = 0; part < count; ++part) sum += parts[part * stride + i];
      sum += view.bias[tile.column + i];
      if ((op.flags & kRelu) != 0 && sum < 0.0f) sum = 0.0f;  // a NaN stays
      out[i] = tile.column + i < op.out_channels ? sum : 0.0f;
    }
  }
}

}  // namespace ie::cpu
