#include "executor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "launches.h"

namespace ie::cuda {
namespace {

constexpr size_t kMaxReplays = 16;
constexpr size_t kAlignment = 256;      // of results in staging memory
constexpr unsigned kNaN = 0xFFFFFFFFu;  // of two halves, or one float

size_t round_up(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

size_t image_bytes(const ProgramHeader& header, uint32_t format, uint32_t batch) {
  const size_t element = format == IE_UINT8_NHWC ? 1 : sizeof(float);
  return element * batch * header.input_channels * header.input_height * header.input_width;
}

CUdeviceptr address(const void* data) { return reinterpret_cast<CUdeviceptr>(data); }

template <typename Pointer>
Pointer pointer(CUdeviceptr address) {
  return reinterpret_cast<Pointer>(address);
}

}  // namespace

Executor::Executor(std::shared_ptr<const Device> device, const std::vector<const Program*>& programs,
                   bool poison)
    : device_(std::move(device)), programs_(programs), poison_(poison) {
  for (const Program* program : programs_) {
    const ProgramHeader& header = program->header;
    arena_bytes_ = std::max<size_t>(arena_bytes_, header.arena_bytes);
    image_bytes_ = std::max(image_bytes_, image_bytes(header, IE_FLOAT32_NCHW, header.max_batch));
    state_words_ =
        std::max<size_t>(state_words_, kLine * (size_t{1} + header.counter_count + header.launch_count));
  }
  for (uint32_t i = 0; i < programs_.size(); ++i) {
    for (const auto& module : device_->program(i).modules) {
      if (module == nullptr) continue;
      const size_t lines = module->lines(programs_[i]->header.max_batch);
      module_bytes_ = std::max(module_bytes_, lines * kLine * sizeof(uint32_t));
    }
  }
  state_words_ += module_bytes_ / sizeof(uint32_t);
  const ProgramHeader& largest = programs_.back()->header;
  for (uint32_t i = 0; i < largest.output_count; ++i) results_bytes_ += output_bytes(i, largest.max_batch);
  result_offsets_.resize(largest.output_count);
  gpu_outputs_.reserve(largest.output_count);
  const Current current(device_->context());
  resources_ = make_resources();
}

std::unique_ptr<Executor::Resources> Executor::make_resources() {
  auto made = std::make_unique<Resources>();
  made->stream = make_stream();
  check(driver().cuEventCreate(made->enqueued.out(), CU_EVENT_DISABLE_TIMING), "making an event");
  made->arena = allocate(arena_bytes_, "making room for activations");
  made->image = allocate(image_bytes_, "making room for images");
  made->results_and_state =
      allocate(results_bytes_ + state_words_ * sizeof(uint32_t), "making room for results");
  const size_t image_room = round_up(image_bytes_);
  made->pinned = allocate_pinned(image_room + results_bytes_ + status_bytes(), "pinning host memory");
  made->replays.reserve(kMaxReplays);
  state_ = made->results_and_state.get() + results_bytes_;
  host_image_ = static_cast<std::byte*>(made->pinned.get());
  host_status_ = host_image_ + image_room + results_bytes_;
  for (uint32_t i = 0; i < programs_.size(); ++i) {
    made->modules.emplace_back();
    for (const auto& module : device_->program(i).modules) {
      if (module == nullptr) continue;
      made->modules.back().push_back(describe(*module, *programs_[i], made->arena.get(), state_));
    }
  }
  clear_state(made->stream.get());
  check(driver().cuStreamSynchronize(made->stream.get()), "clearing the counters");
  return made;
}

// Nothing may run any more when memory goes. Failures are of no interest: see Owned.
Executor::~Executor() {
  const Driver& cuda = driver();
  const Current current(device_->context(), std::nothrow);
  if (pending_) cuda.cuEventSynchronize(resources_->enqueued.get());
  cuda.cuStreamSynchronize(resources_->stream.get());
  resources_.reset();
}

template <typename Body>
void Executor::entered(Body body) {
  if (!lost_.empty()) throw Refusal{IE_ERROR_DEVICE_LOST, lost_};
  try {
    const Current current(device_->context());
    body();
  } catch (const Refusal& refusal) {
    if (refusal.status == IE_ERROR_DEVICE_LOST) lost_ = refusal.message;
    throw;
  }
}

size_t Executor::output_bytes(uint32_t index, uint32_t batch) const {
  const OutputRecord& output = programs_.front()->outputs[index];
  return round_up(sizeof(float) * batch * output.channels * output.height * output.width);
}

// Whether memory lies on this GPU; if not, it is the host's. Throws if it lies on another one, or is misaligned there.
bool Executor::on_gpu(const void* data, const char* what) const {
  unsigned type = 0;
  const CUresult known =
      driver().cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address(data));
  if (known == CUDA_ERROR_INVALID_VALUE) return false;  // the driver has not heard of it
  check(known, "asking where a buffer lies");
  if (type != CU_MEMORYTYPE_DEVICE) return false;
  int ordinal = 0;
  check(driver().cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address(data)),
        "asking where a buffer lies");
  if (ordinal != device_->ordinal()) {
    throw Refusal{IE_ERROR_ARGUMENT, std::string(what) + " on GPU " + std::to_string(ordinal) +
                                         ", the engine is on GPU " + std::to_string(device_->ordinal())};
  }
  return true;
}

