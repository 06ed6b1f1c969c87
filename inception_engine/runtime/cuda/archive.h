// The kernel archive: the GPU's machine code, compiled ahead of time, in one file beside the library.
//
//  1. All numbers are little-endian; integers are unsigned.
//  2. A file is an ArchiveHeader, `record_count` KernelRecords, `module_count` ModuleRecords, and the codes, each at
//     a multiple of 64 bytes. Records may share a code. All other bytes are zero.
//  3. A code is a cubin, or PTX: text that ends with a zero. An arch is major * 10 + minor. A cubin runs on GPUs of
//     its `arch`'s major version with at least its minor one; from 9.0 on, of its arch alone, for it may use what no
//     other has. PTX runs on its arch and all later ones.
//  4. `walk` runs the tasks of one launch (plan_format.h, 11 and 12). Its parameters are those of WalkParameters, in
//     that order and of those sizes. `kinds` has a bit 1 << OpKind for every kind that it can run, and kRagged if
//     that includes convolutions whose in_channels are no multiple of 16, kParts if those whose K is cut, and kExports
//     if it can store `result`, which a launch with an op that writes an output's buffer needs. `rows` has the bit
//     1 << log2(n) for every n that it can compute tiles in blocks of: one of them divides the tile_rows of each op but
//     INPUT, and is that of an op whose K is cut. `columns` has it for the tile_columns of CONV, MAX_POOL and
//     AVERAGE_POOL; other kinds may have any.
//  5. `copy_output` copies a slice of a buffer to float32 NCHW. Its parameters are those of CopyParameters; a block
//     copies 64 pixels of 64 channels: grid (pixels of all images / 64, channels / 64), rounded up.
//  6. Of the records that fit a launch the first is taken: special ones stand before general ones.
//  7. All kernels have two hidden parameters at the end, which the compiler asks for and which stay null.
//  8. Reserved fields are zero. A reader refuses another version, and records whose parameters have other sizes.
//  9. `module` runs one launch that is an Inception module of these sizes, instead of `walk`: a 1x1 convolution, 3x3
//     and third branch with one merged reduce `r`, and a 3x3 max-pool `p` with its projection. All have stride 1 and
//     padding that keeps the image's size, and ReLU. `widths`: channels of 1x1, of the 3x3's part of r, of 3x3, of the
//     third branch's part of r, of the third branch (a `third` x `third` convolution) and of the projection; these and
//     `channels`, of the input x, are multiples of 16. `reduced`: channels of r that are not padding. x, r, p and out
//     are dense NHWC buffers. Images are worked on in groups of `group`; a launch has first + groups * (first +
//     second) tickets, and its grid may have any size. Pixels of x at the program's max_batch from which on it is
//     faster than `walk`: `from_pixels`; all bits set: never.
// 10. Its parameters, of the sizes in kModuleSizes: nine descriptors, of x, p, r, r (rank 4: images, lines, columns,
//     channels; the others 2: pixels or columns, channels or depth), then weights of the reduces, of 1x1, 3x3, third
//     branch, projection; the addresses of x, r, p, out, biases, state and ticket; batch. A descriptor is a
//     CUtensorMap, then sizes (32 bits), then strides (64 bits, elements), the outermost first. `maps` holds what
//     cuTensorMapEncodeTiled takes beside the tensor: rank, element type, swizzle, box, the innermost side first;
//     element strides are 1, interleave is none, promotion to L2 128 bytes, what lies outside reads as zero.
//     Weights: (columns, K), K = (kernel_h, kernel_w, in_channels), of the record's dtype; biases: float32 of r, then of
//     out. State: word 0 is the status, counter i (of a group) at word kLine * (i + 1); zero between launches.
// 11. `hash` is XXH64 (seed 0) of all bytes behind the header. The archive is code and comes with the library: it is
//     checked for accidents, not for malice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../plan.h"

