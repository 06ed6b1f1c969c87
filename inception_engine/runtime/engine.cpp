// The C API: engines and what they tell of themselves.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "api.h"
#include "cpu/isa.h"
#include "preprocess.h"

namespace {

constexpr uint64_t kMaxNumbers = uint64_t{1} << 31;  // of an output: programs multiply its sizes in 32 bits

using ie::filled;
using ie::give;
using ie::guarded;
using ie::Plan;
using ie::Program;
using ie::Refusal;
using ie::require;

bool runs_on_cpu(const Program& program) {
  return program.header.target == uint32_t(ie::Target::kCpu) &&
         program.header.dtype != uint32_t(ie::Dtype::kFloat16);
}

bool runs_on_gpu(const Program& program) { return program.header.target == uint32_t(ie::Target::kCuda); }

std::string output_name(const Program& program, const ie::OutputRecord& output) {
  return program.strings.substr(output.name, output.name_bytes);
}

// A plan's name or a file's path, where it must not end the line.
std::string one_line(std::string text) {
  const auto control = [](unsigned char sign) { return sign < 0x20 || sign == 0x7F; };
  std::replace_if(text.begin(), text.end(), control, '?');
  return text;
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
  const std::vector<Program>& all = engine->plan->programs;
  const auto is_float32 = [](const Program& p) { return p.header.dtype == uint32_t(ie::Dtype::kFloat32); };
  // A caller who has both is not to get now one and now the other by the batch.
  const bool float32 =
      std::any_of(all.begin(), all.end(), [&](const Program& p) { return runs_on_cpu(p) && is_float32(p); });
  engine->programs = select(*engine->plan, [&](const Program& p) {
    return emulate || (runs_on_cpu(p) && is_float32(p) == float32);
  });
  if (!engine->programs.empty()) return;
  std::string message = "the plan has no program for this machine's CPU";
  if (!engine->note.empty()) message += ", and those for a GPU cannot run: " + engine->note;
  throw Refusal{IE_ERROR_NO_PROGRAM, message};
}

ie::Log log_of(const ie_engine_options& options) { return {options.log, options.log_user}; }

ie::Allocator allocator_of(const ie_engine_options& options) {
  require((options.allocate == nullptr) == (options.release == nullptr),
          "of allocate and release there are both or none");
  return {options.allocate, options.release, options.allocate_user};
}

// One line on what was loaded.
std::string summary(const ie_engine& engine) {
  const bool gpu = engine.gpu != nullptr;
  return "loaded " + (engine.description.name.empty() ? "a network" : one_line(engine.description.name)) +
         ": " + std::to_string(engine.programs.size()) + " of " +
         std::to_string(engine.plan->programs.size()) + " programs, batches 1 to " +
         std::to_string(engine.programs.back()->header.max_batch) + ", " +
         std::to_string(engine.plan->weight_bytes) + " bytes of weights, on " +
         (gpu ? "GPU " + std::to_string(engine.gpu->ordinal()) : "the CPU");
}

std::unique_ptr<ie_engine> make_engine(ie::Image image, const ie_engine_options& options) {
  if (options.device > IE_DEVICE_CUDA) throw Refusal{IE_ERROR_DEVICE, "unknown device"};
  require(options.specialise <= IE_SPECIALISE_ALWAYS, "unknown value of specialise");
  const bool emulate = options.emulate != 0;
  require(!emulate || options.device != IE_DEVICE_CUDA, "emulation is the CPU's; the device is CUDA");
  auto engine = std::make_unique<ie_engine>();
  engine->allocator = allocator_of(options);
  engine->log = log_of(options);
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
      engine->note = one_line(refusal.message);
      engine->log(IE_LOG_WARNING, "the plan has programs for a GPU, but runs on the CPU: " + engine->note);
    }
  }
  if (engine->gpu == nullptr) {
    use_cpu(engine.get(), emulate);
    engine->weights = std::make_shared<ie::cpu::Weights>(engine->programs, engine->plan->weights,
                                                         engine->plan->weight_bytes, engine->allocator);
  }
  const Program& first = *engine->programs.front();
  for (const ie::OutputRecord& output : first.outputs) {
    if (uint64_t{output.height} * output.width > kMaxNumbers / output.channels) {
      throw Refusal{IE_PLAN_LIMIT, "an output of more than 2^31 numbers"};
    }
    engine->output_names.push_back(output_name(first, output));
  }
  engine->description = ie::read_description(engine->plan->metadata, first.header.input_channels,
                                             first.header.output_count == 0 ? 0 : first.outputs[0].channels);
  if (engine->log.function != nullptr) engine->log(IE_LOG_INFO, summary(*engine));
  return engine;
}

// The engine from what `read` reads, which takes the allocator.
template <typename Read>
ie_status load(const ie_engine_options* options, ie_engine** engine, char* message, Read read) {
  ie::Log log;
  return guarded(message, log, [&] {
    const ie_engine_options chosen = filled(options);
    log = log_of(chosen);
    *engine = make_engine(read(allocator_of(chosen)), chosen).release();
  });
}

const ie::Log kNoLog;

}  // namespace

