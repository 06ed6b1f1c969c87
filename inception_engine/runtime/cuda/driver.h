// The part of the CUDA driver's interface that the executor calls, declared here because machines that run plans
// have no cuda.h. Names and values are those of CUDA 12's header. libcuda.so.1 is found when a GPU is first asked
// for, so that the same library works where there is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <utility>

#include "../plan.h"

namespace ie::cuda {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphExec = struct CUgraphExec_st*;

enum : CUresult { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1 };
enum : int {
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
  CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
  CU_POINTER_ATTRIBUTE_MEMORY_TYPE = 2,
  CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9,
  CU_STREAM_CAPTURE_STATUS_NONE = 0,
  CU_STREAM_CAPTURE_MODE_RELAXED = 2,
  CU_TENSOR_MAP_INTERLEAVE_NONE = 0,
  CU_TENSOR_MAP_L2_PROMOTION_L2_128B = 2,
  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0
};
enum : unsigned {
  CU_STREAM_NON_BLOCKING = 1,
  CU_EVENT_DISABLE_TIMING = 2,
  CU_MEMORYTYPE_DEVICE = 2,
  CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6
};

struct alignas(64) CUtensorMap {
  uint64_t opaque[16];
};

struct CUlaunchAttribute {
  unsigned id;
  char pad[4];
  union {
    char bytes[64];
    int programmaticStreamSerializationAllowed;
  } value;
};

struct CUlaunchConfig {
  unsigned gridDimX, gridDimY, gridDimZ;
  unsigned blockDimX, blockDimY, blockDimZ;
  unsigned sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute* attrs;
  unsigned numAttrs;
};

static_assert(sizeof(CUlaunchAttribute) == 72 && sizeof(CUlaunchConfig) == 56 && sizeof(CUtensorMap) == 128);

// Member, symbol of the library, parameters.
#define IE_CUDA_FUNCTIONS(X)                                                                              \
  X(cuInit, cuInit, (unsigned flags))                                                                     \
  X(cuDriverGetVersion, cuDriverGetVersion, (int* version))                                               \
  X(cuDeviceGetCount, cuDeviceGetCount, (int* count))                                                     \
  X(cuDeviceGet, cuDeviceGet, (CUdevice * device, int ordinal))                                           \
  X(cuDeviceGetAttribute, cuDeviceGetAttribute, (int* value, int attribute, CUdevice device))             \
  X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))           \
  X(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice device))                           \
  X(cuCtxPushCurrent, cuCtxPushCurrent_v2, (CUcontext context))                                           \
  X(cuCtxPopCurrent, cuCtxPopCurrent_v2, (CUcontext * context))                                           \
  X(cuMemAlloc, cuMemAlloc_v2, (CUdeviceptr * memory, size_t bytes))                                      \
  X(cuMemFree, cuMemFree_v2, (CUdeviceptr memory))                                                        \
  X(cuMemAllocHost, cuMemAllocHost_v2, (void** memory, size_t bytes))                                     \
  X(cuMemFreeHost, cuMemFreeHost, (void* memory))                                                         \
  X(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void* from, size_t bytes, CUstream))  \
  X(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, (void* to, CUdeviceptr from, size_t bytes, CUstream))        \
  X(cuMemsetD32Async, cuMemsetD32Async, (CUdeviceptr memory, unsigned value, size_t words, CUstream))     \
  X(cuModuleLoadDataEx, cuModuleLoadDataEx,                                                               \
    (CUmodule * module, const void* image, unsigned count, int* options, void** values))                  \
  X(cuModuleUnload, cuModuleUnload, (CUmodule module))                                                    \
  X(cuModuleGetFunction, cuModuleGetFunction, (CUfunction * function, CUmodule module, const char* name)) \
  X(cuFuncSetAttribute, cuFuncSetAttribute, (CUfunction function, int attribute, int value))              \
  X(cuOccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessor,             \
    (int* blocks, CUfunction function, int threads, size_t shared))                                       \
  X(cuLaunchKernelEx, cuLaunchKernelEx,                                                                   \
    (const CUlaunchConfig* config, CUfunction function, void** parameters, void** extra))                 \
  X(cuStreamCreate, cuStreamCreate, (CUstream * stream, unsigned flags))                                  \
  X(cuStreamDestroy, cuStreamDestroy_v2, (CUstream stream))                                               \
  X(cuStreamSynchronize, cuStreamSynchronize, (CUstream stream))                                          \
  X(cuStreamIsCapturing, cuStreamIsCapturing, (CUstream stream, int* status))                             \
  X(cuStreamBeginCapture, cuStreamBeginCapture_v2, (CUstream stream, int mode))                           \
  X(cuStreamEndCapture, cuStreamEndCapture, (CUstream stream, CUgraph * graph))                           \
  X(cuStreamWaitEvent, cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))               \
  X(cuGraphInstantiate, cuGraphInstantiateWithFlags,                                                      \
    (CUgraphExec * executable, CUgraph graph, unsigned long long flags))                                  \
  X(cuGraphLaunch, cuGraphLaunch, (CUgraphExec executable, CUstream stream))                              \
  X(cuGraphExecDestroy, cuGraphExecDestroy, (CUgraphExec executable))                                     \
  X(cuGraphDestroy, cuGraphDestroy, (CUgraph graph))                                                      \
  X(cuEventCreate, cuEventCreate, (CUevent * event, unsigned flags))                                      \
  X(cuEventRecord, cuEventRecord, (CUevent event, CUstream stream))                                       \
  X(cuEventSynchronize, cuEventSynchronize, (CUevent event))                                              \
  X(cuEventDestroy, cuEventDestroy_v2, (CUevent event))                                                   \
  X(cuTensorMapEncodeTiled, cuTensorMapEncodeTiled,                                                       \
    (CUtensorMap * map, int type, unsigned rank, void* address, const uint64_t* sizes,                    \
     const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides, int interleave,       \
     int swizzle, int promotion, int fill))                                                               \
  X(cuPointerGetAttribute, cuPointerGetAttribute, (void* value, int attribute, CUdeviceptr pointer))      \
  X(cuGetErrorName, cuGetErrorName, (CUresult result, const char** name))                                 \
  X(cuGetErrorString, cuGetErrorString, (CUresult result, const char** text))

