// Fuzz target: what the loader accepts, the engine runs without harm, and to the same bits whatever the threads and
// whatever the memory held before.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "hash.h"
#include "include/inception_engine.h"
#include "measured.h"
#include "mutator.h"
#include "plan_parts.h"

namespace {

using hardening::finding;

constexpr uint64_t kMostArena = 1 << 20;  // bytes
constexpr double kMostWork = 1 << 20;     // multiply-adds

unsigned long long executions, loaded, ran;

void summary() {
  std::fprintf(stderr, "run: %llu executions, %llu accepted, %llu run\n", executions, loaded, ran);
}

using Outputs = std::vector<std::unique_ptr<float[]>>;  // as long as they must be, so that ASan sees one more

struct Case {
  uint32_t threads, isa, poison, batch, format;
};

Outputs run(ie_engine* engine, const Case& chosen) {
  ie_engine_info info{};
  info.struct_size = sizeof info;
  if (ie_engine_describe(engine, &info) != IE_OK) finding("an engine that cannot be described");
  ie_context_options options{};
  options.struct_size = sizeof options;
  options.threads = chosen.threads;
  options.isa = chosen.isa;
  options.poison = chosen.poison;
  options.timeout_ms = 20'000;
  char message[IE_MESSAGE_BYTES];
  ie_context* context = nullptr;
  if (ie_context_create(engine, &options, &context, message) != IE_OK) finding(message);

  const uint32_t element = chosen.format == IE_UINT8_NHWC ? 1 : 4;
  const size_t values = size_t{chosen.batch} * info.channels * info.height * info.width;
  const auto image = std::make_unique<uint8_t[]>(values * element);
  for (size_t i = 0; i < values; ++i) {
    const float value = 0.25f * float(int(i * 7 % 23) - 11);
    if (element == 1) image[i] = uint8_t(i * 37);
    if (element == 4) std::memcpy(image.get() + 4 * i, &value, 4);
  }
  ie_input input{};
  input.struct_size = sizeof input;
  input.format = chosen.format;
  input.batch = chosen.batch;
  input.data = image.get();
  Outputs results;
  std::vector<ie_output> outputs;
  for (uint32_t i = 0; i < info.outputs; ++i) {
    ie_output_info shape{};
    shape.struct_size = sizeof shape;
    if (ie_engine_output(engine, i, &shape) != IE_OK || std::strlen(shape.name) > (1u << 24))
      finding("no output");
    results.push_back(
        std::make_unique<float[]>(size_t{chosen.batch} * shape.channels * shape.height * shape.width));
    ie_output output{};
    output.struct_size = sizeof output;
    output.index = i;
    output.data = results.back().get();
    outputs.push_back(output);
  }
  for (int time = 0; time < 2; ++time) {
    if (ie_run(context, &input, outputs.data(), info.outputs) != IE_OK) finding(ie_context_message(context));
  }
  ie_context_free(context);
  ++ran;
  return results;
}

// What an engine says of its network, whatever the plan's text made of it; and a picture, if that is little work.
void describe(const ie_engine* engine, const ie_engine_info& info) {
  size_t bytes = 0;
  const char* metadata = ie_engine_metadata(engine, &bytes);
  const std::vector<char> copy(metadata, metadata + bytes);
  if (std::strlen(info.name) > bytes) finding("a name longer than the text");
  for (uint32_t i = 0; i <= info.labels; ++i) {
    if (std::strlen(ie_engine_label(engine, i)) > bytes) finding("a label longer than the text");
  }
  ie_preprocess_info how{};
  how.struct_size = sizeof how;
  if (ie_engine_preprocess(engine, &how) != IE_OK || how.channels == 0) finding("no preprocessing");
  for (uint32_t i = 0; i < how.channels; ++i) {
    if (!std::isfinite(how.mean[i]) || !std::isfinite(how.std[i])) finding("a mean that is not finite");
  }
  const uint64_t values = uint64_t{info.channels} * info.height * info.width;
  if (how.resize > 64 || values > 4096) return;
  const uint8_t decoded[5 * 7 * 4] = {1, 2, 3, 200};
  const ie_picture picture = {sizeof picture, 5, 7, uint32_t(bytes % 4 + 1), uint32_t(bytes % 9), decoded, 0};
  const auto pixels = std::make_unique<uint8_t[]>(values);
  const ie_status status = ie_preprocess(engine, &picture, pixels.get(), nullptr);
  if (status != IE_OK && status != IE_ERROR_ARGUMENT) finding("a picture that is not prepared");
}

void compare(ie_engine* engine, uint32_t batch, const Outputs& one, const Outputs& two) {
  for (uint32_t i = 0; i < one.size(); ++i) {
    ie_output_info shape{};
    shape.struct_size = sizeof shape;
    ie_engine_output(engine, i, &shape);
    const size_t values = size_t{batch} * shape.channels * shape.height * shape.width;
    for (size_t j = 0; j < values; ++j) {
      const float a = one[i][j], b = two[i][j];
      if (std::memcmp(&a, &b, sizeof a) != 0 && !(std::isnan(a) && std::isnan(b))) finding("two runs differ");
    }
  }
}

bool small(const uint8_t* data, size_t bytes) {
  const auto plan = hardening::take_apart(data, bytes);
  if (!plan) finding("accepted, and cannot be taken apart");
  double work = 0;
  for (const hardening::SectionParts& section : plan->sections) {
    if (!section.program) continue;
    work += hardening::work(*section.program);
    for (const ie::OpRecord& op : section.program->ops) {  // the memory of a worker
      if (op.lrn_size > 4096 || op.kernel_h * op.kernel_w > 1 << 16) return false;
    }
  }
  return work <= kMostWork;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  if (executions++ == 0) std::atexit(summary);
  if (bytes == 0) return 0;
  ie_engine_options how{};
  how.struct_size = sizeof how;
  how.device = IE_DEVICE_CPU;
  how.emulate = 1;
  ie_engine* engine = nullptr;
  if (ie_engine_load_memory(data, bytes, &how, &engine, nullptr) != IE_OK) return 0;
  ++loaded;
  ie_engine_info info{};
  info.struct_size = sizeof info;
  ie_engine_describe(engine, &info);
  describe(engine, info);
  if (info.arena_bytes <= kMostArena && small(data, bytes)) {
    const uint64_t choice = ie::xxh64(reinterpret_cast<const std::byte*>(data), bytes);
    Case chosen{};
    chosen.threads = choice % 4 == 0 ? 3 : 1;
    chosen.isa = uint32_t(choice / 4 % ie_cpu_isa()) + 1;
    chosen.batch = uint32_t(choice / 64 % info.max_batch) + 1;
    chosen.format = choice / 32 % 2 == 0 ? IE_FLOAT32_NCHW : IE_UINT8_NHWC;
    chosen.poison = 1;
    Case other = chosen;
    other.threads = 1;
    other.poison = 0;
    compare(engine, chosen.batch, run(engine, chosen), run(engine, other));
  }
  ie_engine_free(engine);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t bytes, size_t most, unsigned seed) {
  return hardening::mutate(data, bytes, most, seed, true);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* one, size_t one_bytes, const uint8_t* two,
                                            size_t two_bytes, uint8_t* out, size_t most, unsigned seed) {
  return hardening::cross(one, one_bytes, two, two_bytes, out, most, seed);
}
