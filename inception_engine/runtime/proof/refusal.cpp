#include "refusal.h"

#include <algorithm>
#include <utility>

#include "fields.h"

namespace ie::proof {

void refuse(ie_status status, std::string message) { throw Refusal{status, std::move(message)}; }

void refuse_op(const Program& p, uint32_t op, ie_status status, const char* message) {
  const OpRecord& record = p.ops[op];
  std::string name = in_strings(p, record.name, record.name_bytes)
                         ? p.strings.substr(record.name, std::min(record.name_bytes, 64u))
                         : "";
  // The name comes from the file and goes to somebody's terminal or log.
  std::replace_if(name.begin(), name.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  refuse(status, "op " + std::to_string(op) + " (" + name + "): " + message);
}

void refuse_task(uint64_t task, ie_status status, const char* message) {
  refuse(status, "task " + std::to_string(task) + ": " + message);
}

}  // namespace ie::proof
