#include "device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

namespace ie::cuda {
namespace {

constexpr int kOldestGpu = 80;                       // compute capability 8.0
constexpr uint32_t kSharedWithoutAsking = 48 << 10;  // a kernel that needs more has to be told so
constexpr double kMaxElements = 2147483648.0;        // walk counts the elements of one buffer in 32 bits
constexpr uint64_t kMaxUnits = 1u << 25;
constexpr size_t kTableAlignment = 256;

// Whether walk finds its way through a product's K: `counts` in kernels/convolution.py.
bool counts(const OpRecord& op) {
  if (op.kind != uint32_t(OpKind::kConv)) return true;
  const uint64_t taps = uint64_t{op.kernel_h} * op.kernel_w;
  const uint64_t units = (uint64_t{op.in_channels} + kPanel - 1) / kPanel;
  const uint64_t shift = taps <= 63 ? 25 : taps <= 1023 ? 21 : 0;
  return units < kMaxUnits && taps * units * units < uint64_t{1} << shift &&
         taps * op.kernel_w < uint64_t{1} << 16;
}

// What the proof allows and walk cannot count.
void check_sizes(const Plan& plan, const std::vector<const Program*>& programs) {
  for (const Program* program : programs) {
    const ProgramHeader& h = program->header;
    const double image = double(h.input_channels) * h.input_height * h.input_width;
    double largest = std::max(double(plan.weight_bytes), h.max_batch * image);
    for (const BufferRecord& buffer : program->buffers) {
      largest = std::max(largest, double(h.max_batch) * buffer.rows * buffer.pitch);
    }
    if (largest >= kMaxElements || !std::all_of(program->ops.begin(), program->ops.end(), counts)) {
      throw Refusal{IE_ERROR_NO_PROGRAM, "the program for " + std::to_string(h.max_batch) +
                                             " images is too large for the GPU's kernels"};
    }
  }
}

// What a kernel must be able to do, in the terms of a KernelRecord. `rows`: of ops whose K is cut, whose tiles are
// computed in one block; `block`: the largest power of two that divides all tiles' rows.
struct Needs {
  uint32_t kinds = 0, rows = 0, columns = 0, block = 1u << 31;
  bool possible = true;  // no kernel has such sides that are no powers of two
  std::vector<uint32_t> tile_rows, tile_columns;
};

uint32_t bit_of(uint32_t size, bool* possible) {
  if (size == 0 || (size & (size - 1)) != 0) *possible = false;
  return size & (0 - size);  // 64 is bit 6
}

void note(uint32_t size, std::vector<uint32_t>* sizes) {
  if (std::find(sizes->begin(), sizes->end(), size) == sizes->end()) sizes->push_back(size);
}

Needs needs_of(const Program& program, const LaunchRecord& launch) {
  Needs needs;
  std::vector<bool> seen(program.ops.size());
  for (uint32_t t = launch.first_task; t < launch.first_task + launch.task_count; ++t) {
    const uint32_t index = program.tasks[t].op;
    if (index == kNone || seen[index]) continue;
    seen[index] = true;
    const OpRecord& op = program.ops[index];
    const auto kind = OpKind(op.kind);
    needs.kinds |= 1u << op.kind;
    if (kind == OpKind::kConv && op.in_channels % kPanel != 0) needs.kinds |= kRagged;
    if (op.part_depth != 0) needs.kinds |= kParts;
    const auto writes = [&](const OutputRecord& output) { return output.buffer == op.out_buffer; };
    if (std::any_of(program.outputs.begin(), program.outputs.end(), writes)) needs.kinds |= kExports;
    if (kind != OpKind::kInput) {  // of which walk takes any number of rows
      if (op.part_depth != 0) needs.rows |= bit_of(op.tile_rows, &needs.possible);
      needs.block = std::min(needs.block, op.tile_rows & (0 - op.tile_rows));
      note(op.tile_rows, &needs.tile_rows);
    }
    if (kind == OpKind::kConv || kind == OpKind::kMaxPool || kind == OpKind::kAveragePool) {
      needs.columns |= bit_of(op.tile_columns, &needs.possible);
      note(op.tile_columns, &needs.tile_columns);
    }
  }
  return needs;
}

uint32_t end_of(const Program& program, const OutputRecord& output) {
  auto end = uint32_t(program.tasks.size());
  const auto writes = [&](const TaskRecord& task) {
    return task.op != kNone && program.ops[task.op].out_buffer == output.buffer;
  };
  while (end != 0 && !writes(program.tasks[end - 1])) --end;
  return end;
}

std::string joined(const std::vector<uint32_t>& sizes) {
  std::string text;
  for (uint32_t size : sizes) text += (text.empty() ? "" : "+") + std::to_string(size);
  return text.empty() ? "any" : text;
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
      : plan_(plan), programs_(programs), specialise_(specialise) {
    capability_ = 10 * attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                  attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    multiprocessors_ = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    max_shared_ = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    const std::string gpu =
        "compute capability " + std::to_string(capability_ / 10) + "." + std::to_string(capability_ % 10);
    if (capability_ < kOldestGpu) throw Refusal{IE_ERROR_GPU, "the GPU has " + gpu + "; 8.0 is needed"};
    archive_ = read_archive(path.empty() ? default_archive() : path);
    const auto& records = archive_.records;
    if (std::none_of(records.begin(), records.end(), [&](const KernelRecord& r) { return runs_here(r); })) {
      throw Refusal{IE_ERROR_GPU, "the library has no kernels for a GPU of " + gpu};
    }
    for (const Program* program : programs) {
      for (const LaunchRecord& launch : program->launches) choices_.push_back(choose(*program, launch));
    }
    const auto copies = [&](const KernelRecord& r) {
      return r.kernel == uint32_t(KernelName::kCopyOutput) && runs_here(r) && r.dtype == dtype();
    };
    const auto found = std::find_if(records.begin(), records.end(), copies);
    if (found == records.end()) {
      throw Refusal{IE_ERROR_KERNELS, "the library has no kernel that copies outputs; install it anew"};
    }
    copy_output_ = &*found;
  }

  // The GPU's context is current.
  std::unique_ptr<Shared> load() {
    auto shared = std::make_unique<Shared>();
    auto next = choices_.begin();
    for (const Program* program : programs_) {
      BoundProgram bound{};
      for (const LaunchRecord& launch : program->launches) {
        Choice& choice = *next++;
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
    shared->copy_output = load(*copy_output_, shared.get());
    upload(shared.get());
    return shared;
  }

 private:
  static int attribute(CUdevice device, int name) {
    int value = 0;
    check(driver().cuDeviceGetAttribute(&value, name, device), "asking for the GPU's properties");
    return value;
  }

  uint32_t dtype() const { return programs_.front()->header.dtype; }

  // What runs a launch: one of the two.
  struct Choice {
    const KernelRecord* walk = nullptr;
    std::unique_ptr<BoundModule> module;
  };

  Choice choose(const Program& program, const LaunchRecord& launch) const {
    Choice choice;
    choice.module = find_specialised(program, launch);
    if (choice.module == nullptr) choice.walk = &find_walk(program, launch);
    return choice;
  }

  std::unique_ptr<BoundModule> find_specialised(const Program& program, const LaunchRecord& launch) const {
    if (specialise_ == IE_SPECIALISE_NEVER || archive_.modules.empty()) return nullptr;
    const std::optional<InceptionModule> found = find_module(program, launch);
    if (!found) return nullptr;
    const ModuleSizes& sizes = found->sizes;
    const uint64_t pixels = uint64_t{sizes.height} * sizes.width * program.header.max_batch;
    for (const ModuleRecord& r : archive_.modules) {
      const bool fits = r.dtype == dtype() && runs_here(r) && r.group <= program.header.max_batch &&
                        std::memcmp(&r.sizes, &sizes, sizeof sizes) == 0;
      const bool wanted = specialise_ == IE_SPECIALISE_ALWAYS || pixels >= r.from_pixels;
      if (fits && wanted) return std::make_unique<BoundModule>(BoundModule{*found, r, {}});
    }
    return nullptr;
  }

  template <typename Record>
  bool runs_here(const Record& record) const {
    const int arch = int(record.arch);
    if (int(record.shared) > max_shared_ || arch > capability_) return false;
    if (record.form == uint32_t(Form::kPtx)) return true;
    // From 9.0 on Triton's machine code uses what only its own generation has, and runs on no later one.
    return arch >= 90 ? arch == capability_ : arch / 10 == capability_ / 10;
  }

  const KernelRecord& find_walk(const Program& program, const LaunchRecord& launch) const {
    const Needs needs = needs_of(program, launch);
    for (const KernelRecord& r : archive_.records) {
      const bool fits = r.kernel == uint32_t(KernelName::kWalk) && r.dtype == dtype() && runs_here(r) &&
                        (needs.kinds & ~r.kinds) == 0 && (needs.rows & ~r.rows) == 0 &&
                        (r.rows & (needs.block | (needs.block - 1))) != 0 &&
                        (needs.columns & ~r.columns) == 0;
      if (fits && needs.possible) return r;
    }
    throw Refusal{IE_ERROR_NO_PROGRAM, "launch " + program.strings.substr(launch.name, launch.name_bytes) +
                                           ": no kernel for tiles of " + joined(needs.tile_rows) + " x " +
                                           joined(needs.tile_columns) + " and kinds " +
                                           std::to_string(needs.kinds)};
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
    kernel.blocks = uint32_t(std::max(multiprocessors_ * resident, 1));
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
  const ie_specialise specialise_;
  int capability_ = 0, multiprocessors_ = 0, max_shared_ = 0;
  Archive archive_;
  std::vector<Choice> choices_;  // of all programs' launches, one after the other
  const KernelRecord* copy_output_ = nullptr;
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
