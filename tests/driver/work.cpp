// What streams do: kept in order of submission until something waits, and checked for its order then.
#include <algorithm>
#include <cstring>
#include <deque>

#include "driver.h"

namespace fake {
namespace {

struct Job {
  std::shared_ptr<Work> work;
  Context* context;
  int stream;
  Clock clock;  // what is known to be done when it begins, and its own number
};

std::deque<Job> queue;
const Job* executing = nullptr;

bool knows(const Clock& clock, int stream, uint64_t number) {
  const auto found = clock.find(stream);
  return found != clock.end() && found->second >= number;
}

std::vector<uint64_t> values(const Work& launch) {
  std::vector<uint64_t> out;
  for (const auto& param : launch.params) {
    uint64_t value = 0;
    std::memcpy(&value, param.data(), std::min(sizeof value, param.size()));
    out.push_back(value);
  }
  return out;
}

void log_kernel(const Work& work, const Job& job, uintptr_t exec) {
  Line("execute", work.function->name)
      .list("grid", {work.grid[0], work.grid[1], work.grid[2]})
      .list("block", {work.block[0], work.block[1], work.block[2]})
      .add("shared", work.shared)
      .add("programmatic", work.programmatic)
      .add("stream", uint64_t(job.stream))
      .add("exec", exec)
      .list("params", values(work))
      .write();
}

void perform(const Work& work, const Job& job, uintptr_t exec) {
  switch (work.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      log_kernel(work, job, exec);
      switch (work.function->kernel) {
        case Kernel::kWalk:
          run_walk(work);
          break;
        case Kernel::kCopyOutput:
          run_copy_output(work);
          break;
        case Kernel::kInception:
          run_inception(work);
          break;
      }
      break;
    case CU_GRAPH_NODE_TYPE_MEMSET: {
      auto* to =
          open(work.to, true, "memset", sizeof(uint32_t)).at<uint32_t>(0, work.bytes / sizeof(uint32_t));
      std::fill_n(to, work.bytes / sizeof(uint32_t), work.value);
      break;
    }
    case CU_GRAPH_NODE_TYPE_MEMCPY: {
      const auto* from = reinterpret_cast<const std::byte*>(work.from);
      if (!work.payload.empty()) from = work.payload.data();
      if (find(work.from) != nullptr) from = open(work.from, false, "copy").at<std::byte>(0, work.bytes);
      auto* to = reinterpret_cast<std::byte*>(work.to);
      if (find(work.to) != nullptr) to = open(work.to, true, "copy").at<std::byte>(0, work.bytes);
      std::memcpy(to, from, work.bytes);
      break;
    }
    default:  // of a graph
      for (const auto& node : work.nodes) perform(*node, job, work.exec);
  }
}

// What comes next in a stream: after what it did, what the host has waited for, and for blocking streams and the
// default stream after each other.
Clock& advance(Stream* stream) {
  static uint64_t number = 0;
  merge(&stream->clock, state.host);
  if (stream == &state.legacy) {
    for (const Stream* other : state.streams) {
      if (other->blocking) merge(&stream->clock, other->clock);
    }
  } else if (stream->blocking) {
    merge(&stream->clock, state.legacy.clock);
  }
  stream->clock[stream->id] = ++number;
  return stream->clock;
}

// Whether each side of a copy is what it should be, and the host's pageable.
CUresult check_copy(const Work& work, bool* pageable) {
  *pageable = false;
  for (const uintptr_t address : {work.to, work.from}) {
    if (find(address) != nullptr) {
      if (find(address, work.bytes) == nullptr) {
        return violation(CUDA_ERROR_INVALID_VALUE, "a copy leaves its allocation");
      }
    } else {
      *pageable = true;
    }
  }
  return CUDA_SUCCESS;
}

CUresult capture(Stream* stream, std::shared_ptr<Work> work, bool pageable) {
  if (stream->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (pageable) {
    stream->invalid = true;
    return violation(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a copy of pageable memory is captured");
  }
  stream->capture->nodes.push_back(std::move(work));
  return CUDA_SUCCESS;
}

}  // namespace

void merge(Clock* to, const Clock& from) {
  for (const auto& [stream, number] : from) {
    uint64_t& known = (*to)[stream];
    known = std::max(known, number);
  }
}

std::pair<const uintptr_t, Allocation>* find(uintptr_t address, size_t bytes) {
  auto next = state.memory.upper_bound(address);
  if (next == state.memory.begin()) return nullptr;
  auto& found = *--next;
  const uintptr_t offset = address - found.first;
  return offset < found.second.bytes && bytes <= found.second.bytes - offset ? &found : nullptr;
}

bool capturing_unsafe() {
  bool unsafe = false;
  for (Stream* stream : state.streams) {
    if (stream->capture == nullptr || stream->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    if (stream->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && stream->thread != std::this_thread::get_id())
      continue;
    stream->invalid = unsafe = true;
  }
  return unsafe;
}

Stream* stream_of(CUstream handle) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY) return &state.legacy;
  Stream* stream = live(state.streams, handle);
  if (stream == nullptr) {
    violation(CUDA_ERROR_INVALID_HANDLE, "no stream");
  } else if (stream->context != current.back()) {
    violation(CUDA_ERROR_INVALID_CONTEXT, "a stream of another context");
    return nullptr;
  }
  return stream;
}

CUresult submit(Stream* stream, std::shared_ptr<Work> work) {
  bool pageable = false;
  if (work->type == CU_GRAPH_NODE_TYPE_MEMCPY) {
    const CUresult checked = check_copy(*work, &pageable);
    if (checked != CUDA_SUCCESS) return checked;
  }
  if (stream->capture != nullptr) return capture(stream, std::move(work), pageable);
  if (stream == &state.legacy) {
    for (Stream* other : state.streams) {
      if (other->capture == nullptr || !other->blocking) continue;
      other->invalid = true;
      return violation(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "work for the default stream during a capture");
    }
  }
  const bool to_host = pageable && find(work->to) == nullptr;
  if (pageable && !to_host) {  // is staged before the call returns
    const auto* from = reinterpret_cast<const std::byte*>(work->from);
    work->payload.assign(from, from + work->bytes);
    work->from = 0;
  }
  queue.push_back({std::move(work), current.back(), stream->id, advance(stream)});
  if (!to_host) return CUDA_SUCCESS;
  const CUresult done = flush();  // returns when the copy is done
  merge(&state.host, stream->clock);
  return done;
}

CUresult flush() {
  CUresult result = CUDA_SUCCESS;
  while (!queue.empty()) {
    const Job job = std::move(queue.front());
    queue.pop_front();
    if (job.context->sticky != CUDA_SUCCESS) continue;
    executing = &job;
    try {
      perform(*job.work, job, 0);
    } catch (const Fault& fault) {
      result = job.context->sticky = violation(CUDA_ERROR_ILLEGAL_ADDRESS, fault.what);
    }
    executing = nullptr;
  }
  return result;
}

void forget_work() { queue.clear(); }

Span open(uintptr_t address, bool write, const char* what, size_t alignment) {
  const std::string name = what;
  auto* found = find(address);
  if (found == nullptr) throw Fault{name + ": an address that is not allocated"};
  if (address % alignment != 0) throw Fault{name + ": misaligned"};
  Allocation& allocation = found->second;
  if (allocation.context != executing->context) throw Fault{name + ": memory of another context"};
  const Clock& clock = executing->clock;
  if (allocation.writer >= 0 && !knows(clock, allocation.writer, allocation.written)) {
    violation(CUDA_SUCCESS, name + ": not ordered after a write by another stream");
  }
  const uint64_t now = clock.at(executing->stream);
  if (write) {
    for (const auto& [stream, number] : allocation.reads) {
      if (!knows(clock, stream, number))
        violation(CUDA_SUCCESS, name + ": not ordered after a read by another stream");
    }
    allocation.writer = executing->stream;
    allocation.written = now;
    allocation.reads.clear();
  } else {
    allocation.reads[executing->stream] = now;
  }
  const size_t offset = address - found->first;
  return {allocation.backing.data() + offset, allocation.bytes - offset, address};
}

}  // namespace fake
