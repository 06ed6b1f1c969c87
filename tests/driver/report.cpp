// What every call goes through: the script of failures, the rules that all functions share, and the log.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "driver.h"

namespace fake {

State state;
thread_local std::vector<Context*> current;

namespace {

std::recursive_mutex mutex;

struct Script {
  std::map<std::string, std::map<uint64_t, int>> failures;
  std::map<std::string, uint64_t> counts;

  void read(const char* text) {
    failures.clear();
    counts.clear();
    std::string rest = text == nullptr ? "" : text;
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      const std::string one = rest.substr(0, comma);
      char name[64];
      unsigned long number;
      int code;
      if (std::sscanf(one.c_str(), "%63[^:]:%lu=%d", name, &number, &code) != 3) std::abort();
      failures[name][number] = code;
      rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    }
  }
  int failure(const std::string& name) {
    const uint64_t all = ++counts["*"], own = ++counts[name];
    const auto code = [this](const std::string& key, uint64_t number) {
      const auto found = failures.find(key);
      return found != failures.end() && found->second.count(number) != 0 ? found->second[number] : 0;
    };
    const int general = code("*", all);
    return general != 0 ? general : code(name, own);
  }
};

Script script;
uint64_t violations = 0;
std::FILE* log_file = nullptr;

bool is_sticky(CUresult result) {
  switch (result) {
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
      return true;
    default:
      return false;
  }
}

CUresult checked(const char* name, unsigned rules) {
  if ((rules & kInitialised) != 0 && !state.initialised) {
    return violation(CUDA_ERROR_NOT_INITIALIZED, std::string(name) + " before cuInit");
  }
  if ((rules & kInContext) == kInContext) {
    if (current.empty() || current.back() == nullptr) {
      return violation(CUDA_ERROR_INVALID_CONTEXT, std::string(name) + " without a current context");
    }
    if (current.back()->retained == 0) {
      return violation(CUDA_ERROR_CONTEXT_IS_DESTROYED, std::string(name) + " in a destroyed context");
    }
    if (current.back()->sticky != CUDA_SUCCESS) return current.back()->sticky;
  }
  if ((rules & kUnsafe) != 0 && capturing_unsafe()) {
    return violation(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, std::string(name) + " during a capture");
  }
  return CUDA_SUCCESS;
}

struct AtExit {
  AtExit() {
    script.read(std::getenv("IE_DOUBLE_FAIL"));
    const char* path = std::getenv("IE_DOUBLE_LOG");
    if (path != nullptr) log_file = std::fopen(path, "a");
  }
  ~AtExit() {
    Line("exit", leaks()).add("violations", violations).write();
    if (log_file != nullptr) std::fclose(log_file);
    log_file = nullptr;
  }
} at_exit;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

int setting(const char* name, int fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::atoi(text);
}

Line::Line(const char* kind, const std::string& name) {
  json_ = "{\"" + std::string(kind) + "\": \"" + escaped(name) + "\"";
}
Line& Line::add(const char* name, uint64_t value) {
  json_ += ", \"" + std::string(name) + "\": " + std::to_string(value);
  return *this;
}
Line& Line::text(const char* name, const std::string& value) {
  json_ += ", \"" + std::string(name) + "\": \"" + escaped(value) + "\"";
  return *this;
}
Line& Line::list(const char* name, const std::vector<uint64_t>& values) {
  json_ += ", \"" + std::string(name) + "\": [";
  for (size_t i = 0; i < values.size(); ++i) json_ += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  json_ += "]";
  return *this;
}
void Line::write() {
  if (log_file == nullptr) return;
  std::fprintf(log_file, "%s}\n", json_.c_str());
  std::fflush(log_file);
}

CUresult violation(CUresult result, const std::string& what) {
  ++violations;
  Line("violation", what).add("result", result).write();
  return result;
}

CUresult call(const char* name, unsigned rules, const std::function<CUresult(Line&)>& body) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  Line line("call", name);
  const auto told = static_cast<CUresult>(script.failure(name));
  CUresult result = checked(name, rules);
  if (result == CUDA_SUCCESS && (told == CUDA_SUCCESS || (rules & kRelease) != 0)) result = body(line);
  if (told != CUDA_SUCCESS) {
    result = told;
    line.add("scripted", 1);
  }
  if (is_sticky(result) && !current.empty()) current.back()->sticky = result;
  line.add("result", result);
  line.write();
  return result;
}

std::string leaks() {
  uint64_t device = 0, pinned = 0, retained = 0;
  for (const auto& [address, allocation] : state.memory) (allocation.pinned ? pinned : device) += 1;
  for (const Context& context : state.contexts) retained += uint64_t(context.retained);
  std::string text;
  const auto count = [&text](const char* name, uint64_t number) {
    if (number != 0)
      text += std::string(text.empty() ? "" : ", ") + '"' + name + "\": " + std::to_string(number);
  };
  count("device", device);
  count("pinned", pinned);
  count("modules", state.modules.size());
  count("streams", state.streams.size());
  count("events", state.events.size());
  count("graphs", state.graphs.size());
  count("execs", state.execs.size());
  count("retained", retained);
  return "{" + text + "}";
}

}  // namespace fake

using namespace fake;

extern "C" {

void double_script(const char* failures) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  script.read(failures);
}

uint64_t double_calls(void) { return script.counts["*"]; }

uint64_t double_violations(void) { return violations; }

int double_read(uint64_t address, void* to, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  flush();
  auto* found = find(address, bytes);
  if (found == nullptr || found->second.pinned) return 1;
  std::memcpy(to, found->second.backing.data() + (address - found->first), bytes);
  return 0;
}

int double_write(uint64_t address, const void* from, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  flush();
  auto* found = find(address, bytes);
  if (found == nullptr || found->second.pinned) return 1;
  std::memcpy(found->second.backing.data() + (address - found->first), from, bytes);
  return 0;
}

void double_leaks(char* text, size_t bytes) { std::snprintf(text, bytes, "%s", leaks().c_str()); }

uint64_t double_current(void) { return current.empty() ? 0 : reinterpret_cast<uint64_t>(current.back()); }

uint64_t double_depth(void) { return current.size(); }

void double_reset(void) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  forget_work();
  const bool initialised = state.initialised;
  std::vector<Context> contexts;
  contexts.swap(state.contexts);  // handles stay what they were
  for (Context& context : contexts) context = {context.device, 0, CUDA_SUCCESS};
  state = State();
  state.initialised = initialised;
  state.contexts.swap(contexts);
  current.clear();
}
}
