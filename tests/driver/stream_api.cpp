// Copies, streams, events, graphs and launches.
#include <algorithm>
#include <cstring>

#include "driver.h"

using namespace fake;

namespace {

int last_stream = 0;  // number; the default stream is 0

std::shared_ptr<Work> copy_of(uintptr_t to, uintptr_t from, size_t bytes) {
  auto work = std::make_shared<Work>();
  work->type = CU_GRAPH_NODE_TYPE_MEMCPY;
  work->to = to;
  work->from = from;
  work->bytes = bytes;
  return work;
}

bool on_device(uintptr_t address) {
  const auto* found = find(address);
  return found != nullptr && !found->second.pinned;
}

CUresult copy(Line& line, CUstream handle, uintptr_t to, uintptr_t from, size_t bytes, bool to_device) {
  line.add("to", to).add("from", from).add("bytes", bytes);
  if (on_device(to) != to_device || on_device(from) == to_device) {
    return violation(CUDA_ERROR_INVALID_VALUE, "a copy between other memories than its name says");
  }
  Stream* stream = stream_of(handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  line.add("stream", uint64_t(stream->id));
  return submit(stream, copy_of(to, from, bytes));
}

uintptr_t number(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

CUresult fill_params(Work* work, void** params) {
  if (params == nullptr) return violation(CUDA_ERROR_INVALID_VALUE, "a launch without parameters");
  work->params.clear();
  for (size_t i = 0; i < work->function->params.size(); ++i) {
    if (params[i] == nullptr) return violation(CUDA_ERROR_INVALID_VALUE, "a launch with too few parameters");
    const auto* from = static_cast<const std::byte*>(params[i]);
    work->params.emplace_back(from, from + work->function->params[i]);
  }
  return CUDA_SUCCESS;
}

CUresult check_launch(const Work& work) {
  const Function& function = *work.function;
  const uint32_t threads = work.block[0] * work.block[1] * work.block[2];
  for (const uint32_t size : {work.grid[0], work.grid[1], work.grid[2], threads}) {
    if (size == 0) return violation(CUDA_ERROR_INVALID_VALUE, "a launch of nothing");
  }
  if (function.threads != 0 && (work.block[0] != function.threads || threads != function.threads)) {
    return violation(CUDA_ERROR_INVALID_VALUE,
                     "blocks of " + std::to_string(threads) + " threads for " + function.name);
  }
  if (work.shared > function.shared_limit) {
    return violation(CUDA_ERROR_INVALID_VALUE, "more shared memory than is allowed to " + function.name);
  }
  if (function.threads != 0 && work.shared != function.shared) {
    return violation(CUDA_ERROR_INVALID_VALUE, "other shared memory than " + function.name + " has");
  }
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return call(__func__, kInContext,
              [&](Line& line) { return copy(line, stream, to, number(from), bytes, true); });
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return call(__func__, kInContext,
              [&](Line& line) { return copy(line, stream, number(to), from, bytes, false); });
}

CUresult CUDAAPI cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream handle) {
  return call(__func__, kInContext, [&](Line& line) {
    line.add("to", to).add("count", count).add("value", value);
    if (!on_device(to) || find(to, count * 4) == nullptr || to % 4 != 0) {
      return violation(CUDA_ERROR_INVALID_VALUE, "a fill outside of an allocation");
    }
    Stream* stream = stream_of(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    line.add("stream", uint64_t(stream->id));
    auto work = std::make_shared<Work>();
    work->type = CU_GRAPH_NODE_TYPE_MEMSET;
    work->to = to;
    work->bytes = count * 4;
    work->value = value;
    return submit(stream, work);
  });
}

CUresult CUDAAPI cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction handle, void** params,
                                  void** extra) {
  return call(__func__, kInContext, [&](Line& line) {
    Function* function = live(state.functions, handle);
    if (function == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "launch of no function");
    if (function->module->context != current.back()) {
      return violation(CUDA_ERROR_INVALID_HANDLE, "launch of a function of another context");
    }
    if (extra != nullptr) return violation(CUDA_ERROR_INVALID_VALUE, "a launch with extra options");
    Stream* stream = stream_of(config->hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    auto work = std::make_shared<Work>();
    work->type = CU_GRAPH_NODE_TYPE_KERNEL;
    work->function = function;
    const uint32_t grid[] = {config->gridDimX, config->gridDimY, config->gridDimZ};
    const uint32_t block[] = {config->blockDimX, config->blockDimY, config->blockDimZ};
    std::copy_n(grid, 3, work->grid);
    std::copy_n(block, 3, work->block);
    work->shared = config->sharedMemBytes;
    for (unsigned i = 0; i < config->numAttrs; ++i) {
      if (config->attrs[i].id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) {
        return violation(CUDA_ERROR_INVALID_VALUE, "a launch attribute that is not known here");
      }
      work->programmatic = config->attrs[i].value.programmaticStreamSerializationAllowed != 0;
    }
    line.text("function", function->name)
        .add("stream", uint64_t(stream->id))
        .add("captured", stream->capture != nullptr);
    line.add("programmatic", work->programmatic);
    const CUresult checked = check_launch(*work);
    if (checked != CUDA_SUCCESS) return checked;
    const CUresult filled = fill_params(work.get(), params);
    return filled == CUDA_SUCCESS ? submit(stream, work) : filled;
  });
}

CUresult CUDAAPI cuStreamCreate(CUstream* handle, unsigned int flags) {
  return call(__func__, kInContext, [&](Line& line) {
    if (flags > CU_STREAM_NON_BLOCKING) return violation(CUDA_ERROR_INVALID_VALUE, "flags of a stream");
    auto* stream = new Stream;
    stream->context = current.back();
    stream->id = ++last_stream;
    stream->blocking = flags == CU_STREAM_DEFAULT;
    state.streams.insert(stream);
    *handle = reinterpret_cast<CUstream>(stream);
    line.add("stream", uint64_t(stream->id));
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuStreamDestroy(CUstream handle) {
  return call(__func__, kInContext | kRelease, [&](Line&) {
    Stream* stream = live(state.streams, handle);
    if (stream == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "destruction of no stream");
    if (stream->capture != nullptr) violation(CUDA_SUCCESS, "a stream is destroyed while it captures");
    state.streams.erase(stream);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuStreamSynchronize(CUstream handle) {
  return call(__func__, kInContext | kUnsafe, [&](Line& line) {
    Stream* stream = stream_of(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    line.add("stream", uint64_t(stream->id));
    if (stream->capture != nullptr) {
      stream->invalid = true;
      return violation(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a capturing stream is waited for");
    }
    const CUresult done = flush();
    merge(&state.host, stream->clock);
    if (stream == &state.legacy) {
      for (const Stream* other : state.streams) {
        if (other->blocking) merge(&state.host, other->clock);
      }
    }
    return done;
  });
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  return call(__func__, kInContext, [&](Line&) {
    Stream* stream = stream_of(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *status = stream->capture == nullptr ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->invalid          ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                         : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    const auto implicit = [](const Stream* other) { return other->blocking && other->capture != nullptr; };
    if (stream == &state.legacy && std::any_of(state.streams.begin(), state.streams.end(), implicit)) {
      return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  return call(__func__, kInContext, [&](Line& line) {
    line.add("mode", mode);
    Stream* stream = stream_of(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream == &state.legacy)
      return violation(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "capture of the default stream");
    if (stream->capture != nullptr) return violation(CUDA_ERROR_ILLEGAL_STATE, "capture in a capture");
    stream->capture = new Graph{current.back(), {}};
    stream->mode = mode;
    stream->thread = std::this_thread::get_id();
    stream->invalid = false;
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  return call(__func__, kInContext | kRelease, [&](Line&) {
    Stream* stream = stream_of(handle);
    *graph = nullptr;
    if (stream == nullptr || stream->capture == nullptr)
      return violation(CUDA_ERROR_ILLEGAL_STATE, "end of no capture");
    if (stream->mode != CU_STREAM_CAPTURE_MODE_RELAXED && stream->thread != std::this_thread::get_id()) {
      return violation(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "end of a capture by another thread");
    }
    Graph* captured = stream->capture;
    stream->capture = nullptr;
    if (stream->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    state.graphs.insert(captured);
    *graph = reinterpret_cast<CUgraph>(captured);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec* handle, CUgraph from, unsigned long long flags) {
  return call(__func__, kInContext, [&](Line& line) {
    Graph* graph = live(state.graphs, from);
    if (graph == nullptr || flags != 0)
      return violation(CUDA_ERROR_INVALID_VALUE, "instantiation of no graph");
    auto* exec = new Exec{current.back(), {}};
    for (const auto& node : graph->nodes) exec->nodes.push_back(std::make_shared<Work>(*node));
    state.execs.insert(exec);
    *handle = reinterpret_cast<CUgraphExec>(exec);
    line.add("exec", number(exec)).add("nodes", exec->nodes.size());
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec handle, CUstream to) {
  return call(__func__, kInContext, [&](Line& line) {
    const Exec* exec = live(state.execs, handle);
    Stream* stream = stream_of(to);
    if (exec == nullptr || stream == nullptr)
      return violation(CUDA_ERROR_INVALID_HANDLE, "launch of no graph");
    line.add("exec", number(exec)).add("stream", uint64_t(stream->id));
    auto work = std::make_shared<Work>();
    work->type = CU_GRAPH_NODE_TYPE_GRAPH;
    for (const auto& node : exec->nodes) work->nodes.push_back(std::make_shared<Work>(*node));
    work->exec = number(exec);
    return submit(stream, work);
  });
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec handle) {
  return call(__func__, kInContext | kRelease, [&](Line&) {
    Exec* exec = live(state.execs, handle);
    if (exec == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "destruction of no executable graph");
    state.execs.erase(exec);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuGraphDestroy(CUgraph handle) {
  return call(__func__, kInContext | kRelease, [&](Line&) {
    Graph* graph = live(state.graphs, handle);
    if (graph == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "destruction of no graph");
    state.graphs.erase(graph);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuEventCreate(CUevent* handle, unsigned int) {
  return call(__func__, kInContext, [&](Line&) {
    auto* event = new Event{current.back(), {}};
    state.events.insert(event);
    *handle = reinterpret_cast<CUevent>(event);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuEventDestroy(CUevent handle) {
  return call(__func__, kInContext | kRelease, [&](Line&) {
    Event* event = live(state.events, handle);
    if (event == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "destruction of no event");
    state.events.erase(event);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuEventRecord(CUevent handle, CUstream of) {
  return call(__func__, kInContext, [&](Line& line) {
    Event* event = live(state.events, handle);
    Stream* stream = stream_of(of);
    if (event == nullptr || stream == nullptr)
      return violation(CUDA_ERROR_INVALID_HANDLE, "record of no event");
    line.add("stream", uint64_t(stream->id));
    event->captured = stream->capture;
    if (stream->capture == nullptr) {
      event->clock = stream->clock;
      for (const Stream* other : state.streams) {
        if (stream == &state.legacy && other->blocking) merge(&event->clock, other->clock);
      }
    }
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuEventSynchronize(CUevent handle) {
  return call(__func__, kInContext | kUnsafe, [&](Line&) {
    const Event* event = live(state.events, handle);
    if (event == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "wait for no event");
    if (event->captured != nullptr) return violation(CUDA_ERROR_CAPTURED_EVENT, "wait for a captured event");
    const CUresult done = flush();
    merge(&state.host, event->clock);
    return done;
  });
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream handle, CUevent on, unsigned int flags) {
  return call(__func__, kInContext, [&](Line& line) {
    Stream* stream = stream_of(handle);
    const Event* event = live(state.events, on);
    if (event == nullptr || stream == nullptr || flags != 0) {
      return violation(CUDA_ERROR_INVALID_HANDLE, "wait for no event");
    }
    line.add("stream", uint64_t(stream->id));
    if (event->captured != stream->capture) {
      stream->invalid = true;
      return violation(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a dependency across the border of a capture");
    }
    merge(&stream->clock, event->clock);
    return CUDA_SUCCESS;
  });
}
}
