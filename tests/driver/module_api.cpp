// Modules and their functions: what stands for machine code is read here.
#include <algorithm>
#include <cstring>
#include <sstream>

#include "driver.h"

using namespace fake;

namespace {

constexpr int kFirstBlocks = 32;  // resident blocks of a multiprocessor
constexpr uint32_t kThreads = 2048, kRegisters = 65536;

// The names of the kernels in an ELF file: its sections are called .text.NAME.
std::vector<std::string> kernels_of(const std::byte* elf) {
  const auto word = [](const std::byte* p, auto type) {
    std::memcpy(&type, p, sizeof type);
    return type;
  };
  const std::byte* sections = elf + word(elf + 0x28, uint64_t{});
  const size_t size = word(elf + 0x3A, uint16_t{}), count = word(elf + 0x3C, uint16_t{});
  const size_t strings = word(elf + 0x3E, uint16_t{});
  const std::byte* names = elf + word(sections + strings * size + 0x18, uint64_t{});
  std::vector<std::string> found;
  for (size_t i = 0; i < count; ++i) {
    const char* name = reinterpret_cast<const char*>(names + word(sections + i * size, uint32_t{}));
    if (std::strncmp(name, ".text.", 6) == 0) found.emplace_back(name + 6);
  }
  return found;
}

std::vector<uint32_t> params_of(Kernel kernel) {
  if (kernel == Kernel::kCopyOutput) return {8, 8, 4, 4, 4, 4, 8, 8};
  if (kernel == Kernel::kWalk) return {8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4, 8, 8};
  std::vector<uint32_t> sizes;
  for (const size_t rank : {2, 2, 4, 4, 2, 2, 2, 2, 2}) {
    sizes.push_back(sizeof(CUtensorMap));
    sizes.insert(sizes.end(), rank, 4);
    sizes.insert(sizes.end(), rank, 8);
  }
  for (const uint32_t size : {8, 8, 8, 8, 8, 8, 8, 4, 8, 8}) sizes.push_back(size);
  return sizes;
}

void read_inception(std::istringstream* words, Function* function) {
  InceptionEntry& e = function->inception;
  for (uint32_t* number : {&e.height, &e.width, &e.channels, &e.n1, &e.c3, &e.n3, &e.c5, &e.n5, &e.projected,
                           &e.reduced, &e.third, &e.group, &e.first, &e.second, &function->threads,
                           &function->shared, &function->registers}) {
    *words >> *number;
  }
  for (auto& map : e.maps) {
    int type, swizzle;
    *words >> type >> swizzle;
    map.type = uint8_t(type);
    map.swizzle = uint8_t(swizzle);
    for (int i = 0; i < 4; ++i) *words >> map.box[i];
  }
}

CUresult read_elf(const void* image, Module* module) {
  for (const std::string& name : kernels_of(static_cast<const std::byte*>(image))) {
    auto made = std::make_unique<Function>();
    const Kernel kernel = name.find("copy") != std::string::npos ? Kernel::kCopyOutput
                          : name == "module"                     ? Kernel::kInception
                                                                 : Kernel::kWalk;
    *made = {module, name, kernel, 0, ~0u, ~0u, ~0u, 0, 0, 0, {}};
    made->dtype = uint32_t(setting("IE_DOUBLE_DTYPE", 0));
    made->params = params_of(kernel);
    module->functions.push_back(std::move(made));
  }
  return CUDA_SUCCESS;
}

CUresult read_text(const char* text, Module* module) {
  std::istringstream lines(text);
  std::string line, word, form, kernel;
  int arch = 0;
  std::getline(lines, line);
  if (line != "inception driver double") return violation(CUDA_ERROR_INVALID_IMAGE, "code of no known form");
  lines >> word >> form >> arch;
  const int device = setting("IE_DOUBLE_CAPABILITY", kCapability);
  // From 9.0 on the compiler writes code for one generation alone (sm_90a).
  const bool family = arch >= 90 ? arch == device : arch / 10 == device / 10 && arch <= device;
  if (form == "cubin" ? !family : arch > device) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    auto made = std::make_unique<Function>();
    made->module = module;
    words >> word >> made->name >> kernel >> made->dtype;
    if (kernel == "module") {
      made->kernel = Kernel::kInception;
      read_inception(&words, made.get());
    } else {
      made->kernel = kernel == "walk" ? Kernel::kWalk : Kernel::kCopyOutput;
      words >> made->kinds >> made->rows >> made->columns >> made->threads >> made->shared >> made->registers;
    }
    for (uint32_t size; words >> size;) made->params.push_back(size);
    module->functions.push_back(std::move(made));
  }
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int, CUjit_option*,
                                    void**) {
  return call(__func__, kInContext | kUnsafe, [&](Line&) {
    auto made = std::make_unique<Module>();
    made->context = current.back();
    const bool elf = std::memcmp(image, "\177ELF", 4) == 0;
    const CUresult result =
        elf ? read_elf(image, made.get()) : read_text(static_cast<const char*>(image), made.get());
    if (result != CUDA_SUCCESS) return result;
    state.modules.insert(made.get());
    *module = reinterpret_cast<CUmodule>(made.release());
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuModuleUnload(CUmodule handle) {
  return call(__func__, kInContext | kUnsafe | kRelease, [&](Line&) {
    Module* module = live(state.modules, handle);
    if (module == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "unload of no module");
    const CUresult done = flush();
    for (const auto& function : module->functions) state.functions.erase(function.get());
    state.modules.erase(module);
    return done;
  });
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction* handle, CUmodule from, const char* name) {
  return call(__func__, kInContext, [&](Line& line) {
    line.text("name", name);
    Module* module = live(state.modules, from);
    if (module == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "function of no module");
    for (const auto& function : module->functions) {
      if (function->name != name) continue;
      state.functions.insert(function.get());
      *handle = reinterpret_cast<CUfunction>(function.get());
      return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NOT_FOUND;
  });
}

CUresult CUDAAPI cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
  return call(__func__, kInContext, [&](Line& line) {
    line.add("attribute", attribute).add("value", uint64_t(value));
    Function* function = live(state.functions, handle);
    if (function == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "attribute of no function");
    if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) return CUDA_SUCCESS;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
        value > int(kMostShared)) {
      return violation(CUDA_ERROR_INVALID_VALUE, "a function's attribute out of range");
    }
    function->shared_limit = uint32_t(value);
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction handle, int threads,
                                                             size_t shared) {
  return call(__func__, kInContext, [&](Line&) {
    const Function* function = live(state.functions, handle);
    if (function == nullptr) return violation(CUDA_ERROR_INVALID_HANDLE, "occupancy of no function");
    if (threads < 1 || threads > 1024) return violation(CUDA_ERROR_INVALID_VALUE, "occupancy of no block");
    const uint32_t registers = function->registers == 0 ? 128 : function->registers;
    *blocks = std::min({kFirstBlocks, int(kThreads) / threads, int(kRegisters) / (int(registers) * threads),
                        int((kMostShared + 1024) / (shared + 1024))});
    if (shared > function->shared_limit) *blocks = 0;
    return CUDA_SUCCESS;
  });
}
}
