// The plan file: what a machine runs, as data.
//
//  1. All numbers are little-endian; integers are unsigned; floats are IEEE 754 binary32.
//  2. A file is a FileHeader, `section_count` SectionRecords, and the sections.
//  3. Sections stand in file order, begin at multiples of 64 bytes, do not overlap, and the bytes between
//     them are zero. Exactly one METADATA and one WEIGHTS section, then one or more PROGRAM sections.
//  4. METADATA is UTF-8 JSON (name, labels, preprocessing), which an engine reads (metadata.h); runs do not depend on it.
//  5. WEIGHTS is a blob. Ops point into it; two programs that pack alike point at the same bytes.
//  6. A PROGRAM is a ProgramHeader and then, without gaps, its tables in this order: BufferRecord,
//     OutputRecord, OpRecord, LaunchRecord, TaskRecord, WaitRecord (each `*_count` long), and
//     `string_bytes` of UTF-8 names.
//  7. An activation is a buffer of the arena. Row r of a buffer is a pixel: r = (image * height + y) * width + x;
//     a row holds `pitch` elements (channels), so element (r, c) lies at offset + (r * pitch + c) * size.
//     A buffer is as long as `max_batch` images need.
//     Buffers may share memory. Then the one whose first writer has the lower op number is the older, and is
//     done with before the other is written; an output's buffer is never the older one. The arena ends where
//     the last buffer ends, rounded up to 64.
//  8. An op writes columns [out_channel, out_channel + out_padded) of every row of its output buffer:
//     `out_channels` values and then zeros. Its output is cut into tiles of `tile_rows` x `tile_columns`
//     (the last ones may be smaller). The rows of a tile may belong to several images.
//  9. For one tap (kh, kw) of its window, a row (n, y, x) of the output reads input pixel
//     (n, y * stride_h + kh - pad_top, x * stride_w + kw - pad_left): `in_channels` elements from in_channel
//     on. A pixel outside the image is zero for a convolution and absent for a pool.
//     A *folded* convolution (in_channels > pitch) reads across pixels: kernel_w is 1, in_channel 0, and the
//     padding to the left and right was written into the buffer by the INPUT op.
// 10. CONV: out = in * weight + bias, then ReLU if flagged; linear layers are convolutions as large as
//     their input. Weights: PANEL_16 packing [out_channels / 16 rounded up][kernel_h][kernel_w][in_channels][16];
//     of the program's dtype; bias: out_channels rounded up to 16 floats. What lies beyond out_channels is zero; out_padded ends in
//     the same panel.
//     Flagged WINOGRAD, in float32 and bfloat16 programs for the CPU, it is computed by Winograd's algorithm from patches of 6 x 6
//     pixels, (7 - kernel_h) x (7 - kernel_w) outputs each, which are counted from the corner of every image. The window
//     is 3x3 or 5x5 of stride 1, K whole. Flagged SMALL_PATCHES as well, with a window of 3x3, patches are 4 x 4 pixels and
//     make 2 x 2 outputs. A tile holds whole patches: tile_rows is a multiple of an image, or of a line
//     of patches where an image is whole lines of patches. A CPU makes other weights of these, four times as many at
//     most, and of those in half precision, where short sums are filled up to 32 products; so in its programs all weights of which others are made, each way of it
//     counted once, fit their section. A CPU with products of bfloat16 computes the same outputs directly, in any tile.
//     With `part_depth` the product is cut along K, too, k = (kh * kernel_w + kw) * in_channels + c: part p sums k
//     from p * part_depth up to the next part. Its task stores the sums, tile_rows x tile_columns floats at place
//     (tile * parts + p) of `part_buffer`, where tiles count from left to right, then down; then it adds one to counter
//     first_arrival + tile. The task that finds all other parts there adds them up in order, and finishes the tile.
//     No task signals these counters or waits for them, and no other op touches the buffer. Without: all three are 0.
//     MAX_POOL, AVERAGE_POOL: per channel. LRN and SOFTMAX: across channels, so one tile has all columns.
//     A CONV or a MAX_POOL flagged THEN_LRN, in programs for the CPU, is an LRN op, too, over its `out_channels`: what it has stored of a
//     tile, in the dtype of its buffer, is normalised in place. One tile has all columns, and K is whole.
//     A CONV flagged MAX_POOL_FIRST, in programs for the CPU, has the window of a maximum pool; what that makes of `in_channels` is
//     multiplied with the weights of one tap. It is not flagged WINOGRAD, not folded, and K is whole.
//     INPUT: reads the caller's image, float32 NCHW as it is or uint8 NHWC times scale plus shift (2 *
//     in_channels floats at weight_offset: scales, then shifts); out_w = pad_left + in_w + pad_right.
// 11. A task computes one tile of one op, or, as a JOIN, nothing. Before its first access it waits until
//     each of `wait_count` counters has reached its target; after its last it adds one to counter `signal`.
//     The waits of the tasks follow each other in their table without gaps.
// 12. A launch is a range of tasks; all tasks of a launch are done before the next one begins. Within a
//     launch workers take tasks in order, by ticket, and finish each before they take another.
// 13. An output is a slice of a buffer that is read by the caller when all launches are done.
// 14. Reserved fields are zero. A reader refuses a higher version.
// 15. `hash` is XXH64 (seed 0) of all bytes behind the FileHeader. It catches accidents; what makes a plan
//     from a stranger safe is the proof (proof/proof.h).
#pragma once