struct Driver {
  int version = 0;  // 12030 for CUDA 12.3
#define IE_CUDA_MEMBER(member, symbol, parameters) CUresult(*member) parameters = nullptr;
  IE_CUDA_FUNCTIONS(IE_CUDA_MEMBER)
#undef IE_CUDA_MEMBER
};

// The driver, loaded and initialised once per process. Throws Refusal: IE_ERROR_NO_DRIVER, IE_ERROR_DRIVER or
// IE_ERROR_DEVICE; the next call then tries again.
const Driver& driver();

// Throws the Refusal that fits a result other than success. `doing`: what was tried, as in "copying the weights".
void check(CUresult result, const char* doing);

// A handle with the function that ends it. What that returns is ignored: after a device is lost nothing can be
// released, and nothing has to be. The context that the handle belongs to must be current when it goes.
template <typename Handle, auto Release>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != Handle{}) (driver().*Release)(handle_);
  }
  Handle get() const { return handle_; }
  // Where a creating function of the driver puts its handle; only while there is none.
  Handle* out() { return &handle_; }

 private:
  Handle handle_{};
};

using DeviceMemory = Owned<CUdeviceptr, &Driver::cuMemFree>;
using PinnedMemory = Owned<void*, &Driver::cuMemFreeHost>;
using Stream = Owned<CUstream, &Driver::cuStreamDestroy>;
using Event = Owned<CUevent, &Driver::cuEventDestroy>;
using Module = Owned<CUmodule, &Driver::cuModuleUnload>;
using Graph = Owned<CUgraph, &Driver::cuGraphDestroy>;
using GraphExec = Owned<CUgraphExec, &Driver::cuGraphExecDestroy>;

// `bytes` may be 0. Throw Refusal.
DeviceMemory allocate(size_t bytes, const char* what);
PinnedMemory allocate_pinned(size_t bytes, const char* what);
Stream make_stream();

// Makes a context the thread's current one for a scope, and leaves the caller's as it was.
class Current {
 public:
  explicit Current(CUcontext context);  // throws Refusal
  // For releasing: tries again, for the driver may answer with an error of earlier work, and then goes on.
  Current(CUcontext context, std::nothrow_t);
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  bool inside_ = true;
};

}  // namespace ie::cuda
