// Fuzz target: any bytes are a plan or are refused with one line, in bounded memory and time.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "include/inception_engine.h"
#include "measured.h"
#include "mutator.h"

namespace {

using hardening::finding;
using hardening::measured;

unsigned long long executions, accepted;

void summary() {
  const hardening::Most most = hardening::most_seen();
  std::fprintf(stderr, "loader: %llu executions, %llu accepted; most: input * %zu %+lld bytes, %.4f s\n",
               executions, accepted, hardening::kBytesPerInputByte, most.excess_bytes, most.seconds);
}

// A status that exists, and one line exactly where it is a refusal.
void judge(ie_status status, const char* message) {
  const size_t length = strnlen(message, IE_MESSAGE_BYTES);
  if (length == IE_MESSAGE_BYTES) finding("a message that does not end");
  if ((status == IE_OK) != (length == 0))
    finding("a refusal without a message, or a message without a refusal");
  if (status != IE_OK && (status < IE_PLAN_TRUNCATED || status > IE_PLAN_METADATA) &&
      status != IE_ERROR_NO_PROGRAM) {
    finding("a status that a loader does not have");
  }
  for (const char* c = message; *c != '\0'; ++c) {
    if (*c < ' ' || *c > '~') finding("a message that is no line of ASCII");
  }
}

ie_status load(const void* data, size_t bytes, bool from_file) {
  char message[IE_MESSAGE_BYTES];
  std::memset(message, 'x', sizeof message);
  ie_engine* engine = nullptr;
  ie_engine_options options{};
  options.struct_size = sizeof options;
  options.device = IE_DEVICE_CPU;
  options.emulate = 1;
  ie_status status = IE_OK;
  if (from_file) {
    static const int file = memfd_create("plan", 0);
    static char path[64];
    std::snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (ftruncate(file, 0) != 0 || pwrite(file, data, bytes, 0) != ssize_t(bytes))
      finding("no memory for a file");
    status = ie_engine_load(path, &options, &engine, message);
  } else {
    status = ie_engine_load_memory(data, bytes, &options, &engine, message);
  }
  judge(status, message);
  if ((status == IE_OK) != (engine != nullptr)) finding("an engine without IE_OK, or the other way round");
  ie_engine_free(engine);
  return status;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  if (executions++ == 0) std::atexit(summary);
  ie_status checked = IE_OK;
  measured(bytes, [&] {
    char message[IE_MESSAGE_BYTES];
    std::memset(message, 'x', sizeof message);
    checked = ie_plan_check(data == nullptr ? reinterpret_cast<const uint8_t*>("") : data, bytes, message);
    judge(checked, message);
  });
  const bool from_file = bytes % 64 == 0 && bytes > 0 && data[bytes - 1] % 8 == 0;
  if (checked != IE_OK && !from_file) return 0;
  if (checked == IE_OK) ++accepted;
  ie_status loaded = IE_OK;
  measured(bytes, [&] { loaded = load(data, bytes, from_file); });
  // Programs that differ in their interface are each right, and no engine; only an engine reads the description, and
  // counts an output's numbers.
  const bool apart = loaded == IE_PLAN_GEOMETRY || loaded == IE_PLAN_METADATA || loaded == IE_PLAN_LIMIT;
  if (loaded != checked && !(checked == IE_OK && apart)) {
    finding("ie_plan_check and loading do not agree");
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t bytes, size_t most, unsigned seed) {
  return hardening::mutate(data, bytes, most, seed, false);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* one, size_t one_bytes, const uint8_t* two,
                                            size_t two_bytes, uint8_t* out, size_t most, unsigned seed) {
  return hardening::cross(one, one_bytes, two, two_bytes, out, most, seed);
}