#include <cstdint>

namespace ie {

constexpr char kMagic[8] = {'I', 'N', 'C', 'P', 'L', 'A', 'N', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kNone = 0xFFFFFFFFu;  // no counter to signal; the op of a JOIN task
constexpr uint64_t kSectionAlignment = 64;
constexpr uint64_t kBufferAlignment = 64;  // of buffers in the arena and of weights in their section
constexpr uint32_t kPanel = 16;            // columns of one weight panel

enum class Section : uint32_t { kMetadata = 1, kWeights = 2, kProgram = 3 };
enum class Target : uint32_t { kCpu = 1, kCuda = 2 };
enum class Dtype : uint32_t { kFloat32 = 1, kFloat16 = 2, kBfloat16 = 3 };
enum class OpKind : uint32_t {
  kInput = 1,
  kConv = 2,
  kMaxPool = 3,
  kAveragePool = 4,
  kLrn = 5,
  kSoftmax = 6
};
enum class Packing : uint32_t { kNoWeights = 0, kPanel16 = 1 };
enum class LaunchMode : uint32_t { kNetwork = 1, kModule = 2, kLayer = 3 };
enum OpFlag : uint32_t {
  kRelu = 1,
  kCountIncludePad = 2,
  kWinograd = 4,
  kSmallPatches = 8,
  kThenLrn = 16,
  kMaxPoolFirst = 32
};

struct FileHeader {
  char magic[8];
  uint32_t version;
  uint32_t section_count;
  uint64_t file_bytes;
  uint64_t hash;
  uint32_t reserved[8];
};

struct SectionRecord {
  uint32_t kind;
  uint32_t reserved;
  uint64_t offset;
  uint64_t bytes;
  uint64_t reserved2;
};

struct ProgramHeader {
  uint32_t target;
  uint32_t dtype;
  uint32_t max_batch;
  uint32_t input_channels, input_height, input_width;  // of the caller's image
  uint32_t buffer_count;
  uint32_t output_count;
  uint32_t op_count;
  uint32_t launch_count;
  uint32_t task_count;
  uint32_t wait_count;
  uint32_t counter_count;
  uint32_t string_bytes;
  uint64_t arena_bytes;
  uint64_t activation_bytes;  // sum of all activations without reuse; for the reader, not for the machine
  uint32_t reserved[14];
};

struct BufferRecord {
  uint64_t offset;  // bytes from the start of the arena
  uint32_t rows;    // pixels of one image
  uint32_t pitch;   // elements of one row
  uint32_t dtype;
  uint32_t reserved[3];
};

struct OutputRecord {
  uint32_t buffer;
  uint32_t channel;
  uint32_t channels;
  uint32_t height, width;
  uint32_t name, name_bytes;  // in the strings
  uint32_t reserved;
};

struct OpRecord {
  uint32_t kind;
  uint32_t flags;
  uint32_t in_buffer, in_channel, in_channels;
  uint32_t out_buffer, out_channel, out_channels, out_padded;
  uint32_t in_h, in_w, out_h, out_w;
  uint32_t kernel_h, kernel_w, stride_h, stride_w;
  uint32_t pad_top, pad_left, pad_bottom, pad_right;
  uint32_t tile_rows, tile_columns;
  uint32_t packing;
  uint32_t lrn_size;
  float lrn_alpha, lrn_beta, lrn_k;
  uint32_t name, name_bytes;      // in the strings
  uint32_t module, module_bytes;  // name of the Inception module, or empty
  uint64_t weight_offset, weight_bytes;
  uint64_t bias_offset;
  uint64_t nominal_macs;  // of the layers this op came from, per image; for the reader, not for the machine
  uint32_t part_depth;    // elements of K of one part, or 0: all of K
  uint32_t part_buffer, first_arrival;
  uint32_t reserved[5];
};

struct LaunchRecord {
  uint32_t first_task, task_count;
  uint32_t mode;
  uint32_t name, name_bytes;  // in the strings
  uint32_t reserved[3];
};

struct TaskRecord {
  uint32_t op;           // or kNone: JOIN
  uint32_t row, column;  // first of the tile; the column counts from out_channel
  uint32_t wait_begin, wait_count;
  uint32_t signal;  // or kNone
  uint32_t part;    // of K
  uint32_t reserved;
};

struct WaitRecord {
  uint32_t counter;
  uint32_t target;
};

static_assert(sizeof(FileHeader) == 64 && sizeof(SectionRecord) == 32 && sizeof(ProgramHeader) == 128);
static_assert(sizeof(BufferRecord) == 32 && sizeof(OutputRecord) == 32 && sizeof(OpRecord) == 192);
static_assert(sizeof(LaunchRecord) == 32 && sizeof(TaskRecord) == 32 && sizeof(WaitRecord) == 8);

}  // namespace ie
