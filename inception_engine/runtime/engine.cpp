// The C API: arguments are checked here, and nothing is thrown across it.
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "cpu/executor.h"
#include "cuda/executor.h"
#include "include/inception_engine.h"
#include "plan.h"

namespace {

using ie::Plan;
using ie::Program;
using ie::Refusal;

constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kDefaultTimeoutMs = 60'000;

}  // namespace

// Immutable once made; contexts share it.
struct ie_engine {
  std::shared_ptr<const Plan> plan;
  std::vector<const Program*> programs;         // that the device runs, by maximum batch
  std::vector<std::string> output_names;        // of the first of them; all have the same outputs
  std::shared_ptr<const ie::cuda::Device> gpu;  // null: the CPU
  std::string note;
};

struct ie_context {
  std::shared_ptr<const Plan> plan;
  std::vector<const Program*> programs;
  std::unique_ptr<ie::cpu::Executor> cpu;  // one of the two
  std::unique_ptr<ie::cuda::Executor> gpu;
  char message[IE_MESSAGE_BYTES] = "";
};

namespace {

void say(char* message, const std::string& text) {
  if (message != nullptr) std::snprintf(message, IE_MESSAGE_BYTES, "%s", text.c_str());
}

// Runs `body`, which throws Refusal or std::bad_alloc, and returns a status.
template <typename Body>
ie_status guarded(char* message, Body body) {
  try {
    say(message, "");
    body();
    return IE_OK;
  } catch (const Refusal& refusal) {
    say(message, refusal.message);
    return refusal.status;
  } catch (const std::exception&) {  // of the standard library; it throws only for lack of memory here
    say(message, "out of memory");
    return IE_ERROR_MEMORY;
  }
}

void require(bool holds, const char* message) {
  if (!holds) throw Refusal{IE_ERROR_ARGUMENT, message};
}

// A structure that a caller filled, as far as its size says; zeros where it is shorter than ours.
template <typename Options>
Options options_or_default(const Options* given) {
  Options options{};
  if (given != nullptr) {
    require(given->struct_size >= sizeof(uint32_t), "an options structure without its struct_size");
    std::memcpy(&options, given, std::min<size_t>(given->struct_size, sizeof options));
  }
  return options;
}

// Copies as much of `info` as the caller's structure holds.
template <typename Info>
void give(const Info& info, Info* to) {
  require(to->struct_size >= sizeof(uint32_t), "an info structure without its struct_size");
  const uint32_t size = std::min<uint32_t>(to->struct_size, sizeof info);
  std::memcpy(reinterpret_cast<char*>(to) + sizeof(uint32_t),
              reinterpret_cast<const char*>(&info) + sizeof(uint32_t), size - sizeof(uint32_t));
}

// The proof allows no other dtype than float32 in the buffers and weights of a float32 program.
bool runs_on_cpu(const Program& program) {
  return program.header.target == uint32_t(ie::Target::kCpu) &&
         program.header.dtype == uint32_t(ie::Dtype::kFloat32);
}

bool runs_on_gpu(const Program& program) { return program.header.target == uint32_t(ie::Target::kCuda); }

std::string output_name(const Program& program, const ie::OutputRecord& output) {
  return program.strings.substr(output.name, output.name_bytes);
}

// Whichever program serves a batch, the caller sees one input and one list of outputs.
bool same_interface(const Program& a, const Program& b) {
  const auto same_output = [&](const ie::OutputRecord& x, const ie::OutputRecord& y) {
    return x.channels == y.channels && x.height == y.height && x.width == y.width &&
           output_name(a, x) == output_name(b, y);
  };
  return a.header.input_channels == b.header.input_channels &&
         a.header.input_height == b.header.input_height && a.header.input_width == b.header.input_width &&
         std::equal(a.outputs.begin(), a.outputs.end(), b.outputs.begin(), b.outputs.end(), same_output);
}

// Sorted by maximum batch. `wanted` says which programs of the plan.
template <typename Wanted>
std::vector<const Program*> select(const Plan& plan, Wanted wanted) {
  std::vector<const Program*> programs;
  for (const Program& program : plan.programs) {
    if (wanted(program)) programs.push_back(&program);
  }
  std::stable_sort(programs.begin(), programs.end(), [](const Program* a, const Program* b) {
    return a->header.max_batch < b->header.max_batch;
  });
  for (const Program* program : programs) {
    if (!same_interface(*programs.front(), *program)) {
      throw Refusal{IE_PLAN_GEOMETRY, "the plan's programs differ in their input or outputs"};
    }
  }
  return programs;
}

// The GPU with the plan's programs for it. Throws if there are none, or the GPU cannot be used.
void use_gpu(ie_engine* engine, const ie_engine_options& options) {
  engine->programs = select(*engine->plan, runs_on_gpu);
  if (engine->programs.empty()) {
    throw Refusal{IE_ERROR_NO_PROGRAM, "the plan has no program for CUDA; compile it with the target cuda"};
  }
  const uint32_t dtype = engine->programs.front()->header.dtype;
  for (const Program* program : engine->programs) {
    if (program->header.dtype != dtype) {
      throw Refusal{IE_PLAN_GEOMETRY, "the plan's programs for CUDA differ in their dtype"};
    }
  }
  engine->gpu = std::make_shared<const ie::cuda::Device>(*engine->plan, engine->programs, options.ordinal,
                                                         options.kernels == nullptr ? "" : options.kernels,
                                                         ie_specialise(options.specialise));
}

void use_cpu(ie_engine* engine, bool emulate) {
  engine->programs = select(*engine->plan, [&](const Program& p) { return emulate || runs_on_cpu(p); });
  if (!engine->programs.empty()) return;
  std::string message = "the plan has no program for this machine's CPU";
  if (!engine->note.empty()) message += ", and those for a GPU cannot run: " + engine->note;
  throw Refusal{IE_ERROR_NO_PROGRAM, message};
}

std::unique_ptr<ie_engine> make_engine(ie::Image image, const ie_engine_options& options) {
  if (options.device > IE_DEVICE_CUDA) throw Refusal{IE_ERROR_DEVICE, "unknown device"};
  require(options.specialise <= IE_SPECIALISE_ALWAYS, "unknown value of specialise");
  const bool emulate = options.emulate != 0;
  require(!emulate || options.device != IE_DEVICE_CUDA, "emulation is the CPU's; the device is CUDA");
  auto engine = std::make_unique<ie_engine>();
  engine->plan = std::make_shared<const Plan>(ie::load_plan(std::move(image)));
  const std::vector<Program>& programs = engine->plan->programs;
  const bool automatic = options.device == IE_DEVICE_AUTO && !emulate;
  if (options.device == IE_DEVICE_CUDA) {
    use_gpu(engine.get(), options);
  } else if (automatic && std::any_of(programs.begin(), programs.end(), runs_on_gpu)) {
    try {
      use_gpu(engine.get(), options);
    } catch (const Refusal& refusal) {
      if (refusal.status >= IE_PLAN_TRUNCATED) throw;  // the plan's fault, on whatever device
      engine->note = refusal.message;
    }
  }
  if (engine->gpu == nullptr) use_cpu(engine.get(), emulate);
  const Program& first = *engine->programs.front();
  for (const ie::OutputRecord& output : first.outputs) {
    engine->output_names.push_back(output_name(first, output));
  }
  return engine;
}

uint32_t usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::clamp<uint32_t>(static_cast<uint32_t>(CPU_COUNT(&set)), 1, kMaxThreads);
}

