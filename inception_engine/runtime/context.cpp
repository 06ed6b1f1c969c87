// The C API: contexts and runs.
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "api.h"
#include "cpu/isa.h"

namespace {

using ie::filled;
using ie::guarded;
using ie::Program;
using ie::Refusal;
using ie::require;

constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kDefaultTimeoutMs = 60'000;

uint32_t usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::clamp<uint32_t>(static_cast<uint32_t>(CPU_COUNT(&set)), 1, kMaxThreads);
}

ie::cpu::Settings resolve(const ie_context_options& options, const ie::Allocator& allocator) {
  require(options.threads <= kMaxThreads, "more than 1024 threads");
  require(options.isa <= IE_ISA_AVX512_BF16, "unknown instruction set");
  const ie_isa best = ie::cpu::best_isa();
  const auto isa = options.isa == IE_ISA_AUTO ? best : static_cast<ie_isa>(options.isa);
  if (ie::cpu::rank(isa) > ie::cpu::rank(best))
    throw Refusal{IE_ERROR_DEVICE, "this machine does not have the instruction set asked for"};
  ie::cpu::Settings settings{};
  settings.threads = options.threads == 0 ? usable_cores() : options.threads;
  settings.isa = isa;
  settings.poison = options.poison != 0;
  settings.timeout_ms = options.timeout_ms == 0 ? kDefaultTimeoutMs : options.timeout_ms;
  settings.allocator = allocator;
  return settings;
}

const char* name_of(ie_isa isa) {
  constexpr const char* kNames[] = {"", "portable instructions", "AVX2", "AVX-512", "AMX", "AVX512-BF16"};
  return kNames[isa];
}

void make_cpu(const ie_engine& engine, const ie_context_options& options, ie_context* context) {
  const ie::cpu::Settings settings = resolve(options, engine.allocator);
  std::string error;
  const ie_status status =
      ie::cpu::Executor::create(context->programs, engine.weights, settings, &context->cpu, &error);
  if (status != IE_OK) throw Refusal{status, error};
  if (engine.log.function != nullptr) {
    engine.log(IE_LOG_INFO, "a context of " + std::to_string(settings.threads) +
                                (settings.threads == 1 ? " thread, " : " threads, ") + name_of(settings.isa));
  }
}

// The index of the smallest program that takes the batch.
uint32_t choose(const ie_context& context, uint32_t batch) {
  const std::vector<const Program*>& programs = context.programs;
  const auto found = std::find_if(programs.begin(), programs.end(),
                                  [&](const Program* p) { return p->header.max_batch >= batch; });
  if (batch == 0 || found == programs.end()) {
    char text[96];
    std::snprintf(text, sizeof text, "batch %u; the plan takes 1 to %u", batch,
                  programs.back()->header.max_batch);
    throw Refusal{IE_ERROR_BATCH, text};
  }
  return static_cast<uint32_t>(found - programs.begin());
}

// Checks the arguments of a run and returns the program's index.
uint32_t check_run(const ie_context& context, const ie_input* input, const ie_output* outputs,
                   uint32_t count) {
  require(input != nullptr && (outputs != nullptr || count == 0), "a run's input or outputs is NULL");
  require(input->struct_size == sizeof(ie_input), "ie_input has an unknown struct_size");
  require(input->format == IE_FLOAT32_NCHW || input->format == IE_UINT8_NHWC, "unknown input format");
  require(input->data != nullptr, "the input's data is NULL");
  const uint32_t known = context.programs.front()->header.output_count;
  for (uint32_t i = 0; i < count; ++i) {
    require(outputs[i].struct_size == sizeof(ie_output), "ie_output has an unknown struct_size");
    require(outputs[i].index < known, "no such output");
    require(outputs[i].data != nullptr, "an output's data is NULL");
  }
  return choose(context, input->batch);
}

}  // namespace

ie_status ie_context_create(ie_engine* engine, const ie_context_options* options, ie_context** context,
                            char* message) {
  if (context != nullptr) *context = nullptr;
  return guarded(message, engine == nullptr ? ie::Log{} : engine->log, [&] {
    require(engine != nullptr && context != nullptr, "ie_context_create: engine or context is NULL");
    const ie_context_options chosen = filled(options);
    auto made = std::make_unique<ie_context>();
    made->plan = engine->plan;
    made->programs = engine->programs;
    made->log = engine->log;
    if (engine->gpu != nullptr) {
      made->gpu = std::make_unique<ie::cuda::Executor>(engine->gpu, made->programs, chosen.poison != 0);
      made->log(IE_LOG_INFO, "a context on a GPU");
    } else {
      make_cpu(*engine, chosen, made.get());
    }
    *context = made.release();
  });
}

void ie_context_free(ie_context* context) { delete context; }

ie_status ie_run(ie_context* context, const ie_input* input, const ie_output* outputs, uint32_t count) {
  if (context == nullptr) return IE_ERROR_ARGUMENT;
  uint32_t program = 0;
  const ie_status checked = guarded(context->message, context->log, [&] {
    program = check_run(*context, input, outputs, count);
    if (context->gpu != nullptr) context->gpu->run(program, *input, outputs, count);
  });
  if (checked != IE_OK || context->gpu != nullptr) return checked;
  const ie_status status = context->cpu->run(program, *input, outputs, count, context->message);
  return status == IE_OK ? status : ie::fail(nullptr, context->log, status, context->message);
}

ie_status ie_enqueue(ie_context* context, const ie_input* input, const ie_output* outputs, uint32_t count,
                     void* stream) {
  if (context == nullptr) return IE_ERROR_ARGUMENT;
  return guarded(context->message, context->log, [&] {
    if (context->gpu == nullptr) throw Refusal{IE_ERROR_DEVICE, "ie_enqueue needs a CUDA engine"};
    const uint32_t program = check_run(*context, input, outputs, count);
    context->gpu->enqueue(program, *input, outputs, count, static_cast<ie::cuda::CUstream>(stream));
  });
}

ie_status ie_context_check(ie_context* context) {
  if (context == nullptr) return IE_ERROR_ARGUMENT;
  return guarded(context->message, context->log, [&] {
    if (context->gpu != nullptr) context->gpu->check_enqueued();
  });
}

ie_status ie_context_trace(ie_context* context, uint64_t* times, size_t count) {
  if (context == nullptr) return IE_ERROR_ARGUMENT;
  return guarded(context->message, context->log, [&] {
    if (context->cpu == nullptr)
      throw Refusal{IE_ERROR_DEVICE, "the tasks of a GPU are not timed one by one"};
    context->cpu->trace(times, times == nullptr ? 0 : count);
  });
}

const char* ie_context_message(const ie_context* context) {
  return context == nullptr ? "" : context->message;
}
