// How a rule refuses a program: with a status, and a message that says where it is broken.
#pragma once

#include <cstdint>
#include <string>

#include "../plan.h"

namespace ie::proof {

[[noreturn]] void refuse(ie_status status, std::string message);
[[noreturn]] void refuse_op(const Program& p, uint32_t op, ie_status status, const char* message);
[[noreturn]] void refuse_task(uint64_t task, ie_status status, const char* message);

inline void require(bool holds, ie_status status, const char* message) {
  if (!holds) refuse(status, message);
}

inline void require_op(bool holds, const Program& p, uint32_t op, ie_status status, const char* message) {
  if (!holds) refuse_op(p, op, status, message);
}

inline void require_task(bool holds, uint64_t task, ie_status status, const char* message) {
  if (!holds) refuse_task(task, status, message);
}

}  // namespace ie::proof
