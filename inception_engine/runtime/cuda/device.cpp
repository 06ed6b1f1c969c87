#include "device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "kernel_choice.h"

namespace ie::cuda {
namespace {

constexpr int kOldestGpu = 80;                       // compute capability 8.0
constexpr uint32_t kSharedWithoutAsking = 48 << 10;  // a kernel that needs more has to be told so
constexpr size_t kTableAlignment = 256;

uint32_t end_of(const Program& program, const OutputRecord& output) {
  auto end = uint32_t(program.tasks.size());
  const auto writes = [&](const TaskRecord& task) {
    return task.op != kNone && program.ops[task.op].out_buffer == output.buffer;
  };
  while (end != 0 && !writes(program.tasks[end - 1])) --end;
  return end;
}

}  // namespace

bool BoundProgram::is_last_walk(size_t launch) const {
  return modules[launch] == nullptr && std::all_of(modules.begin() + ptrdiff_t(launch) + 1, modules.end(),
                                                   [](const auto& module) { return module != nullptr; });
}

bool BoundProgram::exports(uint32_t buffer) const {
  return std::none_of(modules.begin(), modules.end(),
                      [&](const auto& module) { return module != nullptr && module->module.writes(buffer); });
}

// Chooses kernels without touching the GPU's memory, then loads them and uploads what they read.
class Device::Loader {
 public:
  Loader(const Plan& plan, const std::vector<const Program*>& programs, CUdevice device,
         const std::string& path, ie_specialise specialise)
      : plan_(plan),
        programs_(programs),
        gpu_{10 * attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                 attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
             attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
             attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)} {
    if (gpu_.capability < kOldestGpu) {
      throw Refusal{IE_ERROR_GPU, "the GPU has " + gpu_.text() + "; 8.0 is needed"};
    }
    archive_ = read_archive(path.empty() ? default_archive() : path);
    choice_ = choose_kernels(archive_, gpu_, programs, specialise);
  }

  // The GPU's context is current.
  std::unique_ptr<Shared> load() {
    auto shared = std::make_unique<Shared>();
    auto next = choice_.launches.begin();
    for (const Program* program : programs_) {
      BoundProgram bound{};
      for (const LaunchRecord& launch : program->launches) {
        LaunchChoice& choice = *next++;
        if (choice.module != nullptr) {
          bound.launches.push_back(load(choice.module->record, shared.get()));
        } else {
          Kernel kernel = load(*choice.walk, shared.get());
          kernel.blocks = std::min(kernel.blocks, launch.task_count);
          bound.launches.push_back(kernel);
        }
        bound.modules.push_back(std::move(choice.module));
      }
      for (const OutputRecord& output : program->outputs) bound.ends.push_back(end_of(*program, output));
      shared->programs.push_back(std::move(bound));
    }
    shared->copy_output = load(*choice_.copy_output, shared.get());
    upload(shared.get());
    return shared;
  }

 private:
  static int attribute(CUdevice device, int name) {
    int value = 0;
    check(driver().cuDeviceGetAttribute(&value, name, device), "asking for the GPU's properties");
    return value;
  }