ie::cpu::Settings resolve(const ie_context_options& options) {
  require(options.threads <= kMaxThreads, "more than 1024 threads");
  require(options.isa <= IE_ISA_AVX512, "unknown instruction set");
  const ie_isa best = ie::cpu::best_isa();
  const auto isa = options.isa == IE_ISA_AUTO ? best : static_cast<ie_isa>(options.isa);
  if (isa > best) throw Refusal{IE_ERROR_DEVICE, "this machine does not have the instruction set asked for"};
  ie::cpu::Settings settings{};
  settings.threads = options.threads == 0 ? usable_cores() : options.threads;
  settings.isa = isa;
  settings.poison = options.poison != 0;
  settings.timeout_ms = options.timeout_ms == 0 ? kDefaultTimeoutMs : options.timeout_ms;
  return settings;
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

const char* ie_version(void) { return IE_VERSION; }

uint32_t ie_abi_version(void) { return IE_ABI_VERSION; }

uint32_t ie_cpu_isa(void) { return ie::cpu::best_isa(); }

const char* ie_status_name(ie_status status) {
  switch (status) {
#define IE_NAME(name) \
  case name:          \
    return #name;
    IE_NAME(IE_OK)
    IE_NAME(IE_ERROR_ARGUMENT)
    IE_NAME(IE_ERROR_BATCH)
    IE_NAME(IE_ERROR_DEVICE)
    IE_NAME(IE_ERROR_NO_PROGRAM)
    IE_NAME(IE_ERROR_FILE)
    IE_NAME(IE_ERROR_MEMORY)
    IE_NAME(IE_ERROR_THREAD)
    IE_NAME(IE_ERROR_TIMEOUT)
    IE_NAME(IE_ERROR_NO_DRIVER)
    IE_NAME(IE_ERROR_DRIVER)
    IE_NAME(IE_ERROR_GPU)
    IE_NAME(IE_ERROR_KERNELS)
    IE_NAME(IE_ERROR_DEVICE_LOST)
    IE_NAME(IE_PLAN_TRUNCATED)
    IE_NAME(IE_PLAN_FOREIGN)
    IE_NAME(IE_PLAN_VERSION)
    IE_NAME(IE_PLAN_HASH)
    IE_NAME(IE_PLAN_SECTIONS)
    IE_NAME(IE_PLAN_LIMIT)
    IE_NAME(IE_PLAN_TABLES)
    IE_NAME(IE_PLAN_RESERVED)
    IE_NAME(IE_PLAN_VALUE)
    IE_NAME(IE_PLAN_BUFFER)
    IE_NAME(IE_PLAN_GEOMETRY)
    IE_NAME(IE_PLAN_BOUNDS)
    IE_NAME(IE_PLAN_WEIGHTS)
    IE_NAME(IE_PLAN_ALIGNMENT)
    IE_NAME(IE_PLAN_TILES)
    IE_NAME(IE_PLAN_OVERLAP)
    IE_NAME(IE_PLAN_UNWRITTEN)
    IE_NAME(IE_PLAN_LAUNCH)
    IE_NAME(IE_PLAN_COUNTER)
    IE_NAME(IE_PLAN_ORDER)
    IE_NAME(IE_PLAN_MISSING_WAIT)
    IE_NAME(IE_PLAN_REUSE)
    IE_NAME(IE_PLAN_WORK)
#undef IE_NAME
  }
  return "unknown status";
}

ie_status ie_engine_load(const char* path, const ie_engine_options* options, ie_engine** engine,
                         char* message) {
  if (engine != nullptr) *engine = nullptr;
  return guarded(message, [&] {
    require(path != nullptr && engine != nullptr, "ie_engine_load: path or engine is NULL");
    const ie_engine_options chosen = options_or_default(options);
    *engine = make_engine(ie::read_file(path), chosen).release();
  });
}

ie_status ie_engine_load_memory(const void* data, size_t bytes, const ie_engine_options* options,
                                ie_engine** engine, char* message) {
  if (engine != nullptr) *engine = nullptr;
  return guarded(message, [&] {
    require(data != nullptr && engine != nullptr, "ie_engine_load_memory: data or engine is NULL");
    const ie_engine_options chosen = options_or_default(options);
    *engine = make_engine(ie::copy_memory(data, bytes), chosen).release();
  });
}

ie_status ie_plan_check(const void* data, size_t bytes, char* message) {
  return guarded(message, [&] {
    require(data != nullptr, "ie_plan_check: data is NULL");
    ie::load_plan(ie::copy_memory(data, bytes));
  });
}

void ie_engine_free(ie_engine* engine) { delete engine; }

const char* ie_engine_note(const ie_engine* engine) { return engine == nullptr ? "" : engine->note.c_str(); }

ie_status ie_engine_describe(const ie_engine* engine, ie_engine_info* info) {
  return guarded(nullptr, [&] {
    require(engine != nullptr && info != nullptr, "ie_engine_describe: NULL");
    const ie::ProgramHeader& header = engine->programs.front()->header;
    ie_engine_info filled{};
    filled.device = engine->gpu == nullptr ? IE_DEVICE_CPU : IE_DEVICE_CUDA;
    filled.max_batch = engine->programs.back()->header.max_batch;
    filled.channels = header.input_channels;
    filled.height = header.input_height;
    filled.width = header.input_width;
    filled.outputs = header.output_count;
    filled.programs = static_cast<uint32_t>(engine->programs.size());
    for (const Program* program : engine->programs) {
      filled.arena_bytes = std::max(filled.arena_bytes, program->header.arena_bytes);
    }
    filled.weight_bytes = engine->plan->weight_bytes;
    filled.specialised = engine->gpu == nullptr ? 0 : engine->gpu->modules();
    give(filled, info);
  });
}

ie_status ie_engine_output(const ie_engine* engine, uint32_t index, ie_output_info* info) {
  return guarded(nullptr, [&] {
    require(engine != nullptr && info != nullptr, "ie_engine_output: NULL");
    require(index < engine->output_names.size(), "ie_engine_output: no such output");
    const ie::OutputRecord& output = engine->programs.front()->outputs[index];
    ie_output_info filled{};
    filled.channels = output.channels;
    filled.height = output.height;
    filled.width = output.width;
    filled.name = engine->output_names[index].c_str();
    give(filled, info);
  });
}

const char* ie_engine_metadata(const ie_engine* engine, size_t* bytes) {
  if (bytes != nullptr) *bytes = engine == nullptr ? 0 : engine->plan->metadata.size();
  return engine == nullptr ? "" : engine->plan->metadata.data();
}

ie_status ie_context_create(ie_engine* engine, const ie_context_options* options, ie_context** context,
                            char* message) {
  if (context != nullptr) *context = nullptr;
  return guarded(message, [&] {
    require(engine != nullptr && context != nullptr, "ie_context_create: engine or context is NULL");
    const ie_context_options chosen = options_or_default(options);
    auto made = std::make_unique<ie_context>();
    made->plan = engine->plan;
    made->programs = engine->programs;
    if (engine->gpu != nullptr) {
      made->gpu = std::make_unique<ie::cuda::Executor>(engine->gpu, made->programs, chosen.poison != 0);
    } else {
      std::string error;
      const ie_status status =
          ie::cpu::Executor::create(made->programs, made->plan->weights, resolve(chosen), &made->cpu, &error);
      if (status != IE_OK) throw Refusal{status, error};
    }
    *context = made.release();
  });
}

void ie_context_free(ie_context* context) { delete context; }

ie_status ie_run(ie_context* context, const ie_input* input, const ie_output* outputs, uint32_t count) {
  if (context == nullptr) return IE_ERROR_ARGUMENT;
  uint32_t program = 0;
  const ie_status checked = guarded(context->message, [&] {
    program = check_run(*context, input, outputs, count);
    if (context->gpu != nullptr) context->gpu->run(program, *input, outputs, count);
  });
  if (checked != IE_OK || context->gpu != nullptr) return checked;
  return context->cpu->run(program, *input, outputs, count, context->message);
}

ie_status ie_enqueue(ie_context* context, const ie_input* input, const ie_output* outputs, uint32_t count,
                     void* stream) {
  if (context == nullptr) return IE_ERROR_ARGUMENT;
  return guarded(context->message, [&] {
    if (context->gpu == nullptr) throw Refusal{IE_ERROR_DEVICE, "ie_enqueue needs a CUDA engine"};
    const uint32_t program = check_run(*context, input, outputs, count);
    context->gpu->enqueue(program, *input, outputs, count, static_cast<ie::cuda::CUstream>(stream));
  });
}

ie_status ie_context_check(ie_context* context) {
  if (context == nullptr) return IE_ERROR_ARGUMENT;
  return guarded(context->message, [&] {
    if (context->gpu != nullptr) context->gpu->check_enqueued();
  });
}

const char* ie_context_message(const ie_context* context) {
  return context == nullptr ? "" : context->message;
}
