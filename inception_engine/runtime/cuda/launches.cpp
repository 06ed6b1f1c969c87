#include "launches.h"

#include <algorithm>
#include <cstddef>

namespace ie::cuda {
namespace {

CUdeviceptr address(const void* data) { return reinterpret_cast<CUdeviceptr>(data); }

// `parameters`: the address of each.
void launch(const Kernel& kernel, uint32_t grid_x, uint32_t grid_y, void** parameters, bool overlaps,
            CUstream stream) {
  CUlaunchAttribute overlap{};
  overlap.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  overlap.value.programmaticStreamSerializationAllowed = 1;
  CUlaunchConfig config{};
  config.gridDimX = grid_x;
  config.gridDimY = grid_y;
  config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
  config.blockDimX = kernel.threads;
  config.sharedMemBytes = kernel.shared;
  config.hStream = stream;
  config.attrs = overlaps ? &overlap : nullptr;
  config.numAttrs = overlaps ? 1 : 0;
  check(driver().cuLaunchKernelEx(&config, kernel.function, parameters, nullptr), "launching a kernel");
}

// `parameters`: a structure whose members have these sizes, without gaps.
template <size_t kCount>
void launch(const Kernel& kernel, uint32_t grid_x, uint32_t grid_y, const uint8_t (&sizes)[kCount],
            void* parameters, bool overlaps, CUstream stream) {
  void* pointers[kCount];
  auto* next = static_cast<std::byte*>(parameters);
  for (size_t i = 0; i < kCount; next += sizes[i++]) pointers[i] = next;
  launch(kernel, grid_x, grid_y, pointers, overlaps, stream);
}

void copy_output(const Kernel& kernel, const Program& program, const ie_output& output, CUdeviceptr arena,
                 uint32_t batch, CUstream stream) {
  const OutputRecord& record = program.outputs[output.index];
  const BufferRecord& buffer = program.buffers[record.buffer];
  const uint64_t element = program.header.dtype == uint32_t(Dtype::kFloat32) ? 4 : 2;
  const auto blocks = [](uint64_t n) { return uint32_t((n + kCopyBlock - 1) / kCopyBlock); };
  CopyParameters copy{};
  copy.source = arena + buffer.offset + element * record.channel;
  copy.result = address(output.data);
  copy.pixels = buffer.rows;
  copy.pitch = buffer.pitch;
  copy.channels = record.channels;
  copy.images = batch;
  launch(kernel, blocks(uint64_t{batch} * buffer.rows), blocks(record.channels), kCopySizes, &copy, false,
         stream);
}

}  // namespace

void launch_run(const Device& device, uint32_t index, const Program& program, const RunMemory& memory,
                std::vector<ModuleParameters>* modules, const ie_input& input, const ie_output* outputs,
                uint32_t count, CUstream stream) {
  const BoundProgram& bound = device.program(index);
  WalkParameters walk{};
  walk.tasks = bound.tasks;
  walk.waits = bound.waits;
  walk.ops = bound.ops;
  walk.buffers = bound.buffers;
  walk.weights = device.weights();
  walk.arena = memory.arena;
  walk.image = address(input.data);
  walk.state = memory.state;
  walk.ticket = walk.state + kLine * sizeof(uint32_t) * (uint64_t{1} + program.header.counter_count);
  walk.batch = input.batch;
  walk.pixels = input.format == IE_UINT8_NHWC;
  walk.result_buffer = kNone;
  const bool exported = count == 1 && bound.exports(program.outputs[outputs[0].index].buffer);
  if (exported) {
    const OutputRecord& output = program.outputs[outputs[0].index];
    walk.result = address(outputs[0].data);
    walk.result_buffer = output.buffer;
    walk.result_channel = output.channel;
    walk.result_channels = output.channels;
  }
  // What comes behind the last task that a result needs is left out of the last launch: no other task waits for it.
  uint32_t end = 0;
  for (uint32_t i = 0; i < count; ++i) end = std::max(end, bound.ends[outputs[i].index]);
  auto parameters = modules->begin();
  for (size_t i = 0; i < program.launches.size(); ++i, walk.ticket += kLine * sizeof(uint32_t)) {
    const Kernel& kernel = bound.launches[i];
    if (bound.modules[i] != nullptr) {
      parameters->batch = input.batch;
      const auto blocks = std::min<uint64_t>(kernel.blocks, bound.modules[i]->tickets(input.batch));
      launch(kernel, uint32_t(blocks), 1, (parameters++)->pointers().data(), false, stream);
      continue;
    }
    walk.first_task = program.launches[i].first_task;
    walk.task_count = program.launches[i].task_count;
    if (count != 0 && i + 1 == program.launches.size()) {
      walk.task_count = std::min(walk.task_count, std::max(end, walk.first_task + 1) - walk.first_task);
    }
    walk.counters = bound.is_last_walk(i) ? program.header.counter_count : 0;
    launch(kernel, kernel.blocks, 1, kWalkSizes, &walk, i > 0 && kernel.overlaps, stream);
  }
  for (uint32_t i = 0; !exported && i < count; ++i) {
    copy_output(device.copy_output(), program, outputs[i], memory.arena, input.batch, stream);
  }
}

}  // namespace ie::cuda