namespace ie::cuda {

constexpr char kArchiveMagic[8] = {'I', 'N', 'C', 'K', 'E', 'R', 'N', '\n'};
constexpr uint32_t kArchiveVersion = 2;
constexpr uint64_t kCodeAlignment = 64;

enum class KernelName : uint32_t { kWalk = 1, kCopyOutput = 2 };
enum class Form : uint32_t { kCubin = 1, kPtx = 2 };
enum KernelFlag : uint32_t {
  kWaitsItself = 1
};  // for the kernel before it: it may be launched while that one ends
constexpr uint32_t kExports = 1u << 0, kRagged = 1u << 7,
                   kParts = 1u << 8;  // bits of `kinds` beside the OpKinds

struct ArchiveHeader {
  char magic[8];
  uint32_t version;
  uint32_t record_count;
  uint64_t file_bytes;
  uint64_t hash;
  uint32_t module_count;
  uint32_t reserved[7];
};

struct KernelRecord {
  uint32_t kernel;
  uint32_t form;
  uint32_t arch;
  uint32_t dtype;  // Dtype of plan_format.h
  uint32_t kinds, rows, columns;
  uint32_t threads;    // of a block
  uint32_t shared;     // dynamic shared memory of a block, bytes
  uint32_t registers;  // of a thread; 0 for PTX
  uint32_t param_count;
  uint32_t flags;
  uint8_t params[32];  // bytes of each parameter, then zeros
  char name[32];       // of the entry in the code; ends with a zero
  uint64_t offset, bytes;
  uint32_t reserved[16];
};

constexpr uint32_t kMaps = 9, kMaxRank = 5;

struct MapRecord {
  uint32_t rank, type, swizzle;  // CUtensorMapDataType, CUtensorMapSwizzle
  uint32_t box[kMaxRank];        // the innermost side first, then zeros
};

// What a module computes; equal for a launch and the kernel that can run it.
struct ModuleSizes {
  uint32_t height, width, channels;
  uint32_t widths[6];
  uint32_t reduced, third;
};

struct ModuleRecord {
  uint32_t form;
  uint32_t arch;
  uint32_t dtype;
  ModuleSizes sizes;
  uint32_t group;
  uint32_t first, second;               // tickets
  uint32_t threads, shared, registers;  // as in a KernelRecord
  uint32_t param_count;
  uint32_t flags;
  uint64_t from_pixels;
  uint8_t params[64];
  char name[32];
  uint64_t offset, bytes;
  MapRecord maps[kMaps];
  uint32_t reserved[4];
};

struct WalkParameters {
  uint64_t tasks, waits, ops, buffers, weights, arena;
  uint64_t image;  // float32 NCHW or uint8 NHWC: see pixels
  uint64_t
      state;  // word 0: status, 1 when a wait gave up; counter i at word kLine * (i + 1); zero between runs
  uint64_t ticket;  // of this launch: a line of its own
  uint64_t result;  // where one output goes as float32 NCHW, or null
  uint32_t first_task, task_count;
  uint32_t batch;
  uint32_t pixels;    // 1: the image is uint8 NHWC
  uint32_t counters;  // that the last block clears: all of the program in a run's last launch, else 0
  uint32_t result_buffer, result_channel, result_channels;  // the output's slice; no buffer: kNone
  uint64_t hidden[2];
};

struct CopyParameters {
  uint64_t source;  // of the first pixel's first channel
  uint64_t result;
  uint32_t pixels;  // of one image
  uint32_t pitch, channels, images;
  uint64_t hidden[2];
};

constexpr uint32_t kLine = 32;       // words between counters: 128 bytes
constexpr uint32_t kCopyBlock = 64;  // pixels and channels
constexpr uint8_t kWalkSizes[] = {8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4, 8, 8};
constexpr uint8_t kCopySizes[] = {8, 8, 4, 4, 4, 4, 8, 8};
constexpr uint8_t kModuleRanks[kMaps] = {2, 2, 4, 4, 2, 2, 2, 2, 2};
constexpr uint8_t kModuleSizes[] = {128, 4,   4, 8,   8, 128, 4,   4, 8, 8, 128, 4,   4,   4, 4, 8,
                                    8,   8,   8, 128, 4, 4,   4,   4, 8, 8, 8,   8,   128, 4, 4, 8,
                                    8,   128, 4, 4,   8, 8,   128, 4, 4, 8, 8,   128, 4,   4, 8, 8,
                                    128, 4,   4, 8,   8, 8,   8,   8, 8, 8, 8,   8,   4,   8, 8};

static_assert(sizeof(ArchiveHeader) == 64 && sizeof(KernelRecord) == 192 && sizeof(ModuleRecord) == 512);
static_assert(sizeof(WalkParameters) == 128 && sizeof(CopyParameters) == 48);

struct Archive {
  Image file;
  std::vector<KernelRecord> records;
  std::vector<ModuleRecord> modules;

  template <typename Record>
  const std::byte* code(const Record& record) const {
    return file.data.get() + record.offset;
  }
};

// Where the archive lies when nobody says otherwise: beside this library.
std::string default_archive();

// Throws Refusal (IE_ERROR_KERNELS) or std::bad_alloc.
Archive read_archive(const std::string& path);

}  // namespace ie::cuda
