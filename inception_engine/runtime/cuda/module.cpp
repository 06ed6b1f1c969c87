#include "module.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace ie::cuda {
namespace {

constexpr size_t kElement = 2;  // bytes of float16 and bfloat16
constexpr size_t kWeightAlignment = 256;
constexpr uint32_t kMaxWidth = 128;  // pixels of a line: a tile has 128

// Whether the op's window is square, of this side, and leaves an image of this size as large as it is.
bool keeps_size(const OpRecord& op, uint32_t side, const ModuleSizes& sizes) {
  const uint32_t pad = side / 2;
  return side % 2 == 1 && op.kernel_h == side && op.kernel_w == side && op.stride_h == 1 &&
         op.stride_w == 1 && op.pad_top == pad && op.pad_left == pad && op.pad_bottom == pad &&
         op.pad_right == pad && op.in_h == sizes.height && op.in_w == sizes.width &&
         op.out_h == sizes.height && op.out_w == sizes.width;
}

std::vector<uint32_t> ops_of(const Program& program, const LaunchRecord& launch) {
  std::vector<uint32_t> found;
  for (uint32_t t = launch.first_task; t < launch.first_task + launch.task_count; ++t) {
    if (program.tasks[t].op != kNone) found.push_back(program.tasks[t].op);
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

bool are_disjoint(const Program& program, std::array<uint32_t, 4> buffers) {
  const auto begin = [&](uint32_t i) { return program.buffers[i].offset; };
  const auto end = [&](uint32_t i) {
    const BufferRecord& b = program.buffers[i];
    return b.offset + kElement * program.header.max_batch * b.rows * b.pitch;
  };
  std::sort(buffers.begin(), buffers.end(), [&](uint32_t a, uint32_t b) { return begin(a) < begin(b); });
  for (size_t i = 1; i < buffers.size(); ++i) {
    if (end(buffers[i - 1]) > begin(buffers[i])) return false;
  }
  return true;
}

// Whether a task of another launch waits for a counter that this one's tasks signal; `module` signals none of them.
bool is_waited_for(const Program& program, const LaunchRecord& launch) {
  std::vector<bool> signalled(program.header.counter_count);
  const auto begin = program.tasks.begin() + launch.first_task, end = begin + launch.task_count;
  for (auto task = begin; task != end; ++task) {
    if (task->signal != kNone) signalled[task->signal] = true;
  }
  const uint64_t first = begin->wait_begin, last = uint64_t{(end - 1)->wait_begin} + (end - 1)->wait_count;
  for (uint64_t i = 0; i < program.waits.size(); ++i) {
    if ((i < first || i >= last) && signalled[program.waits[i].counter]) return true;
  }
  return false;
}

}  // namespace

std::optional<InceptionModule> find_module(const Program& program, const LaunchRecord& launch) {
  const auto op = [&](uint32_t i) -> const OpRecord& { return program.ops[i]; };
  const OpRecord* pool = nullptr;
  std::vector<uint32_t> convolutions;
  const std::vector<uint32_t> used = ops_of(program, launch);
  for (uint32_t i : used) {
    if (op(i).kind == uint32_t(OpKind::kMaxPool)) pool = &op(i);
    if (op(i).kind == uint32_t(OpKind::kConv)) convolutions.push_back(i);
  }
  if (used.size() != 6 || pool == nullptr || convolutions.size() != kProducts) return std::nullopt;

  InceptionModule found{};
  found.x = pool->in_buffer;
  found.pooled = pool->out_buffer;
  std::vector<uint32_t> of_x, of_pool, windows;
  for (uint32_t i : convolutions) {
    const uint32_t from = op(i).in_buffer;
    (from == found.x ? of_x : from == found.pooled ? of_pool : windows).push_back(i);
  }
  if (of_x.size() != 2 || of_pool.size() != 1 || windows.size() != 2) return std::nullopt;
  if (op(windows[0]).in_channel > op(windows[1]).in_channel) std::swap(windows[0], windows[1]);
  found.reduced = op(windows[0]).in_buffer;
  found.out = op(windows[0]).out_buffer;
  if (op(of_x[0]).out_buffer != found.reduced) std::swap(of_x[0], of_x[1]);
  found.ops = {of_x[0], of_x[1], windows[0], windows[1], of_pool[0]};
  const OpRecord &reduce = op(of_x[0]), &one = op(of_x[1]), &three = op(windows[0]), &third = op(windows[1]),
                 &projection = op(of_pool[0]);

  ModuleSizes& sizes = found.sizes;
  sizes.height = pool->in_h;
  sizes.width = pool->in_w;
  sizes.channels = pool->in_channels;
  const uint32_t widths[] = {one.out_padded,    three.in_channels, three.out_padded,
                             third.in_channels, third.out_padded,  projection.out_padded};
  std::copy(std::begin(widths), std::end(widths), sizes.widths);
  sizes.reduced = reduce.out_channels;
  sizes.third = third.kernel_h;
  const uint64_t slices[] = {0, widths[0], uint64_t{widths[0]} + widths[2],
                             uint64_t{widths[0]} + widths[2] + widths[4]};
  const auto pitch = [&](uint32_t buffer) { return program.buffers[buffer].pitch; };
  const auto is_branch = [&](const OpRecord& branch, uint64_t slice) {
    return branch.out_buffer == found.out && branch.out_channel == slice &&
           branch.out_channels == branch.out_padded;
  };
  const auto reads = [&](const OpRecord& reader, uint32_t from, uint64_t channel, uint32_t channels) {
    return reader.in_buffer == from && reader.in_channel == channel && reader.in_channels == channels;
  };
  const bool fits =
      keeps_size(reduce, 1, sizes) && keeps_size(one, 1, sizes) && keeps_size(three, 3, sizes) &&
      keeps_size(third, sizes.third, sizes) && keeps_size(projection, 1, sizes) &&
      keeps_size(*pool, 3, sizes) &&
      std::all_of(convolutions.begin(), convolutions.end(),
                  [&](uint32_t i) { return (op(i).flags & kRelu) != 0; }) &&
      is_branch(one, slices[0]) && is_branch(three, slices[1]) && is_branch(third, slices[2]) &&
      is_branch(projection, slices[3]) && reads(reduce, found.x, 0, sizes.channels) &&
      reads(one, found.x, 0, sizes.channels) && reads(*pool, found.x, 0, sizes.channels) &&
      reads(projection, found.pooled, 0, sizes.channels) && reads(three, found.reduced, 0, widths[1]) &&
      reads(third, found.reduced, widths[1], widths[3]) && reduce.out_buffer == found.reduced &&
      reduce.out_channel == 0 && reduce.out_padded == uint64_t{widths[1]} + widths[3] &&
      pool->out_channel == 0 && pitch(found.x) == sizes.channels && pitch(found.pooled) == sizes.channels &&
      pitch(found.reduced) == reduce.out_padded && pitch(found.out) == slices[3] + widths[5] &&
      sizes.channels % kPanel == 0 &&
      std::all_of(std::begin(widths), std::end(widths), [](uint32_t n) { return n % kPanel == 0; }) &&
      sizes.width <= kMaxWidth && are_disjoint(program, {found.x, found.reduced, found.pooled, found.out}) &&
      !is_waited_for(program, launch);
  return fits ? std::optional(found) : std::nullopt;
}

ModuleWeights append_weights(const Plan& plan, const Program& program, const InceptionModule& module,
                             std::vector<std::byte>* bytes) {
  ModuleWeights weights{};
  const auto room = [&](size_t size) {
    const size_t at = (bytes->size() + kWeightAlignment - 1) / kWeightAlignment * kWeightAlignment;
    bytes->resize(at + size);
    return at;
  };
  for (uint32_t i = 0; i < kProducts; ++i) {  // [panel][k][16] becomes [panel][16][k]
    const OpRecord& op = program.ops[module.ops[i]];
    const size_t depth = size_t{op.kernel_h} * op.kernel_w * op.in_channels;
    weights.products[i] = room(kElement * op.out_padded * depth);
    const std::byte* from = plan.weights + op.weight_offset;
    std::byte* to = bytes->data() + weights.products[i];
    for (size_t column = 0; column < op.out_padded; ++column) {
      const std::byte* panel = from + kElement * (column / kPanel * depth * kPanel + column % kPanel);
      for (size_t k = 0; k < depth; ++k, to += kElement) {
        std::memcpy(to, panel + kElement * k * kPanel, kElement);
      }
    }
  }
  size_t count = 0;
  for (uint32_t i : module.ops) count += program.ops[i].out_padded;
  weights.biases = room(sizeof(float) * count);
  std::byte* to = bytes->data() + weights.biases;
  for (uint32_t i : module.ops) {
    const size_t size = sizeof(float) * program.ops[i].out_padded;
    std::memcpy(to, plan.weights + program.ops[i].bias_offset, size);
    to += size;
  }
  return weights;
}

std::array<void*, kModuleParameters> ModuleParameters::pointers() {
  std::array<void*, kModuleParameters> list{};
  auto next = list.begin();
  for (uint32_t i = 0; i < kMaps; ++i) {
    *next++ = &maps[i];
    for (uint32_t j = 0; j < kModuleRanks[i]; ++j) *next++ = &shapes[i][j];
    for (uint32_t j = 0; j < kModuleRanks[i]; ++j) *next++ = &strides[i][j];
  }
  for (uint64_t* address : {&x, &reduced, &pooled, &out, &biases, &state, &ticket}) *next++ = address;
  *next++ = &batch;
  for (uint64_t& scratch : hidden) *next++ = &scratch;
  return list;
}

ModuleParameters describe(const BoundModule& bound, const Program& program, uint64_t arena, uint64_t state) {
  const InceptionModule& module = bound.module;
  const ModuleSizes& sizes = module.sizes;
  const uint32_t max_batch = program.header.max_batch;
  const auto buffer = [&](uint32_t i) { return arena + program.buffers[i].offset; };
  ModuleParameters parameters{};
  parameters.x = buffer(module.x);
  parameters.reduced = buffer(module.reduced);
  parameters.pooled = buffer(module.pooled);
  parameters.out = buffer(module.out);
  parameters.biases = bound.weights.biases;
  parameters.state = state;
  parameters.ticket = state + sizeof(uint32_t) * kLine * (bound.lines(max_batch) - 1);

  // Of the largest batch: what a smaller one's tiles read behind its end they do not store.
  const uint32_t pixels = max_batch * sizes.height * sizes.width, reduced = sizes.widths[1] + sizes.widths[3];
  struct Tensor {
    uint64_t address;
    std::vector<uint32_t> shape;  // the outermost side first
  };
  std::vector<Tensor> tensors = {{parameters.x, {pixels, sizes.channels}},
                                 {parameters.pooled, {pixels, sizes.channels}},
                                 {parameters.reduced, {max_batch, sizes.height, sizes.width, reduced}}};
  tensors.push_back(tensors.back());
  for (uint32_t i = 0; i < kProducts; ++i) {
    const OpRecord& op = program.ops[module.ops[i]];
    tensors.push_back(
        {bound.weights.products[i], {op.out_padded, op.kernel_h * op.kernel_w * op.in_channels}});
  }
  for (uint32_t i = 0; i < kMaps; ++i) {
    const MapRecord& map = bound.record.maps[i];
    const std::vector<uint32_t>& shape = tensors[i].shape;
    const uint32_t rank = map.rank, ones[kMaxRank] = {1, 1, 1, 1, 1};
    uint64_t dims[kMaxRank], byte_strides[kMaxRank], stride = 1;  // the innermost first
    for (uint32_t j = 0; j < rank; ++j) {
      dims[j] = shape[rank - 1 - j];
      parameters.shapes[i][rank - 1 - j] = shape[rank - 1 - j];
      parameters.strides[i][rank - 1 - j] = stride;
      if (j > 0) byte_strides[j - 1] = kElement * stride;
      stride *= dims[j];
    }
    check(driver().cuTensorMapEncodeTiled(
              &parameters.maps[i], int(map.type), rank, reinterpret_cast<void*>(tensors[i].address), dims,
              byte_strides, map.box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, int(map.swizzle),
              CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
          "describing a module's tensors");
  }
  return parameters;
}

}  // namespace ie::cuda
