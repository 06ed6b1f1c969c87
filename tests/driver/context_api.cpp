// Devices, contexts and memory.
#include <sys/mman.h>

#include <cstring>

#include "driver.h"

using namespace fake;

namespace {

bool is_device(CUdevice device) { return device >= 0 && size_t(device) < state.contexts.size(); }

Context* context_of(CUcontext handle) {
  for (Context& context : state.contexts) {
    if (reinterpret_cast<CUcontext>(&context) == handle) return &context;
  }
  return nullptr;
}

CUresult allocate(size_t bytes, bool pinned, uintptr_t* address) {
  if (bytes == 0) return violation(CUDA_ERROR_INVALID_VALUE, "allocation of 0 bytes");
  Allocation made{current.back(), bytes, std::vector<std::byte>(bytes, std::byte{0xFF}), pinned, -1, 0, {}};
  *address = reinterpret_cast<uintptr_t>(made.backing.data());
  if (!pinned) {  // addresses that nobody else has, and that cannot be followed
    void* reserved = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = reinterpret_cast<uintptr_t>(reserved);
  }
  state.memory.emplace(*address, std::move(made));
  return CUDA_SUCCESS;
}

CUresult release(uintptr_t address, bool pinned) {
  const CUresult done = flush();  // as the driver does
  const auto found = state.memory.find(address);
  if (found == state.memory.end() || found->second.pinned != pinned) {
    return violation(CUDA_ERROR_INVALID_VALUE, "free of what is not allocated");
  }
  if (!pinned) munmap(reinterpret_cast<void*>(address), found->second.bytes);
  state.memory.erase(found);
  return done;
}

// What a context that ends takes along.
void destroy(Context* context) {
  flush();
  const std::string held = leaks();
  size_t dropped = 0;
  const auto drop = [&](auto* table) {
    for (auto i = table->begin(); i != table->end();) {
      const bool gone = (*i)->context == context;
      dropped += gone;
      i = gone ? table->erase(i) : ++i;
    }
  };
  for (Module* module : state.modules) {
    if (module->context != context) continue;
    for (const auto& function : module->functions) state.functions.erase(function.get());
  }
  drop(&state.modules);
  drop(&state.streams);
  drop(&state.events);
  drop(&state.graphs);
  drop(&state.execs);
  for (auto i = state.memory.begin(); i != state.memory.end();) {
    const bool gone = i->second.context == context;
    dropped += gone;
    i = gone ? state.memory.erase(i) : ++i;
  }
  if (context->sticky == CUDA_SUCCESS && dropped != 0) {
    violation(CUDA_ERROR_CONTEXT_IS_DESTROYED, "a context is given up that holds " + held);
  }
  context->sticky = CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuInit(unsigned int flags) {
  return call(__func__, kAnywhere, [&](Line&) {
    if (flags != 0) return violation(CUDA_ERROR_INVALID_VALUE, "cuInit with flags");
    const int devices = setting("IE_DOUBLE_DEVICES", 1);
    if (!state.initialised) {
      for (int i = 0; i < devices; ++i) state.contexts.push_back({i, 0, CUDA_SUCCESS});
    }
    if (devices == 0) return CUDA_ERROR_NO_DEVICE;
    state.initialised = true;
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuDriverGetVersion(int* version) {
  return call(__func__, kAnywhere, [&](Line&) {
    *version = setting("IE_DOUBLE_VERSION", 12080);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuDeviceGetCount(int* count) {
  return call(__func__, kInitialised, [&](Line&) {
    *count = int(state.contexts.size());
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
  return call(__func__, kInitialised, [&](Line&) {
    if (!is_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return call(__func__, kInitialised, [&](Line& line) {
    line.add("attribute", attribute);
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    const std::map<int, int> known = {
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, setting("IE_DOUBLE_CAPABILITY", kCapability) / 10},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, setting("IE_DOUBLE_CAPABILITY", kCapability) % 10},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, setting("IE_DOUBLE_MULTIPROCESSORS", 4)},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, int(kDefaultShared)},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, int(kMostShared)},
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
        {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
        {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 0x7FFFFFFF},
    };
    const auto found = known.find(attribute);
    if (found == known.end())
      return violation(CUDA_ERROR_INVALID_VALUE, "an attribute that is not known here");
    *value = found->second;
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return call(__func__, kInitialised, [&](Line&) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    ++state.contexts[size_t(device)].retained;
    *context = reinterpret_cast<CUcontext>(&state.contexts[size_t(device)]);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice device) {
  return call(__func__, kInitialised | kRelease, [&](Line&) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    Context& context = state.contexts[size_t(device)];
    if (context.retained == 0)
      return violation(CUDA_ERROR_INVALID_CONTEXT, "release of a context nobody retains");
    if (--context.retained == 0) destroy(&context);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuCtxPushCurrent(CUcontext context) {
  return call(__func__, kInitialised, [&](Line&) {
    Context* pushed = context_of(context);
    if (pushed == nullptr || pushed->retained == 0)
      return violation(CUDA_ERROR_INVALID_CONTEXT, "push of no context");
    current.push_back(pushed);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuCtxPopCurrent(CUcontext* context) {
  return call(__func__, kInitialised | kRelease, [&](Line&) {
    if (current.empty()) return violation(CUDA_ERROR_INVALID_CONTEXT, "pop of an empty stack");
    if (context != nullptr) *context = reinterpret_cast<CUcontext>(current.back());
    current.pop_back();
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr* pointer, size_t bytes) {
  return call(__func__, kInContext | kUnsafe, [&](Line& line) {
    uintptr_t address = 0;
    const CUresult result = allocate(bytes, false, &address);
    if (result == CUDA_SUCCESS) *pointer = address;
    line.add("bytes", bytes).add("address", address);
    return result;
  });
}

CUresult CUDAAPI cuMemFree(CUdeviceptr pointer) {
  return call(__func__, kInContext | kUnsafe | kRelease, [&](Line& line) {
    line.add("address", pointer);
    return release(pointer, false);
  });
}

CUresult CUDAAPI cuMemAllocHost(void** pointer, size_t bytes) {
  return call(__func__, kInContext | kUnsafe, [&](Line& line) {
    uintptr_t address = 0;
    const CUresult result = allocate(bytes, true, &address);
    if (result == CUDA_SUCCESS) *pointer = reinterpret_cast<void*>(address);
    line.add("bytes", bytes).add("address", address);
    return result;
  });
}

CUresult CUDAAPI cuMemFreeHost(void* pointer) {
  return call(__func__, kInContext | kUnsafe | kRelease,
              [&](Line&) { return release(reinterpret_cast<uintptr_t>(pointer), true); });
}

CUresult CUDAAPI cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  return call(__func__, kInContext, [&](Line&) {
    const auto* found = find(pointer);
    if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;  // of the host, not of the driver
    const Allocation& allocation = found->second;
    unsigned value;
    switch (attribute) {
      case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        value = allocation.pinned ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        break;
      case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        value = unsigned(allocation.context->device);
        break;
      default:
        return violation(CUDA_ERROR_INVALID_VALUE, "an attribute that is not known here");
    }
    std::memcpy(data, &value, sizeof value);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuGetErrorName(CUresult error, const char** text) {
  switch (error) {
#define NAME(name) \
  case name:       \
    *text = #name; \
    return CUDA_SUCCESS;
    NAME(CUDA_SUCCESS)
    NAME(CUDA_ERROR_INVALID_VALUE)
    NAME(CUDA_ERROR_OUT_OF_MEMORY)
    NAME(CUDA_ERROR_NOT_INITIALIZED)
    NAME(CUDA_ERROR_DEVICE_UNAVAILABLE)
    NAME(CUDA_ERROR_NO_DEVICE)
    NAME(CUDA_ERROR_INVALID_DEVICE)
    NAME(CUDA_ERROR_INVALID_IMAGE)
    NAME(CUDA_ERROR_INVALID_CONTEXT)
    NAME(CUDA_ERROR_NO_BINARY_FOR_GPU)
    NAME(CUDA_ERROR_ECC_UNCORRECTABLE)
    NAME(CUDA_ERROR_INVALID_HANDLE)
    NAME(CUDA_ERROR_NOT_FOUND)
    NAME(CUDA_ERROR_ILLEGAL_ADDRESS)
    NAME(CUDA_ERROR_LAUNCH_TIMEOUT)
    NAME(CUDA_ERROR_LAUNCH_FAILED)
    NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    NAME(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
    NAME(CUDA_ERROR_UNKNOWN)
#undef NAME
    default:
      *text = nullptr;
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult CUDAAPI cuGetErrorString(CUresult error, const char** text) {
  const CUresult known = cuGetErrorName(error, text);
  if (known == CUDA_SUCCESS) *text = "what the driver's documentation says of this error";
  return known;
}
}