void Executor::wait_for_enqueued(CUstream stream) {
  if (!pending_) return;
  check(driver().cuStreamWaitEvent(stream, resources_->enqueued.get(), 0), "ordering two runs");
}

void Executor::clear_state(CUstream stream) {
  check(driver().cuMemsetD32Async(state_, 0, state_words_, stream), "clearing the counters");
  dirty_ = false;
}

// Lists the outputs of a run with their addresses on the GPU. Those that the host wants are placed, each once and in
// the order of their numbers, so that they end where the state begins: one copy brings them and the status. Returns
// their bytes.
size_t Executor::place(const ie_output* outputs, uint32_t count, uint32_t batch, bool* all_on_host) {
  gpu_outputs_.clear();
  std::fill(result_offsets_.begin(), result_offsets_.end(), 0);
  for (uint32_t i = 0; i < count; ++i) {
    if (on_gpu(outputs[i].data, "a result is")) {
      gpu_outputs_.push_back(outputs[i]);
    } else {
      result_offsets_[outputs[i].index] = 1;
    }
  }
  *all_on_host = gpu_outputs_.empty();
  size_t bytes = 0;
  for (uint32_t i = 0; i < result_offsets_.size(); ++i) {
    if (result_offsets_[i] == 0) continue;
    bytes += output_bytes(i, batch);
    result_offsets_[i] = bytes;
    gpu_outputs_.push_back({sizeof(ie_output), i, pointer<float*>(state_ - bytes)});
  }
  return bytes;
}

void Executor::run(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count) {
  entered([&] {
    const Driver& cuda = driver();
    const CUstream stream = resources_->stream.get();
    bool on_host = false;
    const size_t result_bytes = place(outputs, count, input.batch, &on_host);
    ie_input given = input;
    size_t bytes = 0;
    if (!on_gpu(input.data, "the images are")) {
      bytes = image_bytes(programs_[program]->header, input.format, input.batch);
      std::memcpy(host_image_, input.data, bytes);
      given.data = pointer<const void*>(resources_->image.get());
    }
    try {
      wait_for_enqueued(stream);
      if (dirty_) clear_state(stream);
      if (on_host && bytes != 0) {
        check(cuda.cuGraphLaunch(replay(program, given, bytes, result_bytes), stream), "launching a run");
      } else {
        transfer_and_issue(program, given, bytes, result_bytes);
      }
      finish(stream);
    } catch (...) {  // some of it may be on its way, and the next run has the same memory
      cuda.cuStreamSynchronize(stream);
      throw;
    }
    for (uint32_t i = 0; i < count; ++i) {
      const size_t offset = result_offsets_[outputs[i].index];
      if (offset == 0 || (!on_host && on_gpu(outputs[i].data, "a result is"))) continue;
      const OutputRecord& record = programs_[program]->outputs[outputs[i].index];
      const size_t values = size_t(input.batch) * record.channels * record.height * record.width;
      std::memcpy(outputs[i].data, host_status_ - offset, values * sizeof(float));
    }
  });
}

void Executor::enqueue(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count,
                       CUstream stream) {
  entered([&] {
    const Driver& cuda = driver();
    int capturing = CU_STREAM_CAPTURE_STATUS_NONE;
    check(cuda.cuStreamIsCapturing(stream, &capturing), "asking about the stream");
    bool all_on_gpu = on_gpu(input.data, "the images are");
    for (uint32_t i = 0; i < count; ++i) {
      all_on_gpu = on_gpu(outputs[i].data, "a result is") && all_on_gpu;
    }
    if (!all_on_gpu) {
      throw Refusal{IE_ERROR_ARGUMENT, "ie_enqueue takes buffers on the GPU only; ie_run takes others"};
    }
    // What a captured run waits for is the business of those who replay it.
    const bool captured = capturing != CU_STREAM_CAPTURE_STATUS_NONE;
    if (!captured) wait_for_enqueued(stream);
    if (dirty_) clear_state(stream);
    try {
      issue(program, input, outputs, count, stream);
      if (captured) return;
      pending_ = true;
      check(cuda.cuEventRecord(resources_->enqueued.get(), stream), "marking the end of a run");
    } catch (...) {  // some launches may be on their way, and no later run would wait for them
      if (!captured) cuda.cuStreamSynchronize(stream);
      throw;
    }
  });
}

