#include "proof.h"

#include <algorithm>
#include <string>

#include "arena.h"
#include "fields.h"
#include "limits.h"
#include "ops.h"
#include "order.h"
#include "refusal.h"
#include "schedule.h"
#include "weights.h"
#include "writers.h"

namespace ie::proof {
namespace {

// Rule 1 for the header.
void prove_header(const Program& p) {
  const ProgramHeader& h = p.header;
  require(reserved_zero(h), IE_PLAN_RESERVED, "a reserved field of a program header is set");
  require(h.target == uint32_t(Target::kCpu) || h.target == uint32_t(Target::kCuda), IE_PLAN_VALUE,
          "unknown target");
  require(is_dtype(h.dtype), IE_PLAN_VALUE, "unknown dtype");
  require(h.max_batch >= 1, IE_PLAN_VALUE, "the maximum batch is 0");
  require(is_size(h.input_channels) && is_size(h.input_height) && is_size(h.input_width), IE_PLAN_VALUE,
          "the input has no size");
  require(!p.ops.empty() && !p.tasks.empty() && !p.launches.empty() && !p.outputs.empty(), IE_PLAN_VALUE,
          "a program without ops, tasks, launches or outputs");
}

}  // namespace

void check_limits(const ProgramHeader& h) {
  const auto limit = [](uint64_t value, uint64_t most, const char* what) {
    if (value > most) refuse(IE_PLAN_LIMIT, std::string("more than ") + std::to_string(most) + " " + what);
  };
  limit(h.max_batch, kMaxBatch, "images in a batch");
  limit(h.buffer_count, kMaxBuffers, "buffers");
  limit(h.output_count, kMaxOutputs, "outputs");
  limit(h.op_count, kMaxOps, "ops");
  limit(h.launch_count, kMaxLaunches, "launches");
  limit(h.task_count, kMaxTasks, "tasks");
  limit(h.wait_count, kMaxWaits, "waits");
  limit(h.counter_count, std::min(kMaxCounters, h.task_count), "counters, or more than tasks");
  limit(h.string_bytes, kMaxStrings, "bytes of names");
  limit(h.arena_bytes, kMaxArena, "bytes of arena");
}

void prove(const Program& program, uint64_t weight_bytes) {
  prove_header(program);
  prove_buffers(program);
  prove_ops(program, weight_bytes);
  prove_made_weights(program, weight_bytes);
  const Writers writers = prove_writers(program);
  prove_outputs(program, writers);
  prove_launches(program);
  const Schedule schedule = prove_tasks(program);
  const std::vector<OpSet> needed = prove_reuse(program);
  prove_order(program, writers, schedule, needed);
}

}  // namespace ie::proof
