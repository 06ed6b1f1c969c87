// The kernel `module`, from the numbered list in archive.h: an Inception module in groups of images, ticket after ticket.
// Operands of products are read through their tensor maps, everything else by its address.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "driver.h"
#include "numbers.h"
#include "tensor_map.h"

namespace fake {
namespace {

constexpr uint64_t kLine = 128;  // bytes between two counters
constexpr size_t kMaps = 9;
constexpr int kRanks[kMaps] = {2, 2, 4, 4, 2, 2, 2, 2, 2};

// The parameters, in their order.
class Reader {
 public:
  explicit Reader(const Work& launch) : launch_(launch) {}
  template <typename T>
  T next() {
    const auto& bytes = launch_.params.at(index_++);
    if (bytes.size() != sizeof(T)) throw Fault{"a parameter of another size"};
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  TensorMap map(int rank) {
    const TensorMap read = TensorMap::read(launch_.params.at(index_++));
    if (read.rank != rank) throw Fault{"a tensor map of another rank"};
    for (int i = rank - 1; i >= 0; --i) {
      if (next<uint32_t>() != read.sizes[i]) throw Fault{"a descriptor's size is not its map's"};
    }
    for (int i = rank - 1; i >= 0; --i) {
      const uint64_t stride = i == 0 ? 2 : read.strides[i - 1];
      if (2 * next<uint64_t>() != stride) throw Fault{"a descriptor's stride is not its map's"};
    }
    return read;
  }

 private:
  const Work& launch_;
  size_t index_ = 0;
};

// What the machine code knows; of real one, what its maps say, and one group for all images.
InceptionEntry entry_of(const Function& function, const TensorMap (&maps)[kMaps], uint32_t batch) {
  InceptionEntry e = function.inception;
  if (e.height != 0) return e;
  const auto columns = [&](size_t i) { return uint32_t(maps[i].sizes[1]); };
  e.width = uint32_t(maps[2].sizes[1]);
  e.height = uint32_t(maps[2].sizes[2]);
  e.channels = uint32_t(maps[0].sizes[0]);
  e.n1 = columns(5);
  e.c3 = uint32_t(maps[6].sizes[0] / 9);
  e.n3 = columns(6);
  e.c5 = uint32_t(maps[2].sizes[0]) - e.c3;
  e.n5 = columns(7);
  e.projected = columns(8);
  e.reduced = e.c3 + e.c5;
  e.third = uint32_t(std::lround(std::sqrt(double(maps[7].sizes[0]) / e.c5)));
  e.group = batch;
  e.first = e.second = 1;
  for (size_t i = 0; i < kMaps; ++i) {
    e.maps[i] = {maps[i].type, uint8_t(std::log2(maps[i].box[0] / 8)), {}};
    std::copy_n(maps[i].box, kMaxRank, e.maps[i].box);
  }
  return e;
}

struct Run {
  const InceptionEntry& e;
  const Format& format;
  const Tensor &x, &p, &r3, &r5;
  const std::vector<Tensor>& weights;
  Span in, reduced, pooled, out, biases;
  uint32_t batch;
};

// One product: `depth` numbers at a time come from `read` for each of `steps`; stored by ReLU behind `first` of `pitch`.
template <typename Read>
void product(const Run& run, const Tensor& weights, size_t columns, size_t steps, size_t depth,
             uint64_t first_bias, uint64_t begin, uint64_t end, const Span& to, uint64_t first,
             uint64_t pitch, size_t values, Read read) {
  std::vector<float> transposed(steps * depth * columns), column(steps * depth), line(depth);
  for (size_t c = 0; c < columns; ++c) {
    weights.read(0, column.size(), {int64_t(c)}, column.data());
    for (size_t k = 0; k < column.size(); ++k) transposed[k * columns + c] = column[k];
  }
  std::vector<float> sums(columns);
  for (uint64_t pixel = begin; pixel < end; ++pixel) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (size_t step = 0; step < steps; ++step) {
      read(pixel, step, line.data());
      for (size_t k = 0; k < depth; ++k) {
        const float* weight = &transposed[(step * depth + k) * columns];
        for (size_t c = 0; c < columns; ++c) sums[c] += line[k] * weight[c];
      }
    }
    for (size_t c = 0; c < columns; ++c) {
      const float sum = sums[c] + *run.biases.at<float>(4 * (first_bias + c));
      const float value = c >= values ? 0.0f : run.format.round(sum < 0 ? 0 : sum);
      const uint64_t at = (pixel * pitch + first + c) * run.format.size;
      run.format.write(value, to.at<std::byte>(at, run.format.size));
    }
  }
}

void pool(const Run& run, uint64_t begin, uint64_t end) {
  const InceptionEntry& e = run.e;
  const size_t bytes = e.channels * run.format.size;
  std::vector<float> pixel(e.channels), largest(e.channels);
  for (uint64_t row = begin; row < end; ++row) {
    const int64_t y = int64_t(row / e.width % e.height), x = int64_t(row % e.width);
    std::fill(largest.begin(), largest.end(), -INFINITY);
    for (int64_t dy = -1; dy <= 1; ++dy) {
      for (int64_t dx = -1; dx <= 1; ++dx) {
        if (y + dy < 0 || y + dy >= e.height || x + dx < 0 || x + dx >= e.width) continue;
        const uint64_t from = uint64_t(int64_t(row) + dy * e.width + dx) * bytes;
        run.format.read(run.in.at<std::byte>(from, bytes), e.channels, pixel.data());
        for (uint32_t c = 0; c < e.channels; ++c) {
          if (!(pixel[c] <= largest[c]) && !std::isnan(largest[c])) largest[c] = pixel[c];
        }
      }
    }
    for (uint32_t c = 0; c < e.channels; ++c) {
      run.format.write(largest[c],
                       run.pooled.at<std::byte>(row * bytes + c * run.format.size, run.format.size));
    }
  }
}

void first_phase(const Run& run, uint64_t begin, uint64_t end) {
  const InceptionEntry& e = run.e;
  const size_t reduced = e.c3 + e.c5;
  product(run, run.weights[0], reduced, 1, e.channels, 0, begin, end, run.reduced, 0, reduced, e.reduced,
          [&](uint64_t pixel, size_t, float* to) { run.x.read(0, e.channels, {int64_t(pixel)}, to); });
  pool(run, begin, end);
}

void second_phase(const Run& run, uint64_t begin, uint64_t end) {
  const InceptionEntry& e = run.e;
  const uint64_t pitch = uint64_t{e.n1} + e.n3 + e.n5 + e.projected;
  uint64_t first = 0, bias = e.c3 + e.c5;
  const auto branch = [&](const Tensor& weights, uint32_t columns, size_t steps, size_t depth, auto read) {
    product(run, weights, columns, steps, depth, bias, begin, end, run.out, first, pitch, columns, read);
    first += columns;
    bias += columns;
  };
  const auto windows = [&](const Tensor& r, uint32_t kernel, uint32_t channel, uint32_t channels) {
    return [&e, &r, kernel, channel, channels](uint64_t pixel, size_t tap, float* to) {
      const int64_t half = kernel / 2, y = int64_t(pixel / e.width % e.height), x = int64_t(pixel % e.width);
      const int64_t image = int64_t(pixel / e.width / e.height);
      r.read(channel, channels, {x + int64_t(tap % kernel) - half, y + int64_t(tap / kernel) - half, image},
             to);
    };
  };
  branch(run.weights[1], e.n1, 1, e.channels,
         [&](uint64_t pixel, size_t, float* to) { run.x.read(0, e.channels, {int64_t(pixel)}, to); });
  branch(run.weights[2], e.n3, 9, e.c3, windows(run.r3, 3, 0, e.c3));
  branch(run.weights[3], e.n5, size_t{e.third} * e.third, e.c5, windows(run.r5, e.third, e.c3, e.c5));
  branch(run.weights[4], e.projected, 1, e.channels,
         [&](uint64_t pixel, size_t, float* to) { run.p.read(0, e.channels, {int64_t(pixel)}, to); });
}

}  // namespace

void run_inception(const Work& launch) {
  if (launch.params.size() != 63) throw Fault{"module with another number of parameters"};
  Reader reader(launch);
  TensorMap maps[kMaps];
  for (size_t i = 0; i < kMaps; ++i) maps[i] = reader.map(kRanks[i]);
  uint64_t pointers[7];
  for (uint64_t& pointer : pointers) pointer = reader.next<uint64_t>();
  const auto batch = reader.next<int32_t>();
  if (batch < 1) throw Fault{"a launch of no images"};
  if (reader.next<uint64_t>() != 0 || reader.next<uint64_t>() != 0) throw Fault{"scratch memory for module"};
  const InceptionEntry e = entry_of(*launch.function, maps, uint32_t(batch));
  for (size_t i = 0; i < kMaps; ++i) {
    const auto& wanted = e.maps[i];
    if (maps[i].type != wanted.type || maps[i].swizzle != wanted.swizzle ||
        !std::equal(maps[i].box, maps[i].box + kMaxRank, wanted.box)) {
      throw Fault{"tensor map " + std::to_string(i) + " has another type, swizzle or box than the code"};
    }
  }
  const uint64_t owners[] = {pointers[0], pointers[2], pointers[1], pointers[1]};
  for (size_t i = 0; i < 4; ++i) {
    if (maps[i].address != owners[i]) throw Fault{"a tensor map of another buffer"};
  }
  const Format& format = Format::of(launch.function->dtype);
  const Tensor x(maps[0], format, "x"), p(maps[1], format, "p"), r3(maps[2], format, "r"),
      r5(maps[3], format, "r");
  std::vector<Tensor> weights;
  for (size_t i = 4; i < kMaps; ++i) weights.emplace_back(maps[i], format, "weights");
  Run run{e,
          format,
          x,
          p,
          r3,
          r5,
          weights,
          open(pointers[0], false, "x", 16),
          open(pointers[1], true, "r", 16),
          open(pointers[2], true, "p", 16),
          open(pointers[3], true, "out", 16),
          open(pointers[4], false, "biases", 16),
          uint32_t(batch)};
  const Span state = open(pointers[5], true, "state", 16), line = open(pointers[6], true, "ticket", 16);
  int32_t* ticket = line.at<int32_t>(0, 2);
  const auto counter = [&](uint32_t group) { return state.at<int32_t>(kLine * (uint64_t{group} + 1)); };

  const uint32_t groups = (run.batch + e.group - 1) / e.group, both = e.first + e.second;
  const auto tickets = int64_t(e.first) + int64_t{groups} * both;
  const auto pixels = [&](uint32_t group) {
    return uint64_t{std::min(group * e.group, run.batch)} * e.height * e.width;
  };
  const uint32_t blocks = launch.grid[0] * launch.grid[1] * launch.grid[2];
  for (uint32_t i = 0; i < blocks; ++i) {
    for (int64_t next; (next = ticket[0]++) < tickets;) {
      // first(0), first(1), second(0), first(2), second(1), ...
      const int64_t behind = next - e.first;
      uint32_t group = behind < 0 ? 0 : uint32_t(behind / both);
      const uint32_t place = behind < 0 ? uint32_t(next) : uint32_t(behind % both);
      if (place < e.first) {
        if (behind >= 0) ++group;
        if (group >= groups) continue;
        if (place == 0) first_phase(run, pixels(group), pixels(group + 1));
        ++*counter(group);
      } else if (place == e.first) {
        if (*counter(group) < int32_t(e.first)) *state.at<int32_t>(0) = 1;
        if (*counter(group) > int32_t(e.first)) violation(CUDA_SUCCESS, "a group's counter was not zero");
        second_phase(run, pixels(group), pixels(group + 1));
      }
    }
    if (++ticket[1] < int32_t(blocks)) continue;
    for (uint32_t group = 0; group < groups; ++group) *counter(group) = 0;
    ticket[0] = ticket[1] = 0;
  }
}

}  // namespace fake