  template <typename Record>
  Kernel load(const Record& record, Shared* shared) {
    const Driver& cuda = driver();
    const char* loading = "loading the kernels";
    auto known = std::find(offsets_.begin(), offsets_.end(), record.offset);
    if (known == offsets_.end()) {
      Module module;
      check(cuda.cuModuleLoadDataEx(module.out(), archive_.code(record), 0, nullptr, nullptr), loading);
      shared->modules.push_back(std::move(module));
      known = offsets_.insert(offsets_.end(), record.offset);
    }
    Kernel kernel;
    const CUmodule module = shared->modules[size_t(known - offsets_.begin())].get();
    check(cuda.cuModuleGetFunction(&kernel.function, module, record.name), loading);
    if (record.shared > kSharedWithoutAsking) {
      check(cuda.cuFuncSetAttribute(kernel.function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    int(record.shared)),
            loading);
    }
    int resident = 0;  // asking also makes the driver load the function now and not inside a captured run
    check(cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel.function, int(record.threads),
                                                           record.shared),
          loading);
    if (resident < 1) {
      throw Refusal{IE_ERROR_GPU, std::string("kernel ") + record.name + " does not fit on this GPU"};
    }
    kernel.threads = record.threads;
    kernel.shared = record.shared;
    kernel.blocks = uint32_t(std::max(gpu_.multiprocessors * resident, 1));
    kernel.overlaps = (record.flags & kWaitsItself) != 0 && cuda.version >= kOverlapDriver;
    return kernel;
  }

  template <typename Record>
  static uint64_t append(const std::vector<Record>& table, std::vector<std::byte>* bytes) {
    const size_t at = bytes->size();
    const size_t used =
        std::max(table.size() * sizeof(Record), sizeof(uint32_t));  // never without an address
    bytes->resize(at + (used + kTableAlignment - 1) / kTableAlignment * kTableAlignment);
    if (!table.empty()) std::memcpy(bytes->data() + at, table.data(), table.size() * sizeof(Record));
    return at;
  }

  // Copies from pageable memory return before the GPU has it all, hence the stream, and the wait for it.
  void upload(Shared* shared) {
    const Driver& cuda = driver();
    const Stream stream = make_stream();
    const char* copying = "copying the plan to the GPU";
    shared->weights = allocate(plan_.weight_bytes, "making room for the weights");
    if (plan_.weight_bytes != 0) {
      check(cuda.cuMemcpyHtoDAsync(shared->weights.get(), plan_.weights, plan_.weight_bytes, stream.get()),
            copying);
    }
    for (size_t i = 0; i < programs_.size(); ++i) {
      const Program& program = *programs_[i];
      BoundProgram& bound = shared->programs[i];
      std::vector<std::byte> bytes;
      bound.tasks = append(program.tasks, &bytes);
      bound.waits = append(program.waits, &bytes);
      bound.ops = append(program.ops, &bytes);
      bound.buffers = append(program.buffers, &bytes);
      shared->tables.push_back(allocate(bytes.size(), "making room for the plan"));
      const CUdeviceptr base = shared->tables.back().get();
      for (uint64_t* table : {&bound.tasks, &bound.waits, &bound.ops, &bound.buffers}) *table += base;
      check(cuda.cuMemcpyHtoDAsync(base, bytes.data(), bytes.size(), stream.get()), copying);
      check(cuda.cuStreamSynchronize(stream.get()), copying);
    }
    upload_modules(shared, stream.get());
  }

  // The weights of modules in their kernel's order: of each once, whatever the number of programs.
  void upload_modules(Shared* shared, CUstream stream) {
    std::vector<std::byte> bytes;
    std::map<std::array<uint64_t, 2 * kProducts>, ModuleWeights> known;  // by where the plan has them
    for (size_t i = 0; i < programs_.size(); ++i) {
      for (auto& bound : shared->programs[i].modules) {
        if (bound == nullptr) continue;
        std::array<uint64_t, 2 * kProducts> key;
        for (uint32_t j = 0; j < kProducts; ++j) {
          const OpRecord& op = programs_[i]->ops[bound->module.ops[j]];
          key[2 * j] = op.weight_offset;
          key[2 * j + 1] = op.bias_offset;
        }
        auto found = known.find(key);
        if (found == known.end()) {
          found = known.emplace(key, append_weights(plan_, *programs_[i], bound->module, &bytes)).first;
        }
        bound->weights = found->second;
      }
    }
    if (bytes.empty()) return;
    shared->module_weights = allocate(bytes.size(), "making room for the modules' weights");
    const CUdeviceptr base = shared->module_weights.get();
    const char* copying = "copying the modules' weights to the GPU";
    check(driver().cuMemcpyHtoDAsync(base, bytes.data(), bytes.size(), stream), copying);
    check(driver().cuStreamSynchronize(stream), copying);
    for (BoundProgram& program : shared->programs) {
      for (auto& bound : program.modules) {
        if (bound == nullptr) continue;
        for (uint64_t& address : bound->weights.products) address += base;
        bound->weights.biases += base;
      }
    }
  }

  // Before this version a launch that overlaps could not be captured into a graph.
  static constexpr int kOverlapDriver = 12030;

  const Plan& plan_;
  const std::vector<const Program*>& programs_;
  const GpuProperties gpu_;
  Archive archive_;
  KernelChoice choice_;
  std::vector<uint64_t> offsets_;  // of the codes that were loaded, in the order of the modules
};

Device::Primary::~Primary() {
  if (context != nullptr) driver().cuDevicePrimaryCtxRelease(device);
}

Device::Device(const Plan& plan, const std::vector<const Program*>& programs, uint32_t ordinal,
               const std::string& archive, ie_specialise specialise)
    : ordinal_(int(ordinal)) {
  check_sizes(plan, programs);
  const Driver& cuda = driver();
  int count = 0;
  check(cuda.cuDeviceGetCount(&count), "counting GPUs");
  if (count == 0) throw Refusal{IE_ERROR_DEVICE, "there is no GPU that this process may use"};
  if (ordinal >= uint32_t(count)) {
    throw Refusal{IE_ERROR_DEVICE, "GPU " + std::to_string(ordinal) + ": there are " + std::to_string(count) +
                                       ", counted from 0"};
  }
  check(cuda.cuDeviceGet(&primary_.device, ordinal_), "opening the GPU");
  Loader loader(plan, programs, primary_.device, archive, specialise);
  check(cuda.cuDevicePrimaryCtxRetain(&primary_.context, primary_.device), "making the GPU's context");
  const Current current(primary_.context);
  shared_ = loader.load();
}

uint32_t Device::modules() const {
  size_t count = 0;
  for (const BoundProgram& program : shared_->programs) {
    count +=
        program.modules.size() - size_t(std::count(program.modules.begin(), program.modules.end(), nullptr));
  }
  return uint32_t(count);
}

Device::~Device() {
  const Current current(primary_.context, std::nothrow);
  shared_.reset();
}

}  // namespace ie::cuda
