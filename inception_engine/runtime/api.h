// What the files of the C API share: its two objects, and how arguments are checked and nothing is thrown across it.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cpu/executor.h"
#include "cuda/executor.h"
#include "include/inception_engine.h"
#include "memory.h"
#include "metadata.h"
#include "plan.h"

namespace ie {

// The caller's log, or none.
struct Log {
  ie_log_function function = nullptr;
  void* user = nullptr;

  void operator()(ie_log_level level, const std::string& line) const {
    if (function != nullptr) function(user, level, line.c_str());
  }
};

}  // namespace ie

// Immutable once made; contexts share what they need of it.
struct ie_engine {
  std::shared_ptr<const ie::Plan> plan;
  std::vector<const ie::Program*> programs;     // that the device runs, by maximum batch
  std::vector<std::string> output_names;        // of the first of them; all have the same outputs
  std::shared_ptr<const ie::cuda::Device> gpu;  // null: the CPU
  std::shared_ptr<ie::cpu::Weights> weights;    // of the CPU's programs; null: a GPU
  std::string note;
  ie::Description description;
  ie::Allocator allocator;
  ie::Log log;
};

struct ie_context {
  std::shared_ptr<const ie::Plan> plan;
  std::vector<const ie::Program*> programs;
  std::unique_ptr<ie::cpu::Executor> cpu;  // one of the two
  std::unique_ptr<ie::cuda::Executor> gpu;
  ie::Log log;
  char message[IE_MESSAGE_BYTES] = "";
};

namespace ie {

// Makes one line of a text, whatever a path in it holds.
inline void make_line(char* text) {
  const auto control = [](unsigned char sign) { return sign < 0x20 || sign == 0x7F; };
  std::replace_if(text, text + std::strlen(text), control, '?');
}

inline void say(char* message, const char* text) {
  if (message == nullptr) return;
  std::snprintf(message, IE_MESSAGE_BYTES, "%s", text);
  make_line(message);
}

// Writes why a call failed, to whom it may concern.
inline ie_status fail(char* message, const Log& log, ie_status status, const char* text) {
  say(message, text);
  if (log.function != nullptr) {
    char line[IE_MESSAGE_BYTES];
    std::snprintf(line, sizeof line, "%s: %s", ie_status_name(status), text);
    make_line(line);
    log.function(log.user, IE_LOG_ERROR, line);
  }
  return status;
}

// Runs `body`, which throws Refusal or what the standard library throws, and returns a status.
template <typename Body>
ie_status guarded(char* message, const Log& log, Body body) {
  try {
    say(message, "");
    body();
    return IE_OK;
  } catch (const Refusal& refusal) {
    return fail(message, log, refusal.status, refusal.message.c_str());
  } catch (const std::exception&) {  // of the standard library; it throws only for lack of memory here
    return fail(message, log, IE_ERROR_MEMORY, "out of memory");
  }
}

inline void require(bool holds, const char* message) {
  if (!holds) throw Refusal{IE_ERROR_ARGUMENT, message};
}

// A structure that a caller filled, as far as its size says; zeros where it is shorter than ours. What it has beyond
// ours must be zero: a newer header's field that this library cannot honour.
template <typename Given>
Given filled(const Given* given) {
  Given structure{};
  if (given == nullptr) return structure;
  constexpr uint32_t kMaxSize = 4096;  // beyond it the size was never set
  require(given->struct_size >= sizeof(uint32_t) && given->struct_size <= kMaxSize,
          "a structure without its struct_size");
  const size_t known = std::min<size_t>(given->struct_size, sizeof structure);
  std::memcpy(&structure, given, known);
  const char* bytes = reinterpret_cast<const char*>(given);
  require(std::all_of(bytes + known, bytes + given->struct_size, [](char byte) { return byte == 0; }),
          "a structure has a field that this version of the library does not know");
  return structure;
}

// Copies as much of `info` as the caller's structure holds.
template <typename Info>
void give(const Info& info, Info* to) {
  require(to->struct_size >= sizeof(uint32_t), "a structure without its struct_size");
  const uint32_t size = std::min<uint32_t>(to->struct_size, sizeof info);
  std::memcpy(reinterpret_cast<char*>(to) + sizeof(uint32_t),
              reinterpret_cast<const char*>(&info) + sizeof(uint32_t), size - sizeof(uint32_t));
}

}  // namespace ie