void Executor::check_enqueued() {
  entered([&] {
    if (pending_) check(driver().cuEventSynchronize(resources_->enqueued.get()), "waiting for a run");
    const CUstream stream = resources_->stream.get();
    check(driver().cuMemcpyDtoHAsync(host_status_, state_, status_bytes(), stream), "copying the status");
    finish(stream);
  });
}

// Waits, and looks at the status that was copied.
void Executor::finish(CUstream stream) {
  check(driver().cuStreamSynchronize(stream), "waiting for a run");
  pending_ = false;
  uint32_t of_modules, of_walk;
  std::memcpy(&of_modules, host_status_, sizeof of_modules);
  std::memcpy(&of_walk, host_status_ + module_bytes_, sizeof of_walk);
  if (of_modules == 0 && of_walk == 0) return;
  clear_state(stream);
  check(driver().cuStreamSynchronize(stream), "clearing the counters");
  throw Refusal{IE_ERROR_TIMEOUT, "a wait inside a run passed its bound; the results are void"};
}

// The graph of a run, captured when such a run is seen for the first time; the one not used for longest makes room.
CUgraphExec Executor::replay(uint32_t program, const ie_input& input, size_t image_bytes,
                             size_t result_bytes) {
  std::vector<Replay>& replays = resources_->replays;
  const auto same = [&](const Replay& r) {
    return r.program == program && r.batch == input.batch && r.format == input.format &&
           std::equal(r.outputs.begin(), r.outputs.end(), gpu_outputs_.begin(), gpu_outputs_.end(),
                      [](uint32_t index, const ie_output& output) { return index == output.index; });
  };
  auto found = std::find_if(replays.begin(), replays.end(), same);
  if (found == replays.end()) {
    const Driver& cuda = driver();
    const CUstream stream = resources_->stream.get();
    Replay made{program, input.batch, input.format, {}, 0, {}};
    for (const ie_output& output : gpu_outputs_) made.outputs.push_back(output.index);
    Graph graph;
    check(cuda.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED), "recording a run");
    try {
      transfer_and_issue(program, input, image_bytes, result_bytes);
    } catch (...) {
      cuda.cuStreamEndCapture(stream, graph.out());
      dirty_ = false;  // nothing has run
      throw;
    }
    check(cuda.cuStreamEndCapture(stream, graph.out()), "recording a run");
    check(cuda.cuGraphInstantiate(made.graph.out(), graph.get(), 0), "recording a run");
    if (replays.size() == kMaxReplays) {
      replays.erase(std::min_element(replays.begin(), replays.end(), [](const Replay& a, const Replay& b) {
        return a.last_use < b.last_use;
      }));
    }
    found = replays.insert(replays.end(), std::move(made));
  }
  found->last_use = ++runs_;
  return found->graph.get();
}

// On the executor's own stream. `input` and the outputs of place() are on the GPU; of the bytes of images and results
// that come from the host and go there there may be none.
void Executor::transfer_and_issue(uint32_t program, const ie_input& input, size_t image_bytes,
                                  size_t result_bytes) {
  const Driver& cuda = driver();
  const CUstream stream = resources_->stream.get();
  if (image_bytes != 0) {
    check(cuda.cuMemcpyHtoDAsync(resources_->image.get(), host_image_, image_bytes, stream),
          "copying the images");
  }
  issue(program, input, gpu_outputs_.data(), uint32_t(gpu_outputs_.size()), stream);
  check(cuda.cuMemcpyDtoHAsync(host_status_ - result_bytes, state_ - result_bytes,
                               result_bytes + status_bytes(), stream),
        "copying the results");
}

void Executor::issue(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count,
                     CUstream stream) {
  if (poison_) {
    check(driver().cuMemsetD32Async(resources_->arena.get(), kNaN, arena_bytes_ / sizeof kNaN, stream),
          "poisoning the activations");
  }
  dirty_ = true;
  const RunMemory memory = {resources_->arena.get(), state_ + module_bytes_};
  launch_run(*device_, program, *programs_[program], memory, &resources_->modules[program], input, outputs,
             count, stream);
  dirty_ = false;
}

}  // namespace ie::cuda
