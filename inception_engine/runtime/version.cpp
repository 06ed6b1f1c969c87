// The C API: versions, the machine, and the names of statuses.
#include "cpu/isa.h"
#include "include/inception_engine.h"

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
    IE_NAME(IE_PLAN_METADATA)
#undef IE_NAME
  }
  return "unknown status";
}
