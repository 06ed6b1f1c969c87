#include "kernel_choice.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace ie::cuda {
namespace {

constexpr double kMaxElements = 2147483648.0;  // walk counts the elements of one buffer in 32 bits
constexpr uint64_t kMaxUnits = 1u << 25;

// Whether walk finds its way through a product's K: `counts` in kernels/convolution.py.
bool counts(const OpRecord& op) {
  if (op.kind != uint32_t(OpKind::kConv)) return true;
  const uint64_t taps = uint64_t{op.kernel_h} * op.kernel_w;
  const uint64_t units = (uint64_t{op.in_channels} + kPanel - 1) / kPanel;
  const uint64_t shift = taps <= 63 ? 25 : taps <= 1023 ? 21 : 0;
  return units < kMaxUnits && taps * units * units < uint64_t{1} << shift &&
         taps * op.kernel_w < uint64_t{1} << 16;
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

std::string joined(const std::vector<uint32_t>& sizes) {
  std::string text;
  for (uint32_t size : sizes) text += (text.empty() ? "" : "+") + std::to_string(size);
  return text.empty() ? "any" : text;
}

template <typename Record>
bool runs_on(const GpuProperties& gpu, const Record& record) {
  const int arch = int(record.arch);
  if (int(record.shared) > gpu.max_shared || arch > gpu.capability) return false;
  if (record.form == uint32_t(Form::kPtx)) return true;
  // From 9.0 on Triton's machine code uses what only its own generation has, and runs on no later one.
  return arch >= 90 ? arch == gpu.capability : arch / 10 == gpu.capability / 10;
}

std::unique_ptr<BoundModule> find_specialised(const Archive& archive, const GpuProperties& gpu,
                                              const Program& program, const LaunchRecord& launch,
                                              ie_specialise specialise) {
  if (specialise == IE_SPECIALISE_NEVER || archive.modules.empty()) return nullptr;
  const std::optional<InceptionModule> found = find_module(program, launch);
  if (!found) return nullptr;
  const ModuleSizes& sizes = found->sizes;
  const uint64_t pixels = uint64_t{sizes.height} * sizes.width * program.header.max_batch;
  for (const ModuleRecord& r : archive.modules) {
    const bool fits = r.dtype == program.header.dtype && runs_on(gpu, r) &&
                      r.group <= program.header.max_batch && std::memcmp(&r.sizes, &sizes, sizeof sizes) == 0;
    const bool wanted = specialise == IE_SPECIALISE_ALWAYS || pixels >= r.from_pixels;
    if (fits && wanted) return std::make_unique<BoundModule>(BoundModule{*found, r, {}});
  }
  return nullptr;
}

const KernelRecord& find_walk(const Archive& archive, const GpuProperties& gpu, const Program& program,
                              const LaunchRecord& launch) {
  const Needs needs = needs_of(program, launch);
  for (const KernelRecord& r : archive.records) {
    const bool fits = r.kernel == uint32_t(KernelName::kWalk) && r.dtype == program.header.dtype &&
                      runs_on(gpu, r) && (needs.kinds & ~r.kinds) == 0 && (needs.rows & ~r.rows) == 0 &&
                      (r.rows & (needs.block | (needs.block - 1))) != 0 && (needs.columns & ~r.columns) == 0;
    if (fits && needs.possible) return r;
  }
  throw Refusal{IE_ERROR_NO_PROGRAM, "launch " + program.strings.substr(launch.name, launch.name_bytes) +
                                         ": no kernel for tiles of " + joined(needs.tile_rows) + " x " +
                                         joined(needs.tile_columns) + " and kinds " +
                                         std::to_string(needs.kinds)};
}

}  // namespace

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

KernelChoice choose_kernels(const Archive& archive, const GpuProperties& gpu,
                            const std::vector<const Program*>& programs, ie_specialise specialise) {
  const auto& records = archive.records;
  if (std::none_of(records.begin(), records.end(), [&](const KernelRecord& r) { return runs_on(gpu, r); })) {
    throw Refusal{IE_ERROR_GPU, "the library has no kernels for a GPU of " + gpu.text()};
  }
  KernelChoice choice;
  for (const Program* program : programs) {
    for (const LaunchRecord& launch : program->launches) {
      LaunchChoice& chosen = choice.launches.emplace_back();
      chosen.module = find_specialised(archive, gpu, *program, launch, specialise);
      if (chosen.module == nullptr) chosen.walk = &find_walk(archive, gpu, *program, launch);
    }
  }
  const auto copies = [&](const KernelRecord& r) {
    return r.kernel == uint32_t(KernelName::kCopyOutput) && runs_on(gpu, r) &&
           r.dtype == programs.front()->header.dtype;
  };
  const auto found = std::find_if(records.begin(), records.end(), copies);
  if (found == records.end()) {
    throw Refusal{IE_ERROR_KERNELS, "the library has no kernel that copies outputs; install it anew"};
  }
  choice.copy_output = &*found;
  return choice;
}

}  // namespace ie::cuda
