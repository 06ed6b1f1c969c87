#include "driver.h"

#include <dlfcn.h>

#include <algorithm>
#include <iterator>

namespace ie::cuda {
namespace {

constexpr int kOldestDriver = 12000;
constexpr CUresult kOutOfMemory = 2, kStubLibrary = 34, kNoDevice = 100, kInvalidDevice = 101;
// Errors after which the primary context cannot be used again in this process.
constexpr CUresult kLost[] = {4,   46,  214, 220, 226, 700, 702, 709, 710,
                              714, 715, 716, 717, 718, 719, 721, 999};
// A stream that is no stream of the GPU's primary context, or whose capture cannot take the work.
constexpr CUresult kStream[] = {201, 400, 900, 901, 902, 903, 904, 905, 906, 907, 908};
// Code that this driver cannot use, though the archive is sound: PTX newer than the driver, no compiler for it.
constexpr CUresult kForeignCode[] = {200, 209, 218, 221, 222, 223, 300};

bool is_one_of(CUresult result, const CUresult* begin, const CUresult* end) {
  return std::find(begin, end, result) != end;
}

// "CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)"
std::string describe(const Driver& cuda, CUresult result) {
  const char *name = nullptr, *text = nullptr;
  if (cuda.cuGetErrorName == nullptr || cuda.cuGetErrorName(result, &name) != CUDA_SUCCESS || !name) {
    return "error " + std::to_string(result);
  }
  if (cuda.cuGetErrorString == nullptr || cuda.cuGetErrorString(result, &text) != CUDA_SUCCESS || !text) {
    return name;
  }
  return std::string(name) + " (" + text + ")";
}

[[noreturn]] void fail(const Driver& cuda, CUresult result, const char* doing) {
  const std::string what = std::string(doing) + ": " + describe(cuda, result);
  if (result == kOutOfMemory) {
    throw Refusal{IE_ERROR_MEMORY, "the GPU is out of memory; free some or take a smaller batch: " + what};
  }
  if (result == kNoDevice || result == kInvalidDevice) {
    throw Refusal{IE_ERROR_DEVICE, "there is no GPU that this process may use: " + what};
  }
  if (result == kStubLibrary) {
    throw Refusal{IE_ERROR_NO_DRIVER, "libcuda.so.1 is a stub; install NVIDIA's driver: " + what};
  }
  if (is_one_of(result, std::begin(kStream), std::end(kStream))) {
    throw Refusal{IE_ERROR_ARGUMENT, "the stream cannot be used for this: " + what};
  }
  if (is_one_of(result, std::begin(kForeignCode), std::end(kForeignCode))) {
    throw Refusal{IE_ERROR_KERNELS, "the driver refuses the kernels; update it, or build them anew: " + what};
  }
  if (is_one_of(result, std::begin(kLost), std::end(kLost))) {
    throw Refusal{IE_ERROR_DEVICE_LOST, "the GPU is lost to this process; start another: " + what};
  }
  throw Refusal{IE_ERROR_DRIVER, "the CUDA driver refused: " + what};
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// A library that is closed again if it turns out to be of no use.
struct Library {
  void* handle;
  ~Library() {
    if (handle != nullptr) dlclose(handle);
  }
  template <typename Function>
  bool find(const char* symbol, Function* function) const {
    *function = reinterpret_cast<Function>(dlsym(handle, symbol));
    return *function != nullptr;
  }
};

Driver load() {
  Library library{dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)};
  if (library.handle == nullptr) {
    const char* reason = dlerror();
    throw Refusal{IE_ERROR_NO_DRIVER, "there is no CUDA driver; install NVIDIA's: " +
                                          std::string(reason == nullptr ? "libcuda.so.1" : reason)};
  }
  Driver cuda;
  std::string missing;
#define IE_CUDA_FIND(member, symbol, parameters) \
  if (!library.find(#symbol, &cuda.member) && missing.empty()) missing = #symbol;
  IE_CUDA_FUNCTIONS(IE_CUDA_FIND)
#undef IE_CUDA_FIND
  // An old driver lacks some of the functions, so its version is looked at first.
  if (cuda.cuInit != nullptr && cuda.cuDriverGetVersion != nullptr) {
    CUresult result = cuda.cuInit(0);
    if (result == CUDA_SUCCESS) result = cuda.cuDriverGetVersion(&cuda.version);
    if (result != CUDA_SUCCESS) fail(cuda, result, "starting the CUDA driver");
    if (cuda.version < kOldestDriver) {
      throw Refusal{IE_ERROR_DRIVER, "the driver is too old: it is for CUDA " + version_text(cuda.version) +
                                         "; update it to one for CUDA 12.0 or newer"};
    }
  }
  if (!missing.empty()) {
    throw Refusal{IE_ERROR_DRIVER,
                  "libcuda.so.1 has no " + missing + "; update the driver to CUDA 12.0 or newer"};
  }
  library.handle = nullptr;  // it stays
  return cuda;
}

}  // namespace

const Driver& driver() {
  static const Driver loaded = load();
  return loaded;
}

void check(CUresult result, const char* doing) {
  if (result != CUDA_SUCCESS) fail(driver(), result, doing);
}

DeviceMemory allocate(size_t bytes, const char* what) {
  DeviceMemory memory;
  check(driver().cuMemAlloc(memory.out(), std::max<size_t>(bytes, 1)), what);
  return memory;
}

PinnedMemory allocate_pinned(size_t bytes, const char* what) {
  PinnedMemory memory;
  check(driver().cuMemAllocHost(memory.out(), std::max<size_t>(bytes, 1)), what);
  return memory;
}

Stream make_stream() {
  Stream stream;
  check(driver().cuStreamCreate(stream.out(), CU_STREAM_NON_BLOCKING), "making a stream");
  return stream;
}

Current::Current(CUcontext context) {
  check(driver().cuCtxPushCurrent(context), "entering the GPU's context");
}

Current::Current(CUcontext context, std::nothrow_t) {
  const auto enter = [&] { return driver().cuCtxPushCurrent(context) == CUDA_SUCCESS; };
  inside_ = enter() || enter();
}

Current::~Current() {
  CUcontext popped;
  if (inside_) driver().cuCtxPopCurrent(&popped);
}

}  // namespace ie::cuda