ie_status ie_engine_load(const char* path, const ie_engine_options* options, ie_engine** engine,
                         char* message) {
  if (engine != nullptr) *engine = nullptr;
  if (path == nullptr || engine == nullptr) {
    return ie::fail(message, kNoLog, IE_ERROR_ARGUMENT, "ie_engine_load: path or engine is NULL");
  }
  return load(options, engine, message,
              [&](const ie::Allocator& allocator) { return ie::read_file(path, allocator); });
}

ie_status ie_engine_load_memory(const void* data, size_t bytes, const ie_engine_options* options,
                                ie_engine** engine, char* message) {
  if (engine != nullptr) *engine = nullptr;
  if (data == nullptr || engine == nullptr) {
    return ie::fail(message, kNoLog, IE_ERROR_ARGUMENT, "ie_engine_load_memory: data or engine is NULL");
  }
  return load(options, engine, message,
              [&](const ie::Allocator& allocator) { return ie::copy_memory(data, bytes, allocator); });
}

ie_status ie_plan_check(const void* data, size_t bytes, char* message) {
  return guarded(message, kNoLog, [&] {
    require(data != nullptr, "ie_plan_check: data is NULL");
    ie::load_plan(ie::copy_memory(data, bytes, {}));
  });
}

void ie_engine_free(ie_engine* engine) { delete engine; }

const char* ie_engine_note(const ie_engine* engine) { return engine == nullptr ? "" : engine->note.c_str(); }

ie_status ie_engine_describe(const ie_engine* engine, ie_engine_info* info) {
  if (engine == nullptr || info == nullptr) return IE_ERROR_ARGUMENT;
  return guarded(nullptr, engine->log, [&] {
    const ie::ProgramHeader& header = engine->programs.front()->header;
    ie_engine_info known{};
    known.device = engine->gpu == nullptr ? IE_DEVICE_CPU : IE_DEVICE_CUDA;
    known.max_batch = engine->programs.back()->header.max_batch;
    known.channels = header.input_channels;
    known.height = header.input_height;
    known.width = header.input_width;
    known.outputs = header.output_count;
    known.programs = static_cast<uint32_t>(engine->programs.size());
    for (const Program* program : engine->programs) {
      const uint64_t bytes = engine->gpu == nullptr ? ie::cpu::arena_bytes(*program, ie::cpu::best_isa())
                                                    : program->header.arena_bytes;
      known.arena_bytes = std::max(known.arena_bytes, bytes);
    }
    known.weight_bytes = engine->plan->weight_bytes;
    known.specialised = engine->gpu == nullptr ? 0 : engine->gpu->modules();
    if (header.output_count != 0) {
      const ie::OutputRecord& output = engine->programs.front()->outputs.front();
      known.classes = output.channels * output.height * output.width;
    }
    known.labels = static_cast<uint32_t>(engine->description.labels.begin.size());
    known.random_weights = engine->description.random_weights ? 1 : 0;
    known.name = engine->description.name.c_str();
    give(known, info);
  });
}

ie_status ie_engine_output(const ie_engine* engine, uint32_t index, ie_output_info* info) {
  if (engine == nullptr || info == nullptr) return IE_ERROR_ARGUMENT;
  return guarded(nullptr, engine->log, [&] {
    require(index < engine->output_names.size(), "ie_engine_output: no such output");
    const ie::OutputRecord& output = engine->programs.front()->outputs[index];
    ie_output_info known{};
    known.channels = output.channels;
    known.height = output.height;
    known.width = output.width;
    known.name = engine->output_names[index].c_str();
    give(known, info);
  });
}

ie_status ie_engine_preprocess(const ie_engine* engine, ie_preprocess_info* info) {
  if (engine == nullptr || info == nullptr) return IE_ERROR_ARGUMENT;
  return guarded(nullptr, engine->log, [&] {
    const ie::Description& description = engine->description;
    ie_preprocess_info known{};
    known.resize = description.resize;
    known.order = description.bgr ? IE_ORDER_BGR : IE_ORDER_RGB;
    known.channels = static_cast<uint32_t>(description.mean.size());
    known.mean = description.mean.data();
    known.std = description.std.data();
    give(known, info);
  });
}

const char* ie_engine_label(const ie_engine* engine, uint32_t index) {
  if (engine == nullptr || index >= engine->description.labels.begin.size()) return "";
  return engine->description.labels.text.c_str() + engine->description.labels.begin[index];
}

const char* ie_engine_metadata(const ie_engine* engine, size_t* bytes) {
  if (bytes != nullptr) *bytes = engine == nullptr ? 0 : engine->plan->metadata.size();
  return engine == nullptr ? "" : engine->plan->metadata.data();
}

ie_status ie_preprocess(const ie_engine* engine, const ie_picture* picture, uint8_t* pixels, char* message) {
  return guarded(message, engine == nullptr ? kNoLog : engine->log, [&] {
    require(engine != nullptr && picture != nullptr && pixels != nullptr,
            "ie_preprocess: engine, picture or pixels is NULL");
    const ie::ProgramHeader& header = engine->programs.front()->header;
    const ie::Description& description = engine->description;
    ie::preprocess(
        filled(picture),
        {header.input_channels, header.input_height, header.input_width, description.resize, description.bgr},
        engine->allocator, pixels);
  });
}
